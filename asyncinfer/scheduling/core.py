"""The scheduler without a clock and without waiting: calls are offered, and granted when every gate is open.

All gates must be open to send: the shared gate, the window (and the politeness of its workers), the pace, the buckets.
The head of the fair queue waits for them, and nobody overtakes it: so a large request is not starved by small ones.
Whoever drives this core calls `dispatch` after every event and at `next_wakeup`, and never polls. `limiter` drives it
with the real clock, `benchmarks/scheduler.py` with a simulated one.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from ..errors import QuotaExceededError, RetryKind
from . import retry
from .call import HELD, IDLE, WAITING, Call, LimiterState
from .fairness import FairQueue
from .pace import Gate, Pacer, Politeness
from .quota import Hold, Quota
from .window import START, Window

if TYPE_CHECKING:
    from random import Random

    from ..limits import Limits, RateHeaders


class Core:
    """The policy as a whole. Not thread-safe; every method takes ``now``, which must never go backwards."""

    def __init__(self, limits: Limits, rng: Random, now: float) -> None:
        self.window = Window(
            cap=limits.max_concurrency,
            start=limits.start_concurrency,
            least=limits.min_concurrency,
            adaptive=limits.adaptive,
        )
        self.quota = Quota(limits, now)
        self.pacer = Pacer()
        self.gate = Gate()
        self.politeness = Politeness(limits.min_interval)
        self.budget = retry.RetryBudget()
        self.queue: FairQueue[Call] = FairQueue()
        self.next_wakeup = inf
        self.waiting = 0
        self.sent = self.accepts = self.throttled = self.overloaded = self.faults = 0
        self._rng = rng
        self._max_retries = limits.max_retries
        self._backoff_first = limits.backoff_first
        self._backoff_most = limits.backoff_most
        self._sleeping: list[tuple[float, int, Call]] = []
        self._asleep = 0
        self._unanswered = 0  # requests in flight whose head has not arrived
        self._numbers = 0

    # -- getting in --------------------------------------------------------------------------------------------------

    def try_now(self, call: Call, now: float) -> bool:
        """Grant ``call`` if nobody waits and every gate is open: the path of a key that is not at its limit."""
        self._number(call, now)
        if self.queue.size or call.not_before > now or self._shut(now) > now or self._lacks(call, now) > now:
            return False
        self.queue.pass_by(call)
        self._start(call, now)
        return True

    def offer(self, call: Call, now: float) -> None:
        """``call`` waits from now on; `dispatch` will grant it."""
        self._number(call, now)
        call.state = WAITING
        self.waiting += 1
        self._numbers += 1
        if call.not_before > now:
            call.turn, call.asleep = self._numbers, True
            heappush(self._sleeping, (call.not_before, call.turn, call))
            self._asleep += 1
        else:
            self.queue.push(call, self._numbers)

    def dispatch(self, now: float) -> list[Call]:
        """Grant what can be granted.

        Returns the calls that were granted (`HELD`), and those that never can be (`IDLE`, with an ``error``).
        Afterwards `next_wakeup` says when time alone will open a gate; `inf` if only an event can.
        """
        out: list[Call] = []
        self._rouse(now)
        wake = inf
        while self.queue.size:
            if (wake := self._shut(now)) > now:
                break
            call = self.queue.head()
            if (wake := self._lacks(call, now)) > now:
                if (spent := self.quota.exhausted(call.need, now)) is None:
                    break
                self.queue.drop(call)
                call.state, call.error = IDLE, _quota_error(*spent)
            else:
                self.queue.pop(call)
                self._start(call, now)
            out.append(call)
            self.waiting -= 1
            wake = inf
        if self._sleeping:
            wake = min(wake, self._sleeping[0][0])
        self.next_wakeup = wake
        return out

    def withdraw(self, call: Call, now: float) -> None:
        """``call`` will not send: it stops waiting, or gives back the slot that it was just granted."""
        if call.state is WAITING:
            if call.asleep:
                self._wake(call)
            else:
                self.queue.drop(call)
            call.state = IDLE
            self.waiting -= 1
        elif call.state is HELD:
            self._take_back(call, now, sent=False)
            call.attempts -= 1
            self.sent -= 1

    def calls(self) -> list[Call]:
        """Every call that waits, in no particular order."""
        return self.queue.calls() + [call for _, turn, call in self._sleeping if call.turn == turn]

    def _number(self, call: Call, now: float) -> None:
        if call.state is not IDLE:
            raise RuntimeError(f"acquire() on a ticket that is {call.state}: settle(), refund() or refuse() first")
        if not call.number:
            self._numbers += 1
            call.number = self._numbers
        call.since = now

    def _shut(self, now: float) -> float:
        """Until when nobody may start, as far as time alone decides; ``now`` or earlier if somebody may."""
        if self.gate.until > now:
            return self.gate.until
        window = self.window
        if not window.slow_start:
            window.grow(now)
        limit = window.limit
        cooling = self.politeness.cooling(now) if self.politeness.interval else 0
        if window.in_flight + cooling >= limit:
            free = self.politeness.next_free() if window.in_flight < limit else inf
            return min(free, window.next_growth(now))
        if not window.slow_start and self.pacer.next > now:
            return self.pacer.next
        return now

    def _lacks(self, call: Call, now: float) -> float:
        """When the buckets have what ``call`` needs; ``now`` if at once."""
        call.need = need = self.quota.need(call.cost)
        return self.quota.opens(need, now)

    def _start(self, call: Call, now: float) -> None:
        call.seq = self.window.enter(now)
        call.hold = self.quota.take(call.need, now)
        if not self.window.slow_start:
            self.pacer.started(now)
        if not call.attempts:
            self.budget.sent(now)
        call.attempts += 1
        call.queued += now - call.since
        call.state = HELD
        self._unanswered += 1
        self.sent += 1

    def _rouse(self, now: float) -> None:
        sleeping = self._sleeping
        while sleeping and (sleeping[0][0] <= now or sleeping[0][2].turn != sleeping[0][1]):
            _, turn, call = heappop(sleeping)
            if call.turn == turn:
                self._wake(call)
                self._numbers += 1
                self.queue.push(call, self._numbers)

    def _wake(self, call: Call) -> None:
        call.asleep, call.turn = False, 0
        self._asleep -= 1

    # -- what becomes of it ------------------------------------------------------------------------------------------

    def accepted(self, call: Call, rate: RateHeaders, now: float) -> None:
        """The head of the response arrived, and it is no refusal."""
        if call.hold is None:
            return
        if not call.hold.acked:
            self._accept(call, call.hold, now)
        if rate:
            self.quota.sync(rate, now)

    def settle(
        self, call: Call, input_tokens: int | None, output_tokens: int | None, cached_tokens: int, now: float
    ) -> None:
        """The attempt is over, and was served (if only in part). Does nothing if the call holds no slot."""
        hold = call.hold
        if hold is None:
            return
        if not hold.acked:
            self._accept(call, hold, now)
        self.quota.settle(hold, now, input_tokens, output_tokens, cached_tokens)
        prompt = call.cost.input_tokens if input_tokens is None else input_tokens
        output = hold.need[3] if output_tokens is None else output_tokens
        self.queue.correct(call, prompt + output)
        self._leave(call, hold, now)

    def refund(self, call: Call, sent: bool, now: float) -> None:
        """The attempt is over, and was not served."""
        if call.hold is not None:
            self._take_back(call, now, sent=sent)

    def refuse(
        self, call: Call, kind: RetryKind, retry_after: float | None, rate: RateHeaders | None, now: float
    ) -> bool:
        """The attempt failed before its first token. Returns whether the call may try again."""
        hold = call.hold
        if hold is None:
            return False
        self._take_back(call, now, sent=True)
        if rate:
            self.quota.sync(rate, now)
        wait = retry.asked_wait(retry_after)
        if kind is RetryKind.THROTTLED or kind is RetryKind.OVERLOADED:
            self._slow_down(call, hold, kind, wait, rate, now)
        elif kind is RetryKind.TRANSIENT:
            self.faults += 1
        max_retries = self._max_retries if call.max_retries is None else call.max_retries
        if not retry.may_retry(kind, call.attempts, max_retries, wait):
            return False
        if kind is RetryKind.TRANSIENT:
            call.faults += 1
            # In an outage retries thin out to the longest wait; giving up early would lose work that time would save.
            step = call.faults if self.budget.spend(now) else retry.LAST_STEP
            pause = retry.backoff(step, self._rng, self._backoff_first, self._backoff_most)
            call.not_before = now + max(pause, wait or 0.0)
        return True

    def _slow_down(
        self, call: Call, hold: Hold, kind: RetryKind, wait: float | None, rate: RateHeaders | None, now: float
    ) -> None:
        throttled = kind is RetryKind.THROTTLED
        if throttled:
            self.throttled += 1
        else:
            self.overloaded += 1
        # A wait too long to be waited out is for the caller to hear of; it must not hang everybody else.
        asked = wait if wait and wait <= retry.LONGEST_WAIT else None
        if asked is not None:
            self.gate.hold(asked, now)
        if not self.window.new_episode(call.seq):
            return
        if throttled and self.quota.explains(rate, hold.need, now):
            return
        self.window.cut(now, served=None if throttled else self.window.in_flight - self._unanswered)
        if asked is None:
            self.gate.back_off(self.window.episodes, now, self._rng)

    def _accept(self, call: Call, hold: Hold, now: float) -> None:
        self.quota.ack(hold)
        self._unanswered -= 1
        self.accepts += 1
        self.pacer.accepted(now)
        self.window.accepted(call.seq)

    def _take_back(self, call: Call, now: float, *, sent: bool) -> None:
        hold = call.hold
        assert hold is not None
        if not hold.acked:
            self._unanswered -= 1
        self.quota.refund(hold, request=not sent)
        self.queue.correct(call, 0.0)
        self._leave(call, hold, now, sent=sent)

    def _leave(self, call: Call, hold: Hold, now: float, *, sent: bool = True) -> None:
        self.window.leave()
        if sent and self.politeness.interval:
            self.politeness.left(hold.taken, now)
        call.hold = None
        call.state = IDLE

    # -- setting up and looking at -------------------------------------------------------------------------------------

    def tighten(self, limits: Limits, now: float) -> None:
        """Take over what is stricter in ``limits``."""
        self.quota.tighten(limits, now)
        if limits.max_concurrency is not None:
            self.window.lower_cap(limits.max_concurrency)
        if not limits.adaptive and self.window.adaptive:
            self.window.adaptive = False
            self.window.lower_cap(limits.max_concurrency or START)
        self.politeness.interval = max(self.politeness.interval, limits.min_interval)

    def state(self, name: str, now: float) -> LimiterState:
        """Everything that a human may want to know."""
        return LimiterState(
            name=name,
            window=self.window.size,
            in_flight=self.window.in_flight,
            waiting=self.waiting,
            backing_off=self._asleep,
            tenants=self.queue.tenants(),
            paused=max(0.0, self.gate.until - now),
            pace=None if self.window.slow_start else self.pacer.rate(now),
            mean_output_tokens=self.quota.mean_output,
            buckets=self.quota.state(now),
            sent=self.sent,
            accepted=self.accepts,
            throttled=self.throttled,
            overloaded=self.overloaded,
            faults=self.faults,
        )


def _quota_error(resource: str, wait: float) -> QuotaExceededError:
    what = resource.replace("_", " ")
    return QuotaExceededError(
        f"the daily quota of {what} is used up, by the provider's own count; the next request can go in {wait:.0f} s",
        retry_after=wait,
    )
