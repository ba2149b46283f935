"""How many requests may be in flight: slow start, one cut per loss episode, scale-free cubic growth.

Pure policy: ``now`` is an argument, in seconds of any monotonic clock. The curve is CUBIC (Ha, Rhee and Xu 2008; RFC
9438) with time measured in fixed spans instead of a cube root of the window, so that recovery takes equally long at 4
in flight and at 400. The constants were tuned on simulated providers: see ``benchmarks/scheduler.py``.
"""

from __future__ import annotations

from math import cbrt, inf

from .peak import RecentPeak

START = 16
"""Requests in flight that nobody has asked us to stay below."""
CAP = 512
"""Most requests in flight where the user sets no maximum."""
KEEP_THROTTLED = 0.9
"""What a refusal for rate leaves of the window."""
KEEP_OVERLOADED = (0.7, 0.98)
"""Bounds on what a refusal for load leaves of the window; between them, the share that was being served."""
RECOVERY = 6.0
"""Seconds from a cut until the window is back at its old size."""
GROWTH = 0.3
"""Growth past the old size: this share of it, times the cube of the recovery spans since."""
FULL = 0.8
"""The window grows only while this share of it has been used lately: unused size says nothing about the provider."""


class Window:
    """The concurrency window.

    Args:
        cap: most requests in flight, or None for `CAP`.
        start: where it begins, or None for `START`.
        least: what refusals never shrink it below.
        adaptive: False fixes it at ``cap``, or `START` if that is None.

    Attributes:
        size: the window, a fraction included; `limit` is its whole part.
        in_flight: requests that hold a slot.
        slow_start: no refusal has been seen: the window doubles each round trip.
        episodes: loss episodes since a request sent after the last cut was accepted.
    """

    __slots__ = (
        "_base",
        "_cut_at",
        "_cut_seq",
        "_keep",
        "_least",
        "_peak",
        "adaptive",
        "cap",
        "episodes",
        "in_flight",
        "seq",
        "size",
        "slow_start",
    )

    def __init__(
        self, *, cap: int | None = None, start: int | None = None, least: int | None = None, adaptive: bool = True
    ) -> None:
        self.adaptive = adaptive
        self.cap = cap if cap is not None else max(CAP, least or 0) if adaptive else START
        self._least = float(least or 1)
        begin = max(start if start is not None else START, least or 0)
        self.size = float(min(begin, self.cap) if adaptive else self.cap)
        self.in_flight = 0
        self.slow_start = True
        self.episodes = 0
        self.seq = 0
        self._cut_seq = 0
        self._base = self.size
        self._keep = KEEP_THROTTLED
        self._cut_at = 0.0
        self._peak = RecentPeak(5.0)

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return int(self.size + 1e-9)  # 0.7 of 90 is 62.999...

    def enter(self, now: float) -> int:
        """One more in flight. Returns its sequence number, by which its outcome is attributed to an episode."""
        self.in_flight += 1
        self._peak.note(self.in_flight, now)
        self.seq += 1
        return self.seq

    def leave(self) -> None:
        """One less in flight."""
        self.in_flight -= 1

    def accepted(self, seq: int) -> None:
        """The provider took request ``seq``."""
        if self.adaptive and self.slow_start and self.in_flight >= FULL * self.limit and self.size < self.cap:
            self.size = min(self.size + 1, float(self.cap))
        if seq > self._cut_seq:
            self.episodes = 0

    def new_episode(self, seq: int) -> bool:
        """Whether the refusal of request ``seq`` opens a loss episode.

        Everything sent before the last cut belongs to the episode of that cut: a burst of refusals cuts once.
        """
        if seq <= self._cut_seq:
            return False
        self._cut_seq = self.seq
        self.episodes += 1
        return True

    def cut(self, now: float, *, served: int | None = None) -> None:
        """Shrink. ``served`` is the number of requests that the provider is working on, where the refusal is about its
        load; None where it is about our rate."""
        if not self.adaptive:
            return
        base = max(1.0, min(self.size, self.in_flight))
        keep = KEEP_THROTTLED
        if served is not None:
            keep = min(max(served / base, KEEP_OVERLOADED[0]), KEEP_OVERLOADED[1])
        self._base, self._keep, self._cut_at = base, keep, now
        self.size = min(max(self._least, keep * base), float(self.cap))
        self.slow_start = False

    def lower_cap(self, cap: int) -> None:
        """Take a stricter maximum."""
        self.cap = min(self.cap, cap)
        self.size = min(self.size, float(self.cap))

    def grow(self, now: float) -> None:
        """Follow the curve up to ``now``."""
        if self.slow_start:
            return
        size = self.size
        target = self._curve(now)
        if target <= size:
            return
        peak = self._peak.value(now)
        peak = max(peak, self.in_flight)
        if peak >= FULL * self.limit:  # of its whole part, or a window of 1.8 would never grow
            self.size = min(target, max(size + 1, 1.5 * peak), float(self.cap))

    def next_growth(self, now: float) -> float:
        """When the window will have room for one more, if it is full now; `inf` if time alone does not bring that."""
        target = self.limit + 1
        if self.slow_start or target > self.cap or self.in_flight < FULL * self.limit:
            return inf
        share = target / self._base
        spans = 1 - cbrt((1 - share) / (1 - self._keep)) if share <= 1 else 1 + cbrt((share - 1) / GROWTH)
        # One microsecond more, so that rounding never wakes anybody just too early.
        return max(now, self._cut_at + RECOVERY * spans) + 1e-6

    def _curve(self, now: float) -> float:
        spans = (now - self._cut_at) / RECOVERY
        if spans <= 1:
            return float(self._base * (1 - (1 - self._keep) * (1 - spans) ** 3))
        return float(self._base * (1 + GROWTH * (spans - 1) ** 3))
