"""A virtual clock that drives the policy the way a perfect event loop would."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from math import inf

from asyncinfer.limits import Cost, Limits
from asyncinfer.scheduling import Call, Core


class Half(random.Random):
    """No chance: every jitter is in the middle."""

    def uniform(self, a, b):
        return (a + b) / 2


class World:
    """A core, a clock and things that happen later. ``sent`` is the list of (time, call)."""

    def __init__(self, limits: Limits | None = None, *, on_sent: Callable[[Call], None] | None = None) -> None:
        self.now = 0.0
        self.core = Core(limits or Limits(), Half(), 0.0)
        self.sent: list[tuple[float, Call]] = []
        self.failed: list[Call] = []
        self._events: list = []
        self._stamp = 0
        self._on_sent = on_sent

    def call(self, tokens: int = 10, output: int | None = 10, *, tenant: str = "", weight: float = 1.0) -> Call:
        call = Call(Cost(tokens, 0, output), tenant=tenant, weight=weight)
        self.offer(call)
        return call

    def offer(self, call: Call) -> None:
        if self.core.try_now(call, self.now):
            self._grant(call)
        else:
            self.core.offer(call, self.now)
            self.dispatch()

    def dispatch(self) -> None:
        for call in self.core.dispatch(self.now):
            if call.error is None:
                self._grant(call)
            else:
                self.failed.append(call)

    def _grant(self, call: Call) -> None:
        self.sent.append((self.now, call))
        if self._on_sent is not None:
            self._on_sent(call)

    def after(self, seconds: float, fn: Callable[[], object]) -> None:
        self._stamp += 1
        heapq.heappush(self._events, (self.now + seconds, self._stamp, fn))

    def accept(self, call: Call, rate=None) -> None:
        self.core.accepted(call, rate or {}, self.now)
        self.dispatch()

    def settle(self, call: Call, input_tokens: int | None = None, output: int | None = None) -> None:
        self.core.settle(call, input_tokens, output, 0, self.now)
        self.dispatch()

    def refuse(self, call: Call, kind, retry_after=None, rate=None) -> bool:
        again = self.core.refuse(call, kind, retry_after, rate, self.now)
        self.dispatch()
        return again

    def run(self, until: float) -> None:
        """Let time pass: events, and the wake-ups that the core asks for."""
        for _ in range(1_000_000):
            due = self._events[0][0] if self._events else inf
            wake = self.core.next_wakeup if self.core.waiting else inf
            if min(due, wake) > until:
                self.now = until
                return
            if due <= wake:
                self.now, _, fn = heapq.heappop(self._events)
                fn()
            else:
                assert wake > self.now, "a wake-up in the past: the core would spin"
                self.now = wake
            self.dispatch()
        raise AssertionError("the core asks to be woken without end")

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.sent]


def most_in(times: list[float], seconds: float) -> int:
    """The most that fall in any half-open span of ``seconds``."""
    most = first = 0
    for last, when in enumerate(times):
        while times[first] <= when - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
