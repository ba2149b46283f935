"""trio."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import trio

from . import CLOSE_GRACE, Guard, Loop, LoopClosed, Timer, Waiter


class TrioWaiter:
    """A parked task that any thread may reschedule, as often as it likes."""

    __slots__ = ("_task", "_thread", "_token", "_woken")

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        self._token = token
        self._thread = threading.get_ident()
        self._task: trio.lowlevel.Task | None = None
        self._woken = False

    async def wait(self) -> None:
        if self._woken:
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()

        def give_up(_: object) -> trio.lowlevel.Abort:
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
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)


class TrioGuard:
    """One cancel scope around each await; trio keeps its deadlines in a heap of its own."""

    __slots__ = ("_scope",)

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None

    def enter(self, when: float | None) -> None:
        if when is not None:
            self._scope = trio.CancelScope(deadline=when)
            self._scope.__enter__()

    def leave(self) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.__exit__(None, None, None)

    def expired(self, error: BaseException) -> bool:
        scope, self._scope = self._scope, None
        return scope is not None and bool(scope.__exit__(type(error), error, error.__traceback__))

    def close(self) -> None:
        """Nothing is armed between two awaits."""


class TrioTimer:
    """A pending call."""

    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def cancel(self) -> None:
        self._scope.cancel()


class TrioLoop(Loop):
    """See `Loop`."""

    name = "trio"

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        super().__init__()
        self._token = token
        self._running = 0

    @property
    def alive(self) -> bool:
        return trio.lowlevel.in_trio_run()

    def time(self) -> float:
        return trio.current_time()

    def soon(self, fn: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(fn, *args)
        except (RuntimeError, OSError) as error:  # RunFinishedError, or EBADF if the run crashed
            raise LoopClosed(str(error)) from error

    def later(self, delay: float, fn: Callable[[], object]) -> Timer:
        scope = trio.CancelScope()

        async def ring() -> None:
            with scope:
                await trio.sleep(delay)
                fn()

        self.spawn(ring)
        return TrioTimer(scope)

    def repeat(self, pause: float, fn: Callable[[], bool]) -> None:
        async def ring() -> None:
            await trio.sleep(pause)
            while fn():
                await trio.sleep(pause)

        self.spawn(ring)

    def spawn(self, async_fn: Callable[..., Awaitable[None]], *args: object) -> None:
        async def run() -> None:
            try:
                await async_fn(*args)
            finally:
                self._running -= 1

        try:
            trio.lowlevel.spawn_system_task(run, context=copy_context())
        except RuntimeError as error:
            raise LoopClosed(str(error)) from error
        self._running += 1

    def waiter(self) -> Waiter:
        return TrioWaiter(self._token)

    def guard(self, shortest: float | None = None) -> Guard:  # noqa: ARG002 -- there is no timer to save here
        return TrioGuard()

    async def drain(self) -> None:
        # The end of a run happens inside a cancelled scope.
        with trio.move_on_after(CLOSE_GRACE, shield=True):
            while self._running:
                await trio.sleep(0.001)


_current: trio.lowlevel.RunVar[Any] = trio.lowlevel.RunVar("asyncinfer_loop")


def current() -> Loop | None:
    """The `Loop` of the running trio task, or None outside trio."""
    if not trio.lowlevel.in_trio_task():
        return None
    try:
        found: Loop = _current.get()
    except LookupError:
        found = TrioLoop(trio.lowlevel.current_trio_token())
        _current.set(found)
    return found
