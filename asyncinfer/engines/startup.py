"""Opening an engine once, for many tasks on any loops."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..loops import Waiter


class Once:
    """Runs ``start`` for whoever comes first; the others wait. A failure reaches all who waited; the next one to come
    tries again."""

    __slots__ = ("_error", "_lock", "_starting", "_waiters", "ready")

    def __init__(self) -> None:
        self.ready = False
        self._lock = threading.Lock()
        self._starting = False
        self._waiters: list[Waiter] = []
        self._error: BaseException | None = None

    async def run(self, start: Callable[[], Awaitable[None]]) -> None:
        """Return when started. Raises what ``start`` raised."""
        from ..loops import running

        while not self.ready:
            with self._lock:
                mine = not self._starting
                if mine:
                    self._starting = True
                    self._error = None
                else:
                    waiter = running().waiter()
                    self._waiters.append(waiter)
            if not mine:
                await waiter.wait()
                if isinstance(self._error, Exception):
                    raise self._error
                continue
            error: BaseException | None = None
            try:
                await start()
                self.ready = True
            except BaseException as raised:
                error = raised
                raise
            finally:
                with self._lock:
                    self._starting = False
                    self._error = error
                    waiters, self._waiters = self._waiters, []
                for waiting in waiters:
                    waiting.wake()

    def reset(self) -> bool:
        """Forget that it was started; returns whether it was."""
        with self._lock:
            was, self.ready = self.ready, False
        return was
