"""Timers of a limiter: one for each event loop that has waiters, for the moment at which time alone opens a gate.

Usually that is one timer. With several loops each minds its own waiters, so a loop that ends, or hangs, takes nobody
with it. A bell is set anew only to an earlier time; one that rings too early finds that out and is set again.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..loops import Loop, Timer

_TOLERANCE = 1e-4
"""Seconds by which a bell may ring too late."""


class Bell:
    """The timer of one event loop.

    Attributes:
        due: when it rings, on the limiter's clock; `inf` if it is not set.
        waiters: calls that wait on this loop.
    """

    __slots__ = ("due", "handle", "loop", "thread", "waiters")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.due = inf
        self.waiters = 0
        self.handle: Timer | None = None  # touched on the loop's own thread only

    def on_its_loop(self, fn: Callable[[], object]) -> None:
        """Call ``fn`` there: at once if this is its thread. Raises RuntimeError if the loop has ended."""
        if threading.get_ident() == self.thread:
            fn()
        else:
            self.loop.soon(fn)


class Bells:
    """The bells of one limiter. `of`, `too_late` and `forget` are called under its lock, `set` outside of it.

    Args:
        ring: a bound method, called on the loop whose bell rings; its object is not kept alive.
        clock: the limiter's clock.
    """

    def __init__(self, ring: Callable[[], None], clock: Callable[[], float]) -> None:
        self._ring = weakref.WeakMethod(ring)
        self._clock = clock
        self._bells: dict[Loop, Bell] = {}

    def of(self, loop: Loop) -> Bell:
        """The bell of ``loop``, the running one."""
        bell = self._bells.get(loop)
        if bell is None:
            for other in [other for other in self._bells.values() if not other.waiters and not other.loop.alive]:
                self.forget(other)
            bell = self._bells[loop] = Bell(loop)
        return bell

    def forget(self, bell: Bell) -> None:
        """The loop of ``bell`` has ended."""
        self._bells.pop(bell.loop, None)

    def too_late(self, wake: float) -> list[Bell]:
        """The bells that must be `set`, so that each loop with waiters hears one at ``wake``."""
        late = [bell for bell in self._bells.values() if bell.waiters and wake < bell.due - _TOLERANCE]
        for bell in late:
            bell.due = wake
        return late

    def set(self, bell: Bell) -> None:
        """Let ``bell`` ring when it is due. Raises `LoopClosed`."""
        bell.on_its_loop(partial(_arm, bell, self._ring, self._clock))


def _arm(bell: Bell, ring: weakref.WeakMethod[Callable[[], None]], clock: Callable[[], float]) -> None:
    """On the bell's own loop."""
    if bell.handle is not None:
        bell.handle.cancel()
        bell.handle = None
    if bell.due < inf:
        bell.handle = bell.loop.later(max(0.0, bell.due - clock()), partial(_rung, bell, ring))


def _rung(bell: Bell, ring: weakref.WeakMethod[Callable[[], None]]) -> None:
    bell.handle = None
    bell.due = inf
    if (method := ring()) is not None:
        method()
