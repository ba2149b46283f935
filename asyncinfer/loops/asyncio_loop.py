"""asyncio and uvloop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress

from . import CLOSE_GRACE, Guard, Loop, LoopClosed, Timer, Waiter


class AsyncioWaiter:
    """A future that any thread may resolve, as often as it likes."""

    __slots__ = ("_future", "_loop", "_thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._future: asyncio.Future[None] = loop.create_future()

    async def wait(self) -> None:
        await self._future

    def wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._set()
        else:
            with suppress(RuntimeError):  # the waiter's loop has ended, and the waiter with it
                self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class AsyncioGuard:
    """One timer, re-armed only when it rings: moving the deadline costs two attribute writes.

    The way of `asyncio.timeout`: the timer cancels the waiting task, and ``uncancel`` tells whether somebody else
    wanted that too.
    """

    __slots__ = ("_armed_for", "_cancelling", "_hit", "_loop", "_shortest", "_task", "_timer", "_when")

    def __init__(self, loop: asyncio.AbstractEventLoop, shortest: float | None) -> None:
        self._loop = loop
        self._shortest = shortest
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._when = 0.0
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._hit = False

    def enter(self, when: float | None) -> None:
        if when is None:
            return
        self._task = task = asyncio.current_task(self._loop)
        assert task is not None
        self._cancelling = task.cancelling()
        self._when = when
        if self._timer is None or when < self._armed_for:
            self._arm()

    def leave(self) -> None:
        task, self._task = self._task, None
        if self._hit and task is not None:
            self._hit = False
            task.uncancel()

    def expired(self, error: BaseException) -> bool:
        task, self._task = self._task, None
        if not self._hit or task is None:
            return False
        self._hit = False
        alone = task.uncancel() <= self._cancelling
        return alone and not isinstance(error, (KeyboardInterrupt, SystemExit))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Ringing early is cheap and rare; cancelling a timer to set an earlier one would cost every call.
        self._armed_for = self._when
        if self._shortest is not None:
            self._armed_for = min(self._when, self._loop.time() + self._shortest)
        self._timer = self._loop.call_at(self._armed_for, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:  # nobody waits: a slow consumer is not a silent provider
            return
        if self._loop.time() < self._when:
            self._arm()
        else:
            self._hit = True
            self._task.cancel()


class AsyncioLoop(Loop):
    """See `Loop`."""

    name = "asyncio"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = weakref.ref(loop)
        self._tasks: set[asyncio.Task[None]] = set()

    def _alive(self) -> asyncio.AbstractEventLoop:
        loop = self._loop()
        if loop is None or loop.is_closed():
            raise LoopClosed("the event loop is closed")
        return loop

    @property
    def alive(self) -> bool:
        loop = self._loop()
        return loop is not None and not loop.is_closed()

    def time(self) -> float:
        return self._alive().time()

    def soon(self, fn: Callable[..., object], *args: object) -> None:
        loop = self._alive()
        try:
            loop.call_soon_threadsafe(fn, *args)
        except RuntimeError as error:  # closed between the two lines, by another thread
            raise LoopClosed(str(error)) from error

    def later(self, delay: float, fn: Callable[[], object]) -> Timer:
        return self._alive().call_later(delay, fn)

    def repeat(self, pause: float, fn: Callable[[], bool]) -> None:
        loop = self._alive()

        def ring() -> None:
            if fn():
                loop.call_later(pause, ring)

        loop.call_later(pause, ring)

    def spawn(self, async_fn: Callable[..., Awaitable[None]], *args: object) -> None:
        task: asyncio.Task[None] = self._alive().create_task(async_fn(*args))  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def waiter(self) -> Waiter:
        return AsyncioWaiter(self._alive())

    def guard(self, shortest: float | None = None) -> Guard:
        return AsyncioGuard(self._alive(), shortest)

    async def drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_GRACE)


_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncioLoop] = weakref.WeakKeyDictionary()


def current() -> Loop:
    """The `Loop` of the running asyncio loop; RuntimeError if there is none."""
    loop = asyncio.get_running_loop()
    found = _loops.get(loop)
    if found is None:
        found = _loops[loop] = AsyncioLoop(loop)
    return found
