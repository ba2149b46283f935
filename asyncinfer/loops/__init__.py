"""The one room that knows both event loops, asyncio and trio.

Everything that must outlive a single ``await`` (a background task, a wake-up from another thread, a timer, a deadline,
what to do when the loop ends) goes through the `Loop` of the running loop. No other room imports ``asyncio`` or
``trio.lowlevel``, and each half of this one is imported only where its loop runs.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CLOSE_GRACE = 2.0
"""Seconds that connections get to close when their loop ends."""


class LoopClosed(RuntimeError):
    """The loop has ended; nothing can be scheduled on it any more."""


class Abortable(Protocol):
    """What a loop stops when it ends."""

    def abort(self) -> None: ...


class Timer(Protocol):
    """A pending `Loop.later`."""

    def cancel(self) -> None: ...


class Waiter(Protocol):
    """One task waits once; anybody, on any thread, wakes it once."""

    async def wait(self) -> None: ...

    def wake(self) -> None: ...


class Guard(Protocol):
    """Bounds the awaits of one task by a deadline that moves, without a timer for each of them.

    ::

        guard.enter(when)
        try:
            result = await work()
        except BaseException as error:
            if guard.expired(error):
                raise TimeoutError from error
            raise
        guard.leave()
    """

    def enter(self, when: float | None) -> None:
        """The running task is about to await; ``when`` is on the clock of `Loop.time`, None for no bound."""

    def leave(self) -> None:
        """The await returned."""

    def expired(self, error: BaseException) -> bool:
        """The await raised: was it this guard's doing? Must be called exactly once, in place of `leave`."""
        ...

    def close(self) -> None:
        """Drop the timer."""


class Loop:
    """What this package needs of an event loop. One object per running loop: see `running`."""

    name: str

    def __init__(self) -> None:
        self.live: weakref.WeakSet[Any] = weakref.WeakSet()
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self._sentinel: AsyncGenerator[None, None] | None = None

    # -- to be given by each loop ------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the loop still runs, or may run again."""
        raise NotImplementedError

    def time(self) -> float:
        """Monotonic seconds, the loop's own clock. Raises `LoopClosed`."""
        raise NotImplementedError

    def soon(self, fn: Callable[..., object], *args: object) -> None:
        """Call ``fn`` on the loop's thread, from any thread or a garbage-collector run. Raises `LoopClosed`."""
        raise NotImplementedError

    def later(self, delay: float, fn: Callable[[], object]) -> Timer:
        """Call ``fn`` after ``delay`` seconds; on the loop's own thread only."""
        raise NotImplementedError

    def repeat(self, pause: float, fn: Callable[[], bool]) -> None:
        """Call ``fn`` every ``pause`` seconds until it returns False; on the loop's own thread only."""
        raise NotImplementedError

    def spawn(self, async_fn: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a background task with no task group; it must not raise. The loop keeps it alive."""
        raise NotImplementedError

    def waiter(self) -> Waiter:
        """A fresh one-shot wake-up for the running task."""
        raise NotImplementedError

    def guard(self, shortest: float | None = None) -> Guard:
        """A fresh deadline for the awaits of one stream; ``shortest`` is how far, in seconds, the nearest of its
        deadlines usually lies ahead."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Wait a little for background tasks to end."""
        raise NotImplementedError

    # -- the end of the loop -----------------------------------------------------------------------------------------

    def adopt(self, thing: Abortable) -> None:
        """Abort ``thing`` when the loop ends, unless it has been collected by then."""
        self.live.add(thing)
        self._arm()

    def at_end(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Await ``closer()`` when the loop ends, after everything adopted has been aborted."""
        self.closers.append(closer)
        self._arm()

    def _arm(self) -> None:
        # A suspended async generator is the only thing that both asyncio (shutdown_asyncgens) and trio (end of run)
        # close for us while their loop still works.
        if self._sentinel is None:
            self._sentinel = self._guard_the_end()
            with suppress(StopIteration):
                self._sentinel.__anext__().send(None)

    async def _guard_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            for thing in list(self.live):
                thing.abort()
            import anyio

            # trio ends a run inside a cancelled scope: without a shield the first wait would skip all the others.
            with anyio.move_on_after(CLOSE_GRACE, shield=True):
                for closer in self.closers:
                    with suppress(Exception):
                        await closer()
            self.closers.clear()
            await self.drain()
            self._sentinel = None


def running() -> Loop:
    """The `Loop` of the event loop that runs the calling task.

    Raises:
        RuntimeError: no event loop runs here.
    """
    if "trio" in sys.modules:
        from . import trio_loop

        found = trio_loop.current()
        if found is not None:
            return found
    from . import asyncio_loop

    return asyncio_loop.current()
