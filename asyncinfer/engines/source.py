"""The seam between an engine and the pipeline: what the pipeline asks of an engine, and what one opened answer is.

An engine's own duty is ``async def open(request) -> Source``. Slots, retries, clocks, the fold, early exit and usage
are the pipeline's (`engines.call`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import EngineClosedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio import CancelScope

    from ..events import Event
    from ..limits import RateHeaders
    from ..request import Request
    from ..scheduling.limiter import Ticket

_log = logging.getLogger("asyncinfer")


class Source(Protocol):
    """One opened answer, owned by exactly one call and used on the loop that opened it.

    Attributes:
        rate: rate-limit headers that came with the response's head; empty for local engines.
        request_id: the provider's request id, if any.
    """

    rate: RateHeaders
    request_id: str | None

    async def pull(self) -> list[Event] | None:
        """The next events, at least one; None when the answer is complete.

        The events of a complete answer hold a `Finish` for each choice. Raises `AsyncInferError`. Cancelling the
        call must leave nothing running once `abort` has been called too.
        """
        ...

    def abort(self) -> None:
        """Stop the work now, without waiting; a `pull` that is under way must return or raise soon.

        Idempotent; also called after the end, where it does nothing.
        """
        ...

    async def aclose(self) -> None:
        """Let go after a complete answer (give a connection back). Idempotent."""
        ...


class Opener(Protocol):
    """An engine, as the pipeline sees it."""

    name: str
    keeps_clocks: bool

    async def ready(self) -> None:
        """Return once the engine is loaded."""
        ...

    async def open(self, request: Request) -> Source:
        """Begin one answer. Called with a slot held."""
        ...

    def ticket(self, request: Request) -> Ticket:
        """A place in the queue of the engine's limiter."""
        ...

    def estimate_input(self, request: Request) -> int:
        """Prompt tokens, roughly; for answers that end before their usage is known."""
        ...


class IteratorSource:
    """Makes a `Source` of an async iterator of events: how an engine of one's own needs only ``produce``."""

    __slots__ = ("_aborted", "_events", "_loop", "_pulling", "rate", "request_id")

    def __init__(self, events: AsyncIterator[Event]) -> None:
        from ..loops import running

        self._events = events
        self._loop = running()
        self._aborted = False
        self._pulling: CancelScope | None = None
        self.rate: RateHeaders = {}
        self.request_id: str | None = None

    async def pull(self) -> list[Event] | None:
        from anyio import CancelScope

        # A generator that runs cannot be closed: an abort from another task (the engine is being closed) cancels it.
        with CancelScope() as scope:
            self._pulling = scope
            try:
                return [await anext(self._events)]
            except StopAsyncIteration:
                return None
            finally:
                self._pulling = None
                if self._aborted:
                    self._loop.spawn(self._let_go)
        raise EngineClosedError("the stream was aborted before its end")

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        if self._pulling is not None:
            self._pulling.cancel()
        else:
            self._loop.spawn(self._let_go)

    async def _let_go(self) -> None:
        try:
            await self.aclose()
        except Exception:  # noqa: BLE001 -- nobody awaits this, and on trio it would end the whole program
            _log.exception("an engine's generator failed while it was closed")

    async def aclose(self) -> None:
        close: Any = getattr(self._events, "aclose", None)
        if close is not None:
            await close()
