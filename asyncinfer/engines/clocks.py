"""The four clocks of one call: what may take how long, and the error that names the clock that ran out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..errors import AsyncInferError, FirstTokenTimeout, TokenTimeout, TotalTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..completion import Timeouts
    from ..loops import Loop

T = TypeVar("T")

_TAIL_GRACE = 5.0
"""Seconds granted to what may follow a finished answer (usage, the end of the body)."""
_CLOSE_GRACE = 1.0
"""Seconds granted to giving a connection back."""


class Clocks:
    """Made when the call starts, on its loop. The connect clock is the transport's.

    Args:
        total_waits: the total clock starts with `start_total` only: a row of many is not to blame for its queue.

    Attributes:
        started_at: when the call began, on the clock of ``loop.time``.
    """

    __slots__ = ("_attempt_at", "_deltas", "_guard", "_loop", "_name", "_since", "_timeouts", "_total_at", "started_at")

    def __init__(self, loop: Loop, timeouts: Timeouts, name: str, *, total_waits: bool = False) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._name = name
        self._guard = loop.guard(timeouts.between_tokens)
        self.started_at = self._since = self._attempt_at = loop.time()
        self._deltas = -1
        self._total_at: float | None = None
        if not total_waits:
            self.start_total()

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return self._loop.time() - self.started_at

    def start_total(self) -> None:
        """The total clock starts now."""
        total = self._timeouts.total
        self._total_at = None if total is None else self._loop.time() + total

    def attempt(self) -> None:
        """A request is about to be sent: its first-token clock starts."""
        self._attempt_at = self._loop.time()

    # -- awaiting one thing --------------------------------------------------------------------------------------------

    async def in_total(self, work: Awaitable[T]) -> T:
        """Await under the total clock alone."""
        return await self._await(work, None)

    async def to_first_token(self, work: Awaitable[T]) -> T:
        """Await under the total and the first-token clock."""
        first = self._timeouts.first_token
        return await self._await(work, None if first is None else self._attempt_at + first)

    async def _await(self, work: Awaitable[T], by: float | None) -> T:
        total = self._total_at
        when = by if total is None else total if by is None else min(by, total)
        self._guard.enter(when)
        try:
            result = await work
        except BaseException as error:
            if self._guard.expired(error):
                raise (self._total() if when == total else self._first_token()) from None
            raise
        self._guard.leave()
        return result

    # -- reading: no coroutine of its own, for this is the per-token path ----------------------------------------------

    def enter_read(self, deltas: int, *, finished: bool) -> None:
        """The next events are about to be awaited; ``deltas`` content events came so far."""
        between = self._timeouts.between_tokens
        when = self._total_at
        if between is not None:
            if deltas != self._deltas:
                # A consumer that takes its time is not a silent provider: the clock starts when it asks for more.
                self._deltas = deltas
                self._since = self._loop.time()
            quiet = self._since + (min(between, _TAIL_GRACE) if finished else between)
            if when is None or quiet < when:
                when = quiet
        self._guard.enter(when)

    def leave(self) -> None:
        """The await that was entered returned."""
        self._guard.leave()

    def expired(self, error: BaseException) -> bool:
        """The await that was entered raised: was it a clock's doing?"""
        return self._guard.expired(error)

    def silence(self) -> AsyncInferError:
        """Why reading took too long."""
        between = self._timeouts.between_tokens
        if between is None or (self._total_at is not None and self._since + between > self._total_at):
            return self._total()
        return TokenTimeout(
            f"no token for {between:g} s in the middle of the answer; raise `timeouts=Timeouts(between_tokens=...)` "
            "if the model is that slow",
            seconds=between,
            provider=self._name,
        )

    def enter_close(self) -> None:
        """The source is about to be let go."""
        self._guard.enter(self._loop.time() + _CLOSE_GRACE)

    def close(self) -> None:
        """The call is over."""
        self._guard.close()

    # -- the errors ----------------------------------------------------------------------------------------------------

    def _first_token(self) -> AsyncInferError:
        seconds = self._timeouts.first_token
        return FirstTokenTimeout(
            f"no first token within {seconds:g} s; raise `timeouts=Timeouts(first_token=...)` for a slower model",
            seconds=seconds,
            provider=self._name,
        )

    def _total(self) -> AsyncInferError:
        seconds = self._timeouts.total
        return TotalTimeout(
            f"the call took longer than {seconds:g} s in total (waiting for a slot and retries included)",
            seconds=seconds,
            provider=self._name,
        )
