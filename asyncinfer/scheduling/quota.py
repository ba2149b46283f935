"""All buckets of one key: those that the user set, and those that the provider's headers show.

Pure policy: ``now`` is an argument.

* **Set by the user** (or a provider's row): smooth, one second deep (one request at least, so that the first goes at
  once), because many providers enforce a minute's limit by the second; and a `Ledger`, so that no 60 seconds ever hold
  more than the limit. Once a header confirms that the provider keeps such a bucket, it may be a minute deep.
* **Seen in headers**: as large as the header says. What remains, by the header, less what we sent that it cannot have
  counted yet, is the truth.

What one request needs is a tuple in the order of `RESOURCES`.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import TYPE_CHECKING, Literal, NamedTuple

from .bucket import Bucket, Ledger

if TYPE_CHECKING:
    from ..limits import Budget, Cost, Limits, RateHeaders, Resource

RESOURCES: tuple[Resource, ...] = ("requests", "tokens", "input_tokens", "output_tokens")
TOKENS, INPUT, OUTPUT = 1, 2, 3

LONG_WINDOW = 3600.0
"""Seconds; a quota over a longer time than this is not waited for, see `Quota.exhausted`."""
LONGEST_WAIT = 60.0
ALPHA = 0.05
"""Weight of a new answer's length in the running mean."""
FIRST_GUESS = 512.0
"""Output tokens expected of an answer of unknown length before any has ended."""

Need = tuple[int, int, int, int]


class BucketState(NamedTuple):
    """One bucket, for humans.

    Attributes:
        resource: what it counts.
        source: ``"set"`` by the user or ``"seen"`` in headers.
        limit: amount per ``window`` seconds.
        available: what can be taken now; below zero it is debt.
    """

    resource: Resource
    source: Literal["set", "seen"]
    limit: float
    window: float
    available: float


class Hold:
    """What one attempt has taken, until it is settled."""

    __slots__ = ("acked", "need", "taken")

    def __init__(self, need: Need, taken: float) -> None:
        self.need = need
        self.taken = taken
        self.acked = False


