"""Whether a refused request is sent again, and after how long.

Pure policy: ``now`` is an argument, chance is injected. Refusals for rate or load wait at the shared gate
(`pace.Gate`); faults of a server or the network wait each for itself, and draw on a budget that keeps retries from
multiplying an outage (the idea of Finagle's ``RetryBudget``, which gives up where this one waits the longest).
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from ..errors import RetryKind

if TYPE_CHECKING:
    from random import Random

MAX_ATTEMPTS = 8
"""Attempts of one call where the user sets no ``max_retries``."""
LONGEST_WAIT = 60.0
"""Seconds of Retry-After that are waited out; beyond, the caller gets the error with the value at once."""
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 30.0
"""Seconds before the first retry after a fault (doubling), and at most; times a jitter of 0.5 to 1."""
LAST_STEP = 11
"""The step of `backoff` from which on it is as long as it gets."""


class RetryBudget:
    """Retries after faults: ten, and one for every five requests, over the last 30 to 60 seconds."""

    __slots__ = ("_ends", "_retries", "_sent")
    RESERVE = 10
    SHARE = 0.2
    SPAN = 30.0

    def __init__(self) -> None:
        self._ends = float("-inf")
        self._sent = [0, 0]
        self._retries = [0, 0]

    def sent(self, now: float) -> None:
        """A first attempt was sent."""
        if now >= self._ends:
            self._turn(now)
        self._sent[0] += 1

    def spend(self, now: float) -> bool:
        """Take one retry out of the budget; False if it is used up."""
        if now >= self._ends:
            self._turn(now)
        if sum(self._retries) + 1 > self.RESERVE + self.SHARE * sum(self._sent):
            return False
        self._retries[0] += 1
        return True

    def _turn(self, now: float) -> None:
        recent = now < self._ends + self.SPAN
        self._sent = [0, self._sent[0] if recent else 0]
        self._retries = [0, self._retries[0] if recent else 0]
        self._ends = now + self.SPAN


def asked_wait(retry_after: float | None) -> float | None:
    """Retry-After as a usable number of seconds: None if it is missing or not a number, never negative."""
    if retry_after is None or isnan(retry_after):
        return None
    return max(0.0, retry_after)


def may_retry(kind: RetryKind, attempts: int, max_retries: int | None, retry_after: float | None) -> bool:
    """Whether the call has attempts left and the provider does not ask for too long a wait.

    Args:
        kind: what the failure says.
        attempts: requests sent so far.
        max_retries: further attempts after the first, or None for `MAX_ATTEMPTS` altogether.
        retry_after: what `asked_wait` gave.
    """
    if kind is RetryKind.NEVER:
        return False
    most = MAX_ATTEMPTS if max_retries is None else max_retries + 1
    return attempts < most and not (retry_after is not None and retry_after > LONGEST_WAIT)


def backoff(faults: int, rng: Random, first: float | None = None, most: float | None = None) -> float:
    """Seconds to wait after the ``faults``-th fault of one call (from 1); ``first`` and ``most`` where the user set
    them."""
    begin = BACKOFF_FIRST if first is None else first
    cap = max(BACKOFF_MOST, begin) if most is None else most
    return float(min(cap, begin * 2.0 ** min(faults - 1, LAST_STEP - 1)) * rng.uniform(0.5, 1.0))
