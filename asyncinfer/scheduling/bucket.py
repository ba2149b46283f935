"""What may be taken when: a continuous bucket, and an exact count over sliding time.

Pure policy: ``now`` is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from math import inf

SLACK = 1e-6
"""Rounding must not keep anybody waiting for a billionth of a token."""


class Bucket:
    """A token bucket: ``depth`` at most, filled at ``limit`` per ``window`` seconds.

    A take larger than the depth runs on a full bucket and leaves debt, so that no request is too large to ever be sent.

    Attributes:
        limit: amount granted per ``window`` seconds.
        window: in seconds; 60, or 86400 for a daily quota.
        depth: most that can be saved up.
        level: what is there; below zero it is debt.
        full_at: a moment at which the provider fills the bucket in one go (daily quotas), or `inf`.
    """

    __slots__ = ("_at", "depth", "full_at", "level", "limit", "rate", "window")

    def __init__(self, limit: float, *, depth: float, window: float = 60.0, now: float) -> None:
        self.limit = limit
        self.window = window
        self.rate = limit / window
        self.depth = depth
        self.level = depth
        self.full_at = inf
        self._at = now

    def resize(self, limit: float, *, depth: float, window: float) -> None:
        """Take another limit; what is there stays, as far as it fits."""
        self.limit, self.window, self.depth, self.rate = limit, window, depth, limit / window
        self.level = min(self.level, depth)

    def refill(self, now: float) -> None:
        """Add what has flowed in since the last call."""
        passed = now - self._at
        if passed > 0:
            self._at = now
            self.level = min(self.level + passed * self.rate, self.depth)
            if now >= self.full_at:
                self.level, self.full_at = self.depth, inf

    def opens(self, need: float, now: float) -> float:
        """When ``need`` can be taken; ``now`` or earlier if at once."""
        passed = now - self._at
        level = self.level + passed * self.rate
        if level >= need and passed >= 0 and level <= self.depth and now < self.full_at:  # the common case, quickly
            self._at = now
            self.level = level
            return now
        self.refill(now)
        missing = min(need, self.depth) - self.level
        if missing <= SLACK:
            return now
        return min(now + missing / self.rate, self.full_at)

    def give(self, amount: float) -> None:
        """Put back (or, below zero, take) ``amount``."""
        self.level = min(self.level + amount, self.depth)


class Ledger:
    """Everything taken in the last minute, so that no 60 seconds, wherever they begin, hold more than the limit.

    A bucket alone lets its depth pass on top of its rate. Amounts are kept in quarter-second bins that count until the
    whole bin and a margin for the network's jitter are a minute old: the price is under one percent of the limit.
    """

    __slots__ = ("_amounts", "_bins", "_next_end", "limit", "total")
    WIDTH = 0.25
    KEPT = 60.0 + 0.25

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.total = 0.0
        self._next_end = -inf  # when the oldest bin stops counting, or earlier
        self._bins: deque[int] = deque()
        self._amounts: dict[int, float] = {}

    def add(self, amount: float, now: float) -> None:
        """Count ``amount`` at ``now``."""
        place = int(now // self.WIDTH)
        if place in self._amounts:
            self._amounts[place] += amount
        else:
            self._amounts[place] = amount
            self._bins.append(place)
        self.total += amount

    def give_back(self, amount: float, taken: float) -> None:
        """Strike ``amount`` of what was counted at ``taken``; nothing, if that is more than a minute ago."""
        place = int(taken // self.WIDTH)
        if place in self._amounts:
            self._amounts[place] -= amount
            self.total -= amount

    def opens(self, need: float, now: float) -> float:
        """When ``need`` (or the whole limit, if it is larger) fits."""
        if now < self._next_end and self.total + need <= self.limit:  # the common case, quickly
            return now
        bins, amounts = self._bins, self._amounts
        while bins and self._end(bins[0]) <= now:
            self.total -= amounts.pop(bins.popleft())
        if bins:
            self._next_end = self._end(bins[0])
        else:
            self._next_end = -inf
            self.total = 0.0  # rounding does not pile up
        excess = self.total + min(need, self.limit) - self.limit
        if excess <= SLACK:
            return now
        for place in bins:
            excess -= amounts[place]
            if excess <= SLACK:
                return self._end(place)
        return self._end(bins[-1]) if bins else now

    def _end(self, place: int) -> float:
        return (place + 1) * self.WIDTH + self.KEPT
