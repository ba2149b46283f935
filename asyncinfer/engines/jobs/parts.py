"""What jobs and flavours tell each other. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ...errors import AsyncInferError


class Framing(NamedTuple):
    """How the rows of one provider job lie in its file, and how much one may hold.

    Attributes:
        rows, size: the most rows and bytes of one provider job.
        before, between, after: bytes around the rows.
        least: the fewest rows of one provider job.
    """

    rows: int
    size: int
    before: bytes = b""
    between: bytes = b"\n"
    after: bytes = b"\n"
    least: int = 0


@dataclass(slots=True)
class Part:
    """One provider job: the rows from ``first`` up to, not including, ``end``, but for those never sent.

    Attributes:
        id: the provider's id.
        first, end: positions in the whole input, 0-based.
        rows: how many were sent.
        details: what else the flavour must remember.
    """

    id: str
    first: int
    end: int
    rows: int
    details: dict[str, str] = field(default_factory=dict)


class Order(NamedTuple):
    """What is asked of a provider job.

    Attributes:
        path: the codec's path of the endpoint that answers the rows.
        model: name of the model.
        window: how long it may take (``"24h"``), or None.
        labels: the caller's notes, where the provider keeps some.
        mark: unique to these rows of this job, ``[a-z0-9-]{1,52}``: a provider job that was created although its
            creation seemed to fail, or whose creator was killed, is found by it.
        again: an earlier attempt may have been killed after the provider took the rows: take that provider job, where
            it can be found.
    """

    path: str
    model: str
    window: str | None
    labels: dict[str, str]
    mark: str
    again: bool = False


class Row(NamedTuple):
    """One line of a result file.

    Attributes:
        id: what `Flavour.line` was given.
        body: the answer, a document in the codec's format; None if there is an error.
        error: why there is no answer.
        request_id: the provider's id of the request, if it says one.
    """

    id: str
    body: bytes | None = None
    error: AsyncInferError | None = None
    request_id: str | None = None
