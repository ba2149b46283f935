"""The seam between an engine and the pipeline: one opened answer.

An engine's only duty is ``async def open(request) -> Source``. Slots, retries, clocks, the fold, early exit and usage
are the pipeline's (`engines.stream`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..events import Event
    from ..limits import RateHeaders


class Source(Protocol):
    """Owned by exactly one stream; used on the loop that opened it.

    Attributes:
        rate: rate-limit headers that came with the response's head; empty for local engines.
        request_id: the provider's request id, if any.
    """

    rate: RateHeaders
    request_id: str | None

    async def pull(self) -> list[Event] | None:
        """The next events, at least one; None when the answer is complete.

        The last events of a complete answer hold a `Finish` for each choice. Raises `AsyncInferError`. Cancelling the
        call must leave nothing running once `abort` has been called too.
        """
        ...

    def abort(self) -> None:
        """Stop the work now, without waiting. Idempotent; also called after the end, where it does nothing."""
        ...

    async def aclose(self) -> None:
        """Let go after a complete answer (give a connection back). Idempotent."""
        ...