class Quota:
    """Every bucket, what is charged for a request, and how that is trued up."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.charge = limits.charge
        self.mean_output = FIRST_GUESS
        self._answers = 0
        self._set: dict[int, tuple[Bucket, Ledger]] = {}
        self._seen: dict[int, Bucket] = {}
        self._unseen = [0, 0, 0, 0]  # sent, and not yet counted in any header
        self._running = 0  # output tokens expected of accepted answers that have not ended
        for index, limit in enumerate(_limits(limits)):
            if limit is not None:
                self._set[index] = Bucket(limit, depth=_second(limit), now=now), Ledger(limit)

    # -- charging ----------------------------------------------------------------------------------------------------

    def need(self, cost: Cost) -> Need:
        """What ``cost`` is expected to take from each bucket."""
        most = cost.max_output_tokens
        expected = int(self.mean_output)
        if most is not None and (self.charge != "actual" or most < expected or not self._answers):
            expected = most
        prompt, cached = cost.input_tokens, cost.cached_tokens
        return 1, prompt + expected, prompt - cached if cached < prompt else 0, expected

    def opens(self, need: Need, now: float) -> float:
        """When every bucket has what is needed; ``now`` if at once."""
        when = now
        for index, (bucket, ledger) in self._set.items():
            amount = need[index]
            if (opens := bucket.opens(amount, now)) > when:
                when = opens
            if (opens := ledger.opens(amount, now)) > when:
                when = opens
        for index, bucket in self._seen.items():
            if (opens := bucket.opens(need[index], now)) > when:
                when = opens
        return when

    def exhausted(self, need: Need, now: float) -> tuple[Resource, float] | None:
        """A daily quota that will not allow the request within a minute, and the seconds until it will.

        Nobody should hang for hours in a queue without being told.
        """
        for index, bucket in self._seen.items():
            if bucket.window > LONG_WINDOW:
                wait = bucket.opens(need[index], now) - now
                if wait > LONGEST_WAIT:
                    return RESOURCES[index], wait
        return None

    def take(self, need: Need, now: float) -> Hold:
        """Charge a request that is sent now."""
        for index, (bucket, ledger) in self._set.items():
            bucket.level -= need[index]
            ledger.add(need[index], now)
        for index, bucket in self._seen.items():
            bucket.level -= need[index]
        unseen = self._unseen  # spelled out: this is on the path of every request
        unseen[0] += 1
        unseen[TOKENS] += need[TOKENS]
        unseen[INPUT] += need[INPUT]
        unseen[OUTPUT] += need[OUTPUT]
        return Hold(need, now)

    def ack(self, hold: Hold) -> None:
        """The provider has counted the request: its next header includes it."""
        if not hold.acked:
            hold.acked = True
            self._counted(hold.need)
            self._running += hold.need[OUTPUT]

    def settle(self, hold: Hold, now: float, input_tokens: int | None, output_tokens: int | None, cached: int) -> None:
        """True up an accepted request with what it really took; None where that is unknown."""
        self.ack(hold)
        expected = hold.need[OUTPUT]
        self._running -= expected
        output = expected if output_tokens is None else output_tokens
        if output_tokens is not None:
            self._learn(output)
        if not self._set and not self._seen:
            return
        spare_out = 0 if self.charge == "reserve" else expected - output
        prompt = hold.need[TOKENS] - expected
        spare_in = 0 if input_tokens is None else prompt - input_tokens
        counted = hold.need[INPUT] if input_tokens is None else max(0, input_tokens - cached)
        spare = (0, spare_in + spare_out, hold.need[INPUT] - counted, spare_out)
        for index in self._set:
            if spare[index]:
                self._correct(index, spare[index], hold.taken, now)
        if spare_out:
            for index in (TOKENS, OUTPUT):
                if index in self._seen:
                    self._seen[index].give(spare_out)

    def refund(self, hold: Hold, *, request: bool) -> None:
        """Give back the tokens of a request that was not served, and the request itself if it was never sent."""
        if hold.acked:
            self._running -= hold.need[OUTPUT]
        else:
            self._counted(hold.need)
        for index in range(0 if request else 1, 4):
            if index in self._set:
                bucket, ledger = self._set[index]
                bucket.give(hold.need[index])
                ledger.give_back(hold.need[index], hold.taken)
        for index, bucket in self._seen.items():
            # Once acknowledged, the header's own count has replaced ours; only output yet to come was still held.
            if not hold.acked:
                bucket.give(hold.need[index] if index or request else 0)
            elif self.charge == "actual" and index in (TOKENS, OUTPUT):
                bucket.give(hold.need[OUTPUT])

    def _counted(self, need: Need) -> None:
        unseen = self._unseen
        unseen[0] -= 1
        unseen[TOKENS] -= need[TOKENS]
        unseen[INPUT] -= need[INPUT]
        unseen[OUTPUT] -= need[OUTPUT]

    def _correct(self, index: int, spare: int, taken: float, now: float) -> None:
        bucket, ledger = self._set[index]
        bucket.give(spare)
        if spare >= 0:
            ledger.give_back(spare, taken)
        else:
            ledger.add(-spare, now)

    def _learn(self, output: int) -> None:
        self._answers += 1
        # A plain mean of the first twenty answers, a moving one after.
        self.mean_output += (output - self.mean_output) * max(ALPHA, 1 / self._answers)

    # -- headers -----------------------------------------------------------------------------------------------------

    def sync(self, rate: RateHeaders, now: float) -> None:
        """Take over what a response's headers say; limits of zero and negative values are garbage, and are ignored."""
        for index, resource in enumerate(RESOURCES):
            budget = rate.get(resource)
            if budget is not None:
                self._sync(index, budget, now)

    def explains(self, rate: RateHeaders | None, need: Need, now: float) -> bool:
        """Whether the headers of a refusal show a bucket that was too empty: then the bucket is to blame, and not the
        number of requests in flight."""
        if not rate:
            return False
        return any(
            RESOURCES[index] in rate and bucket.opens(need[index], now) > now for index, bucket in self._seen.items()
        )

    def _sync(self, index: int, budget: Budget, now: float) -> None:
        limit, left, bucket = budget.limit, budget.remaining, self._seen.get(index)
        if limit is not None and not (isfinite(limit) and limit > 0):
            return
        if limit is None:
            if bucket is None:
                return
            limit = bucket.limit
        window = budget.window
        known = left is not None and left >= 0
        depth = limit if known or (bucket and bucket.limit == limit) else _second(limit, window)
        if bucket is None:
            bucket = self._seen[index] = Bucket(limit, depth=depth, window=window, now=now)
        elif bucket.limit != limit or bucket.window != window:
            bucket.resize(limit, depth=depth, window=window)
        bucket.refill(now)
        if not known or left is None:
            return
        bucket.depth = limit
        held = self._unseen[index]
        if self.charge == "actual" and index in (TOKENS, OUTPUT):
            held += self._running
        bucket.level = min(limit, left - held)
        if window > LONG_WINDOW:
            bucket.full_at = inf if budget.reset is None else now + budget.reset
        elif index in self._set:
            own, _ = self._set[index]
            own.refill(now)
            own.depth = own.limit

    # -- setting up and looking at -------------------------------------------------------------------------------------

    def tighten(self, limits: Limits, now: float) -> None:
        """Take over limits that are stricter than those known."""
        order = ("actual", "settle", "reserve")
        self.charge = max(self.charge, limits.charge, key=order.index)
        for index, limit in enumerate(_limits(limits)):
            if limit is None:
                continue
            if index not in self._set:
                self._set[index] = Bucket(limit, depth=_second(limit), now=now), Ledger(limit)
            elif limit < self._set[index][0].limit:
                bucket, ledger = self._set[index]
                bucket.refill(now)
                bucket.resize(limit, depth=_second(limit), window=60.0)
                ledger.limit = limit

    def state(self, now: float) -> tuple[BucketState, ...]:
        """Every bucket as it is now."""
        found = []
        for index, (bucket, ledger) in self._set.items():
            bucket.refill(now)
            ledger.opens(0, now)
            available = min(bucket.level, ledger.limit - ledger.total)
            found.append(BucketState(RESOURCES[index], "set", bucket.limit, bucket.window, available))
        for index, bucket in self._seen.items():
            bucket.refill(now)
            found.append(BucketState(RESOURCES[index], "seen", bucket.limit, bucket.window, bucket.level))
        return tuple(found)


def _limits(limits: Limits) -> tuple[float | None, ...]:
    return (
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.input_tokens_per_minute,
        limits.output_tokens_per_minute,
    )


def _second(limit: float, window: float = 60.0) -> float:
    """The depth of a bucket of unknown temper: one second's worth, one request at least."""
    return max(1.0, limit / window)
