"""The one file that knows both event loops, asyncio and trio.

Everything that must outlive a single ``await`` (a background task, a wake-up from another thread, a timer, what to do
when the loop ends) goes through the `Loop` of the running loop. No other file imports ``asyncio`` or ``trio.lowlevel``.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator

_CLOSE_GRACE = 2.0
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


class Loop:
    """What this package needs of an event loop. One object per running loop: see `running`."""

    name: str

    def __init__(self) -> None:
        self.live: weakref.WeakSet[Any] = weakref.WeakSet()
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self._sentinel: AsyncGenerator[None, None] | None = None

    # -- to be given by each loop ------------------------------------------------------------------------------------

    def time(self) -> float:
        """Monotonic seconds, the loop's own clock."""
        raise NotImplementedError

    def soon(self, fn: Callable[..., object], *args: object) -> None:
        """Call ``fn`` on the loop's thread, from any thread or a garbage-collector run. Raises `LoopClosed`."""
        raise NotImplementedError

    def later(self, delay: float, fn: Callable[[], object]) -> Timer:
        """Call ``fn`` after ``delay`` seconds; on the loop's own thread only."""
        raise NotImplementedError

    def spawn(self, async_fn: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a background task with no task group; it must not raise. The loop keeps it alive."""
        raise NotImplementedError

    def waiter(self) -> Waiter:
        """A fresh one-shot wake-up for the running task."""
        raise NotImplementedError

    async def _drain(self) -> None:
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
            self._sentinel = self._guard()
            with suppress(StopIteration):
                self._sentinel.__anext__().send(None)

    async def _guard(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            for thing in list(self.live):
                thing.abort()
            for closer in self.closers:
                with suppress(Exception):
                    await closer()
            await self._drain()
            self._sentinel = None


# -- asyncio ---------------------------------------------------------------------------------------------------------


class _AsyncioWaiter:
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


class AsyncioLoop(Loop):
    """asyncio, uvloop."""

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

    def time(self) -> float:
        return self._alive().time()

    def soon(self, fn: Callable[..., object], *args: object) -> None:
        try:
            self._alive().call_soon_threadsafe(fn, *args)
        except LoopClosed:
            raise
        except RuntimeError as error:
            raise LoopClosed(str(error)) from error

    def later(self, delay: float, fn: Callable[[], object]) -> Timer:
        return self._alive().call_later(delay, fn)

    def spawn(self, async_fn: Callable[..., Awaitable[None]], *args: object) -> None:
        task: asyncio.Task[None] = self._alive().create_task(async_fn(*args))  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def waiter(self) -> Waiter:
        return _AsyncioWaiter(self._alive())

    async def _drain(self) -> None:
        import asyncio

        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_GRACE)


# -- trio ------------------------------------------------------------------------------------------------------------


class _TrioWaiter:
    __slots__ = ("_task", "_thread", "_token", "_woken")

    def __init__(self, token: Any) -> None:
        self._token = token
        self._thread = threading.get_ident()
        self._task: Any = None
        self._woken = False

    async def wait(self) -> None:
        import trio

        if self._woken:
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()

        def give_up(_: object) -> Any:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)

    def wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._set()
        else:
            with suppress(RuntimeError, OSError):  # RunFinishedError, or EBADF if that run crashed
                self._token.run_sync_soon(self._set)

    def _set(self) -> None:
        if self._woken:
            return
        self._woken = True
        if self._task is not None:
            import trio

            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)


class _TrioTimer:
    __slots__ = ("_scope",)

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def cancel(self) -> None:
        self._scope.cancel()


class TrioLoop(Loop):
    """trio."""

    name = "trio"

    def __init__(self, token: Any) -> None:
        super().__init__()
        self._token = token
        self._running = 0

    def time(self) -> float:
        import trio

        return trio.current_time()

    def soon(self, fn: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(fn, *args)
        except (RuntimeError, OSError) as error:  # RunFinishedError, or EBADF if the run crashed
            raise LoopClosed(str(error)) from error

    def later(self, delay: float, fn: Callable[[], object]) -> Timer:
        import trio

        scope = trio.CancelScope()

        async def ring() -> None:
            with scope:
                await trio.sleep(delay)
                fn()

        self.spawn(ring)
        return _TrioTimer(scope)

    def spawn(self, async_fn: Callable[..., Awaitable[None]], *args: object) -> None:
        import trio

        async def run() -> None:
            # When the main task ends, trio cancels system tasks: that is an end like any other here.
            try:
                await async_fn(*args)
            finally:
                self._running -= 1

        self._running += 1
        trio.lowlevel.spawn_system_task(run, context=copy_context())

    def waiter(self) -> Waiter:
        return _TrioWaiter(self._token)

    async def _drain(self) -> None:
        import trio

        with trio.move_on_after(_CLOSE_GRACE, shield=True):
            while self._running:
                await trio.sleep(0.001)


# -- which loop runs here ----------------------------------------------------------------------------------------------

_asyncio_loops: weakref.WeakKeyDictionary[Any, AsyncioLoop] = weakref.WeakKeyDictionary()
_trio_loop: Any = None


def running() -> Loop:
    """The `Loop` of the event loop that runs the calling task.

    Raises:
        RuntimeError: no event loop runs here.
    """
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_task():
            return _running_trio()
    import asyncio

    loop = asyncio.get_running_loop()
    found = _asyncio_loops.get(loop)
    if found is None:
        found = _asyncio_loops[loop] = AsyncioLoop(loop)
    return found


def _running_trio() -> Loop:
    import trio

    global _trio_loop
    if _trio_loop is None:
        _trio_loop = trio.lowlevel.RunVar("asyncinfer_loop")
    try:
        found: Loop = _trio_loop.get()
    except LookupError:
        found = TrioLoop(trio.lowlevel.current_trio_token())
        _trio_loop.set(found)
    return found
