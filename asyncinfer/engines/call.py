"""One call on its walk through the pipeline: wait for a slot, open, retry until the first delta, read, settle.

Rule: retry until the first delta, never silently after it. Nothing here knows what an engine does to answer; nothing
outside decides when a slot is given back. A call never refers to the iterators that read it, so that dropping an
iterator is seen at once.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from msgspec.structs import replace

from ..completion import Completion, Timeouts, Timings
from ..errors import (
    AsyncInferError,
    EngineClosedError,
    EngineError,
    StreamConsumedError,
    StreamInterrupted,
    StreamTruncated,
    TotalTimeout,
    TransportError,
)
from ..events import DELTAS, Event, Finish, Usage
from ..loops import LoopClosed, running
from .clocks import Clocks
from .fold import Fold
from .parsing import parse_answer
from .patience import in_vain

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..loops import Loop
    from ..request import Request
    from ..scheduling.limiter import Ticket
    from .source import Opener, Source

_log = logging.getLogger("asyncinfer")

_NEW, _OPENING, _OPEN, _DONE, _FAILED, _ABORTED = range(6)


class Call:
    """The state of one call. `buffer` holds events that were pulled but not yet handed out. ``spare``: another engine
    stands by, so this one is given up sooner, and its queue counts towards the first token."""

    __slots__ = (
        "__weakref__",
        "_busy",
        "_clocks",
        "_engine",
        "_error",
        "_fold",
        "_live",
        "_loop",
        "_on_dispatch",
        "_source",
        "_spare",
        "_state",
        "_ticket",
        "buffer",
        "request",
        "timings",
        "usage",
    )

    def __init__(
        self,
        engine: Opener,
        request: Request,
        live: set[Call],
        on_dispatch: Callable[[], None] | None = None,
        *,
        spare: bool = False,
    ) -> None:
        self.request = request
        self.buffer: deque[Event] = deque()
        self.timings = Timings()
        self.usage: Usage | None = None
        self._engine = engine
        self._live = live
        self._on_dispatch = on_dispatch
        self._spare = spare
        self._state = _NEW
        self._busy = False
        self._error: BaseException | None = None
        self._fold = self._new_fold()
        self._source: Source | None = None
        self._ticket: Ticket | None = None
        self._loop: Loop
        self._clocks: Clocks

    def _new_fold(self) -> Fold:
        return Fold(self.request.generation.n or 1)

    # -- reading -----------------------------------------------------------------------------------------------------

    async def fill(self) -> bool:
        """Put the next events into `buffer`; False when the answer is complete."""
        events = await self.pull()
        if events is None:
            return False
        self.buffer.extend(events)
        return True

    async def pull(self) -> list[Event] | None:
        """The next events; None when the answer is complete. Raises `AsyncInferError`."""
        if self._state != _OPEN:
            if self._state == _NEW:
                return await self._first()
            self._over()
            return None
        if self._busy:
            raise EngineError("two tasks read the same stream at once; give each its own", provider=self._engine.name)
        assert self._source is not None
        self._busy = True
        self._clocks.enter_read(self._fold.deltas, finished=self._fold.finished)
        try:
            events = await self._source.pull()
        except BaseException as error:  # noqa: BLE001 -- _fail gives everything back and raises again
            self._busy = False
            expired = self._clocks.expired(error)
            if self._fold.finished and (expired or isinstance(error, TransportError)):
                await self._complete()
                return None
            self._fail(self._clocks.silence() if expired else error)
        self._clocks.leave()
        self._busy = False
        if events is None:
            await self._complete()
            return None
        self._fold.add(events)
        return events

    def _over(self) -> None:
        """Reading a call that has ended: None if it was complete, else why it was not."""
        if self._state == _DONE:
            return
        if self._error is not None:
            raise self._error
        if self._state == _OPENING:
            raise EngineError("two tasks read the same stream at once; give each its own", provider=self._engine.name)
        raise StreamInterrupted(
            "this stream was left before its end and is closed; `.partial` has what arrived",
            provider=self._engine.name,
            partial=self._completion(),
        )

    # -- opening -----------------------------------------------------------------------------------------------------

    async def _first(self) -> list[Event]:
        self._state = _OPENING
        self._loop = loop = running()
        timeouts = self.request.timeouts
        if self._engine.keeps_clocks:
            timeouts = Timeouts(connect=None, first_token=None, between_tokens=None, total=timeouts.total)
        self._clocks = clocks = Clocks(loop, timeouts, self._engine.name, total_waits=self._on_dispatch is not None)
        self._live.add(self)
        try:
            await clocks.in_total(self._engine.ready())
            clocks.attempt()
            self._ticket = self._engine.ticket(self.request)
            events = await self._attempt(self._ticket)
            while events is None:
                events = await self._attempt(self._ticket)
            if self._error is not None:
                raise self._error
        except BaseException as error:  # noqa: BLE001 -- _fail gives the slot back and raises again
            self._fail(error)
        loop.adopt(self)
        if self._state == _OPENING:
            self._state = _OPEN
        return events

    async def _attempt(self, ticket: Ticket) -> list[Event] | None:
        """One request: everything up to and including its first delta; None if it failed and may be tried again."""
        if self._spare:
            await self._clocks.to_first_token(ticket.acquire())
        else:
            await self._clocks.in_total(ticket.acquire())
            self._clocks.attempt()
        self.timings.queued = ticket.queued
        self.timings.attempts = ticket.attempts
        if self._error is not None:
            ticket.refund(sent=False)
            raise self._error
        if self._on_dispatch is not None:
            self._clocks.start_total()
            self._on_dispatch()
            self._on_dispatch = None
        self._fold = self._new_fold()
        try:
            return await self._until_delta(ticket)
        except Exception as raw:  # noqa: BLE001 -- typed, and raised or tried again
            error = self._typed(raw)
            source, self._source = self._source, None
            if source is not None:
                source.abort()
            if in_vain(error, ticket, spare=self._spare):
                ticket.max_retries = 0
            again = ticket.refuse(error.retry, retry_after=error.retry_after, rate=error.rate)
            if not again or self._error is not None:
                raise error  # noqa: B904 -- it has its cause already
            _log.debug("%s: attempt %d failed, trying again: %s", self._engine.name, ticket.attempts, error)
            return None

    async def _until_delta(self, ticket: Ticket) -> list[Event]:
        clocks = self._clocks
        self._source = source = await clocks.to_first_token(self._engine.open(self.request))
        ticket.on_headers(source.rate)
        held: list[Event] = []
        while True:
            events = await clocks.to_first_token(source.pull())
            if events is None:
                if not self._fold.finished:
                    raise StreamTruncated(
                        "the engine ended its answer before a first token and without a finish reason",
                        provider=self._engine.name,
                    )
                self._note_first()
                await self._complete()
                return held
            self._fold.add(events)
            held += events
            if any(type(event) in DELTAS or type(event) is Finish for event in events):
                self._note_first()
                return held

    def _note_first(self) -> None:
        if self._fold.deltas:
            self.timings.ttft = self._clocks.elapsed()

    # -- ending ------------------------------------------------------------------------------------------------------

    async def _complete(self) -> None:
        """The source has ended by itself."""
        assert self._source is not None
        if not self._fold.finished:
            self._fail(
                StreamTruncated(
                    "the answer ended without a finish reason: it is not complete", provider=self._engine.name
                )
            )
        self._state = _DONE
        self._settle()
        self._clocks.enter_close()
        try:
            await self._source.aclose()
        except BaseException as error:
            self._source.abort()
            if not self._clocks.expired(error) and not isinstance(error, Exception):
                raise
        else:
            self._clocks.leave()
        self._clocks.close()

    def _fail(self, raw: BaseException) -> NoReturn:
        """Give everything back and raise: the error, typed and with what had arrived; or the cancellation."""
        began = self._state == _OPEN or self._fold.deltas > 0
        known = self._error
        if not isinstance(raw, Exception):
            self.abort()
            raise raw
        error = known if isinstance(known, AsyncInferError) else self._typed(raw)
        if began and not isinstance(error, (StreamInterrupted, EngineClosedError, TotalTimeout)):
            cause = error
            error = StreamInterrupted(
                f"the answer broke off: {cause.message}",
                provider=cause.provider or self._engine.name,
                status=cause.status,
                request_id=cause.request_id,
                code=cause.code,
                retry=cause.retry,
                retry_after=cause.retry_after,
            )
            error.__cause__ = cause
        self._error = error
        self.abort(_FAILED)
        if began and error.partial is None:
            error.partial = self._completion()
        if error.provider is None:
            error.provider = self._engine.name
        if error is raw or error.__cause__ is not None:
            raise error
        raise error from (None if isinstance(raw, AsyncInferError) else raw)

    def _typed(self, raw: Exception) -> AsyncInferError:
        if isinstance(raw, AsyncInferError):
            return raw
        error = EngineError(f"{type(raw).__name__}: {raw}", provider=self._engine.name)
        error.__cause__ = raw
        return error

    def abort(self, state: int = _ABORTED) -> None:
        """Stop now: the upstream is told, the slot and its budget come back. On the call's own loop; idempotent."""
        if self._state in (_DONE, _FAILED, _ABORTED):
            return
        opened = self._state != _NEW
        self._state = state
        if self._source is not None:
            self._source.abort()
        if opened:
            self._settle()
            self._clocks.close()

    def abandon(self) -> None:
        """Abort from anywhere: another thread, a garbage-collector run, after the loop has ended."""
        if self._state != _OPEN:
            return
        try:
            self._loop.soon(self.abort)
        except LoopClosed:
            self.abort()

    def close(self, error: AsyncInferError) -> None:
        """Abort from anywhere, and let whoever reads the call see ``error``."""
        if self._state not in (_OPENING, _OPEN):
            return
        self._error = error
        try:
            self._loop.soon(self._cut)
        except LoopClosed:
            self._cut()

    def _cut(self) -> None:
        if self._state == _OPEN:
            self.abort(_FAILED)
        elif self._state == _OPENING and self._source is not None:
            self._source.abort()

    def _settle(self) -> None:
        self._live.discard(self)
        if self._loop.alive:
            self.timings.total = self._clocks.elapsed()
        self.timings.deltas = self._fold.deltas
        self.usage = self._usage()
        if self._ticket is not None:
            if self._source is None:
                self._ticket.refund()
            else:
                self._ticket.settle(
                    input_tokens=self.usage.input_tokens,
                    output_tokens=self.usage.output_tokens,
                    cached_tokens=self.usage.cached_tokens,
                )

    def _usage(self) -> Usage:
        fold = self._fold
        known = fold.usage
        if known is not None and (self._state == _DONE or (known.output_tokens and fold.finished)):
            return known
        if self._source is None:
            return Usage(source="estimated")
        known = known or Usage(input_tokens=self._engine.estimate_input(self.request))
        return replace(known, output_tokens=max(known.output_tokens, fold.estimated_output()), source="estimated")

    # -- results -----------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether every choice has ended, although the source may still have something to say (usage)."""
        return self._state == _OPEN and self._fold.finished

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request, once it is open."""
        return self._source.request_id if self._source is not None else None

    @property
    def open(self) -> bool:
        """Whether there may be more to read."""
        return self._state in (_NEW, _OPENING, _OPEN)

    def must_be_readable(self) -> None:
        """Raises `StreamConsumedError` for a call that was read to its end already."""
        if self._state == _DONE and not self.buffer:
            raise StreamConsumedError(
                "this stream has been read to its end; use `await stream.completion()`, or start a new one",
                provider=self._engine.name,
            )

    async def result(self) -> Completion:
        """Read to the end and return the whole answer, parsed where a schema was asked for."""
        while await self.pull() is not None:
            pass
        completion = self._completion()
        parse_answer(completion, self.request)
        return completion

    def _completion(self) -> Completion:
        usage = self.usage or self._usage()
        return self._fold.completion(self.request, usage, self.timings, self.request_id)
