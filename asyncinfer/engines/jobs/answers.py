"""From the line of a result file to the answer that the engine itself would have given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...completion import Completion, Failure, Timings
from ...errors import APIError, AsyncInferError, RetryKind
from ...events import Usage
from ..fold import Fold
from ..parsing import parse_answer
from .status import BatchState

if TYPE_CHECKING:
    from ...request import Request
    from ..endpoint import Endpoint
    from .parts import Part, Row
    from .status import PartStatus

_PREFIX = "row-"


def row_id(index: int) -> str:
    """The name of a row in a provider's files."""
    return f"{_PREFIX}{index}"


def index_of(name: str) -> int | None:
    """The row of a name; None for a name that is none of ours."""
    digits = name.removeprefix(_PREFIX)
    return int(digits) if name.startswith(_PREFIX) and digits.isascii() and digits.isdigit() else None


def answer(endpoint: Endpoint, request: Request, row: Row, index: int) -> Completion | Failure:
    """The completion or failure that a line stands for."""
    try:
        if row.error is not None:
            raise row.error
        return _completion(endpoint, request, row, index)
    except AsyncInferError as error:
        if error.provider is None:
            error.provider = endpoint.provider.name
        if error.request_id is None:
            error.request_id = row.request_id
        return Failure(index=index, conversation=request.conversation, error=error)


def _completion(endpoint: Endpoint, request: Request, row: Row, index: int) -> Completion:
    decoder = endpoint.codec.decoder(request, endpoint.provider.dialect, "application/json")
    fold = Fold(request.generation.n or 1)
    fold.add(decoder.feed(row.body or b""))
    while events := decoder.close():
        fold.add(events)
    usage = fold.usage or Usage(output_tokens=fold.estimated_output(), source="estimated")
    completion = fold.completion(request, usage, Timings(deltas=fold.deltas), row.request_id)
    completion.index = index
    parse_answer(completion, request)
    return completion


def missing(part: Part, status: PartStatus, provider: str) -> AsyncInferError:
    """Why a row of a job that has ended is in no result file."""
    reason = f": {status.reason}" if status.reason else ""
    said = {
        BatchState.COMPLETED: "is complete, but the provider's files do not have this row",
        BatchState.FAILED: f"failed as a whole{reason}",
        BatchState.EXPIRED: "expired before this row was answered",
        BatchState.CANCELLED: "was cancelled before this row was answered",
    }.get(status.state, "has not answered this row yet")
    hopeless = status.state is BatchState.FAILED
    return APIError(
        f"batch {part.id} {said}",
        provider=provider,
        code=f"batch_{status.state}",
        retry=RetryKind.NEVER if hopeless else RetryKind.TRANSIENT,
    )
