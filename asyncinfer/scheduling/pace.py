"""When the next request may start: the burst pacer, the shared gate, and the politeness of each worker.

Pure policy: ``now`` is an argument. The pacer follows what the provider has accepted lately (response heads, not
finished answers: their clock is ten to sixty times faster), so that a window just opened is not filled in one burst.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from .peak import RecentPeak

if TYPE_CHECKING:
    from random import Random

HEADROOM = 2.0
"""Starts per accepted request: room to find out that more is possible."""
FLOOR = 2.0
"""Starts per second that are always allowed."""
BEST_SHARE = 0.5
"""Never slower than this share of the best accept rate of the last minute."""
CREDIT = 0.25
"""Seconds of unused pace that may be caught up on."""
GATE_FIRST = 0.2
GATE_MOST = 15.0
"""Seconds that the gate stays shut after the first episode (doubling each time), and at most."""


class AcceptRate:
    """Accepted requests per second over the last four seconds, in quarter-second bins."""

    __slots__ = ("_bins", "_head", "_total")
    WIDTH = 0.25
    COUNT = 16

    def __init__(self) -> None:
        self._bins = [0] * self.COUNT
        self._head = 0
        self._total = 0

    def add(self, now: float) -> float:
        """One was accepted at ``now``. Returns the rate."""
        head = int(now / self.WIDTH)
        if head > self._head:
            self._advance(head)
        self._bins[self._head % self.COUNT] += 1
        self._total += 1
        return self._total / (self.WIDTH * self.COUNT)

    def value(self, now: float) -> float:
        """The rate as of ``now``."""
        head = int(now / self.WIDTH)
        if head > self._head:
            self._advance(head)
        return self._total / (self.WIDTH * self.COUNT)

    def _advance(self, head: int) -> None:
        if head - self._head >= self.COUNT:
            self._bins = [0] * self.COUNT
            self._total = 0
        else:
            for place in range(self._head + 1, head + 1):
                self._total -= self._bins[place % self.COUNT]
                self._bins[place % self.COUNT] = 0
        self._head = head


class Pacer:
    """Spaces the starts of requests once a refusal has shown that there is a limit."""

    __slots__ = ("_accepts", "_best", "next")

    def __init__(self) -> None:
        self._accepts = AcceptRate()
        self._best = RecentPeak(30.0)
        self.next = -inf

    def accepted(self, now: float) -> None:
        """The provider took a request."""
        self._best.note(self._accepts.add(now), now)

    def rate(self, now: float) -> float:
        """Starts per second that are allowed."""
        return max(FLOOR, HEADROOM * self._accepts.value(now), BEST_SHARE * self._best.value(now))

    def started(self, now: float) -> None:
        """A request starts: the next one may at `next`."""
        self.next = max(self.next, now - CREDIT) + 1 / self.rate(now)


class Gate:
    """One moment before which nobody sends: what a provider asks of one call, all calls of the key obey."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = -inf

    def hold(self, seconds: float, now: float) -> None:
        """Shut for at least ``seconds``."""
        self.until = max(self.until, now + seconds)

    def back_off(self, episode: int, now: float, rng: Random) -> None:
        """Shut for the backoff of the ``episode``-th loss in a row (from 1); jitter parts processes sharing a key."""
        self.hold(min(GATE_MOST, GATE_FIRST * 2.0 ** min(episode - 1, 10)) * rng.uniform(0.5, 1.0), now)


class Politeness:
    """Keeps the starts of one worker apart: a slot given back early stays occupied until its interval has passed.

    The first request of a worker never waits, and nothing is held after the last one.
    """

    __slots__ = ("_cooling", "interval")

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._cooling: list[float] = []

    def left(self, started: float, now: float) -> None:
        """The request that started at ``started`` gave its slot back."""
        if started + self.interval > now:
            heappush(self._cooling, started + self.interval)

    def cooling(self, now: float) -> int:
        """Slots that are free but must not start a request yet."""
        cooling = self._cooling
        while cooling and cooling[0] <= now:
            heappop(cooling)
        return len(cooling)

    def next_free(self) -> float:
        """When the next of them may; `inf` if none is cooling."""
        return self._cooling[0] if self._cooling else inf
