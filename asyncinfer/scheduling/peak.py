"""Highest value of the recent past, in constant memory."""

from __future__ import annotations


class RecentPeak:
    """The maximum of what was noted in the last ``span`` to ``2 * span`` seconds.

    Two halves take turns: exact enough for control, and cheaper than a sliding maximum.
    """

    __slots__ = ("_before", "_ends", "_now", "_span")

    def __init__(self, span: float) -> None:
        self._span = span
        self._ends = float("-inf")
        self._now = 0.0
        self._before = 0.0

    def note(self, value: float, now: float) -> None:
        """Take ``value`` as seen at ``now``."""
        if now >= self._ends:
            self._turn(now)
        self._now = max(self._now, value)

    def value(self, now: float) -> float:
        """The peak as of ``now``; 0 if nothing was noted lately."""
        if now >= self._ends:
            self._turn(now)
        return max(self._now, self._before)

    def _turn(self, now: float) -> None:
        self._before = self._now if now < self._ends + self._span else 0.0
        self._now = 0.0
        self._ends = now + self._span
