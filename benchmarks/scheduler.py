"""The scheduler beside simpler controllers, on twelve simulated providers, on a virtual clock.

    python benchmarks/scheduler.py [--seconds 600] [--seed 1] [--only S1,S7] [--micro]

It drives the very policy that `asyncinfer.scheduling.Limiter` runs (`Core`), under a saturating backlog, and prints for
each controller the **goodput** (finished tokens, as a share of what an oracle gets that sees the provider's state), the
**refusals** (429 and 529), and the 99th percentile of the **wait** for a slot when only 70 % of the oracle's rate is
asked for. Last comes the cost of one uncontended ``acquire`` + ``settle`` of the real `Limiter`, in CPU microseconds.

The providers charge nothing for a refused call (but S10), and their Retry-After is exact: both flatter those that knock
often.
"""

# ruff: noqa: ARG002, RUF012 -- the providers and controllers of a simulation override what they need

from __future__ import annotations

import argparse
import asyncio
import heapq
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from asyncinfer.errors import RetryKind
from asyncinfer.limits import Budget, Cost, Limits, RateHeaders
from asyncinfer.scheduling import Call, Core, Limiter

MAX_TOKENS = 1024
RTT = 0.05
TTFT = 0.5
SPEED = 50.0
"""Seconds to the provider and back, seconds to the first token, tokens per second of one stream."""
RATE = 40.0
"""Calls per second that most scenarios allow."""


@dataclass(slots=True, eq=False)
class Job:
    """One call of the workload."""

    prompt: int
    output: int
    tries: int = 0
    asked: float = 0.0
    call: Call | None = None


@dataclass(slots=True)
class Answer:
    """What the provider says on arrival. ``refusal`` is None if it serves the call."""

    refusal: RetryKind | None = None
    retry_after: float | None = None
    rate: RateHeaders = field(default_factory=dict)
    first: float = TTFT
    seconds: float = 0.0


def workload(rng: random.Random) -> Iterator[Job]:
    """Prompts of 400 and answers of 300 tokens in the mean, log-normal."""
    while True:
        prompt = max(1, int(rng.lognormvariate(math.log(400) - 0.125, 0.5)))
        yield Job(prompt, min(MAX_TOKENS, max(1, int(rng.lognormvariate(math.log(300) - 0.32, 0.8)))))


# -- providers -------------------------------------------------------------------------------------------------------


class Provider:
    """Accepts everything; the others refuse. ``factor`` scales capacity over time."""

    def __init__(self, seconds: float, rng: random.Random) -> None:
        self.seconds = seconds
        self.rng = rng
        self.running = 0
        self.knocks = 0

    def factor(self, now: float) -> float:
        return 1.0

    def room(self, job: Job, now: float) -> bool:
        return True

    def take(self, job: Job, now: float) -> None:
        """An accepted call begins."""

    def end(self, job: Job, now: float) -> None:
        """An accepted call has ended."""

    def refusal(self, job: Job, now: float) -> Answer:
        return Answer(RetryKind.THROTTLED)

    def headers(self, now: float) -> RateHeaders:
        return {}

    def delay(self, now: float) -> float:
        return TTFT * self.rng.uniform(0.6, 1.6)

    def arrive(self, job: Job, now: float) -> Answer:
        if not self.room(job, now):
            return self.refusal(job, now)
        self.running += 1
        self.take(job, now)
        return Answer(rate=self.headers(now), first=self.delay(now), seconds=job.output / SPEED)


class Buckets(Provider):
    """Token buckets. ``rates``: amount per second of each resource; ``depth`` in seconds."""

    rates: dict[str, float] = {"requests": RATE}
    depth = 60.0
    shown = True
    output_as_produced = False

    def __init__(self, seconds: float, rng: random.Random) -> None:
        super().__init__(seconds, rng)
        self.level = {name: rate * self.depth for name, rate in self.rates.items()}
        self.at = 0.0

    def need(self, job: Job, name: str) -> float:
        return {
            "requests": 1,
            "tokens": job.prompt + MAX_TOKENS,
            "input_tokens": job.prompt,
            "output_tokens": 1 if self.output_as_produced else MAX_TOKENS,
        }[name]

    def refill(self, now: float) -> None:
        factor = self.factor(now)
        for name, rate in self.rates.items():
            full = rate * factor * self.depth
            self.level[name] = min(full, self.level[name] + (now - self.at) * rate * factor)
        self.at = now

    def room(self, job: Job, now: float) -> bool:
        self.refill(now)
        return all(self.level[name] >= self.need(job, name) for name in self.rates)

    def take(self, job: Job, now: float) -> None:
        for name in self.rates:
            if not (name == "output_tokens" and self.output_as_produced):
                self.level[name] -= self.need(job, name)

    def end(self, job: Job, now: float) -> None:
        if self.output_as_produced:
            self.level["output_tokens"] -= job.output

    def refusal(self, job: Job, now: float) -> Answer:
        if not self.shown:
            return Answer(RetryKind.THROTTLED)
        wait = max(
            (self.need(job, name) - self.level[name]) / (rate * self.factor(now)) for name, rate in self.rates.items()
        )
        return Answer(RetryKind.THROTTLED, max(0.001, wait), self.headers(now))

    def headers(self, now: float) -> RateHeaders:
        if not self.shown:
            return {}
        factor = self.factor(now)
        return {
            name: Budget(limit=rate * factor * 60, remaining=max(0.0, self.level[name]))  # type: ignore[misc]
            for name, rate in self.rates.items()
        }


class Tokens(Buckets):
    """S1: requests and tokens per minute, with headers."""

    rates = {"requests": 2 * RATE, "tokens": RATE * (400 + MAX_TOKENS)}


class Produced(Buckets):
    """S2: input and output tokens per minute, output counted as produced, with headers."""

    rates = {"requests": 2 * RATE, "input_tokens": RATE * 400, "output_tokens": RATE * 300}
    output_as_produced = True


class Bare(Buckets):
    """S3: requests per second, no headers, no Retry-After."""

    depth = 1.0
    shown = False


class Capped(Provider):
    """S4: a number of requests in flight, nothing else said."""

    cap = 250

    def room(self, job: Job, now: float) -> bool:
        return self.running < self.cap * self.factor(now)


class Knee(Provider):
    """S5: never refuses; works on 200 calls at a time, the others queue inside."""

    def __init__(self, seconds: float, rng: random.Random) -> None:
        super().__init__(seconds, rng)
        self.free = [0.0] * 200

    def arrive(self, job: Job, now: float) -> Answer:
        answer = super().arrive(job, now)
        answer.first += max(0.0, heapq.heappop(self.free) - now)
        heapq.heappush(self.free, now + answer.first + answer.seconds)
        return answer


class Quartered:
    """Capacity falls to a quarter for the middle third, and comes back."""

    seconds: float

    def factor(self, now: float) -> float:
        return 0.25 if self.seconds / 3 <= now < 2 * self.seconds / 3 else 1.0


class TokensQuartered(Quartered, Tokens):
    """S6."""


class BareQuartered(Quartered, Bare):
    """S7."""


class Overloaded(Capped):
    """S8: for ten seconds of every minute only 30 % is served, the rest refused with 529."""

    cap = 300

    def factor(self, now: float) -> float:
        return 0.3 if now % 60 >= 50 else 1.0

    def refusal(self, job: Job, now: float) -> Answer:
        return Answer(RetryKind.OVERLOADED if self.factor(now) < 1 else RetryKind.THROTTLED)


class Shared(Bare):
    """S9: somebody else uses half of the key."""

    def refill(self, now: float) -> None:
        before = self.at
        super().refill(now)
        taken = sum(self.rng.random() < 0.5 for _ in range(int((now - before) * RATE + self.rng.random())))
        self.level["requests"] = max(0.0, self.level["requests"] - taken)


class FixedWindows(Provider):
    """S10: so many requests per calendar minute, with headers; refused calls count too."""

    minute = -1.0
    left = 0.0

    def room(self, job: Job, now: float) -> bool:
        if now // 60 != self.minute:
            self.minute, self.left = now // 60, RATE * 60
        self.left -= 1
        return self.left >= 0

    def headers(self, now: float) -> RateHeaders:
        return {"requests": Budget(limit=RATE * 60, remaining=max(0.0, self.left), reset=60 - now % 60)}

    def refusal(self, job: Job, now: float) -> Answer:
        return Answer(RetryKind.THROTTLED, 60 - now % 60, self.headers(now))


class Stalls(Capped):
    """S11: as S4, and for five seconds of every minute nothing comes back."""

    def delay(self, now: float) -> float:
        return super().delay(now) + (60 - now % 60 if now % 60 >= 55 else 0.0)


SCENARIOS: dict[str, tuple[type[Provider], Limits | None, str]] = {
    "S1": (Tokens, None, "tokens per minute, headers"),
    "S2": (Produced, None, "input and output tokens, headers"),
    "S3": (Bare, None, "requests per second, no hints"),
    "S4": (Capped, None, "concurrency cap, no hints"),
    "S5": (Knee, None, "latency knee, no refusals"),
    "S6": (TokensQuartered, None, "S1, a quarter in the middle"),
    "S7": (BareQuartered, None, "S3, a quarter in the middle"),
    "S8": (Overloaded, None, "529 for 10 s of each minute"),
    "S9": (Shared, None, "key shared with somebody else"),
    "S10": (FixedWindows, None, "calendar minutes, refusals count"),
    "S11": (Stalls, None, "concurrency cap and stalls"),
    "S12": (
        Tokens,
        Limits(requests_per_minute=360 * RATE, tokens_per_minute=180 * RATE * 1424, charge="reserve"),
        "S1, limits set x3",
    ),
}


# -- controllers -----------------------------------------------------------------------------------------------------


class Controller:
    """Decides what is sent when. This one: a fixed number in flight, retries after Retry-After or 1, 2, 4 ... 30 s."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.queue: deque[Job] = deque()
        self.sleeping: list[tuple[float, int, Job]] = []
        self.in_flight = 0
        self.stamp = 0

    def offer(self, job: Job, now: float) -> None:
        self.queue.append(job)

    def opens(self, job: Job, now: float) -> float:
        return now if self.in_flight < int(self.size) else math.inf

    def start(self, job: Job, now: float) -> None:
        """``job`` is sent."""

    def dispatch(self, now: float) -> tuple[list[Job], float]:
        while self.sleeping and self.sleeping[0][0] <= now:
            self.queue.appendleft(heapq.heappop(self.sleeping)[2])
        out = []
        wake = math.inf
        while self.queue:
            wake = self.opens(self.queue[0], now)
            if wake > now:
                break
            job = self.queue.popleft()
            self.in_flight += 1
            self.start(job, now)
            out.append(job)
            wake = math.inf
        return out, min(wake, self.sleeping[0][0] if self.sleeping else math.inf)

    def accepted(self, job: Job, answer: Answer, now: float) -> None:
        """The head of the response is there."""

    def done(self, job: Job, now: float) -> None:
        self.in_flight -= 1

    def refused(self, job: Job, answer: Answer, now: float) -> None:
        self.in_flight -= 1
        job.tries += 1
        wait = answer.retry_after or min(30.0, 2.0 ** (job.tries - 1))
        self.stamp += 1
        heapq.heappush(self.sleeping, (now + wait, self.stamp, job))


class Aimd(Controller):
    """Netflix's AIMD: one more per success while at least half is used, a tenth less per refusal."""

    def __init__(self) -> None:
        super().__init__(20)

    def done(self, job: Job, now: float) -> None:
        if self.in_flight * 2 >= self.size:
            self.size += 1
        super().done(job, now)

    def refused(self, job: Job, answer: Answer, now: float) -> None:
        self.size = max(1.0, self.size * 0.9)
        super().refused(job, answer, now)


class StaticBucket(Controller):
    """The cookbooks' way: RPM and TPM buckets a minute deep, prompt + max_tokens charged, nothing given back."""

    def __init__(self, rates: dict[str, float]) -> None:
        super().__init__(math.inf)
        self.rates = rates
        self.level = {name: 60 * rate for name, rate in rates.items()}
        self.at = 0.0

    @staticmethod
    def need(job: Job) -> dict[str, float]:
        total = job.prompt + MAX_TOKENS
        return {"requests": 1, "tokens": total, "input_tokens": job.prompt, "output_tokens": MAX_TOKENS}

    def opens(self, job: Job, now: float) -> float:
        wait = 0.0
        for name, rate in self.rates.items():
            self.level[name] = min(60 * rate, self.level[name] + (now - self.at) * rate)
            wait = max(wait, (self.need(job)[name] - self.level[name]) / rate)
        self.at = now
        return now + wait if wait > 1e-9 else now

    def start(self, job: Job, now: float) -> None:
        for name in self.rates:
            self.level[name] -= self.need(job)[name]

    def dispatch(self, now: float) -> tuple[list[Job], float]:
        self.size = math.inf
        return super().dispatch(now)


class Oracle(Controller):
    """Sends exactly when the provider has room: it sees the provider's state."""

    def __init__(self, provider: Provider) -> None:
        super().__init__(math.inf)
        self.provider = provider

    def opens(self, job: Job, now: float) -> float:
        provider = self.provider
        if isinstance(provider, FixedWindows):
            return now if provider.left >= 1 or now // 60 != provider.minute else (now // 60 + 1) * 60
        if isinstance(provider, Knee):
            return now if self.in_flight < 201 else math.inf
        return now if provider.room(job, now) else now + 0.02

    def dispatch(self, now: float) -> tuple[list[Job], float]:
        if not self.queue:
            return [], math.inf
        wake = self.opens(self.queue[0], now)
        if wake > now:
            return [], wake
        self.in_flight += 1
        return [self.queue.popleft()], now  # one at a time: the provider's state changes with each


class Ours(Controller):
    """The scheduler of this package."""

    def __init__(self, limits: Limits, rng: random.Random) -> None:
        super().__init__(math.inf)
        self.core = Core(limits, rng, 0.0)
        self.jobs: dict[Call, Job] = {}
        self.lost = 0

    def offer(self, job: Job, now: float) -> None:
        if job.call is None:
            job.call = Call(Cost(job.prompt, 0, MAX_TOKENS), max_retries=10**6)
        self.jobs[job.call] = job
        self.core.offer(job.call, now)

    def dispatch(self, now: float) -> tuple[list[Job], float]:
        granted = self.core.dispatch(now)
        return [self.jobs.pop(call) for call in granted], self.core.next_wakeup

    def accepted(self, job: Job, answer: Answer, now: float) -> None:
        assert job.call is not None
        self.core.accepted(job.call, answer.rate, now)

    def done(self, job: Job, now: float) -> None:
        assert job.call is not None
        self.core.settle(job.call, job.prompt, job.output, 0, now)

    def refused(self, job: Job, answer: Answer, now: float) -> None:
        assert job.call is not None
        assert answer.refusal is not None
        if self.core.refuse(job.call, answer.refusal, answer.retry_after, answer.rate or None, now):
            self.offer(job, now)
        else:
            self.lost += 1


# -- the simulation --------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """What came of one run."""

    tokens: int = 0
    calls: int = 0
    refusals: int = 0
    waits: list[float] = field(default_factory=list)


class Simulation:
    """One provider, one controller, one workload. ``rate``: calls per second that arrive; None for a backlog."""

    def __init__(self, provider: Provider, controller: Controller, rate: float | None, seed: int) -> None:
        self.provider, self.controller, self.rate = provider, controller, rate
        self.events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self.stamp = 0
        self.result = Result()
        self.jobs = workload(random.Random(seed))
        self.rng = random.Random(seed + 1)
        self.wake = math.inf

    def at(self, when: float, fn: Callable[..., None], *args: object) -> None:
        self.stamp += 1
        heapq.heappush(self.events, (when, self.stamp, fn, args))

    def run(self, seconds: float) -> Result:
        if self.rate is None:
            for _ in range(int(RATE * seconds * 4)):
                self.controller.offer(next(self.jobs), 0.0)
        else:
            self.at(0.0, self.comes)
        self.pump(0.0)
        while self.events:
            now, _, fn, args = heapq.heappop(self.events)
            if now > seconds:
                break
            fn(*args, now)
            self.pump(now)
        return self.result

    def pump(self, now: float) -> None:
        if now >= self.wake:
            self.wake = math.inf
        jobs, wake = self.controller.dispatch(now)
        for job in jobs:
            if self.rate is not None:
                self.result.waits.append(now - job.asked)
            if isinstance(self.controller, Oracle):
                self.arrives(job, now)
            else:
                self.at(now + RTT / 2, self.arrives, job)
        if wake < self.wake:
            self.wake = wake
            self.at(wake, self.rings)

    def rings(self, now: float) -> None:
        """Time alone has opened a gate; `pump` follows every event."""

    def comes(self, now: float) -> None:
        assert self.rate is not None
        job = next(self.jobs)
        job.asked = now
        self.controller.offer(job, now)
        self.at(now + self.rng.expovariate(self.rate), self.comes)

    def arrives(self, job: Job, now: float) -> None:
        answer = self.provider.arrive(job, now)
        if answer.refusal is not None:
            self.result.refusals += 1
            self.at(now + RTT / 2, self.refused, job, answer)
        else:
            self.at(now + answer.first, self.accepted, job, answer)
            self.at(now + answer.first + answer.seconds, self.ends, job)

    def refused(self, job: Job, answer: Answer, now: float) -> None:
        if self.rate is not None:
            job.asked = now  # waits are counted per attempt
        self.controller.refused(job, answer, now)

    def accepted(self, job: Job, answer: Answer, now: float) -> None:
        self.controller.accepted(job, answer, now)

    def ends(self, job: Job, now: float) -> None:
        self.provider.running -= 1
        self.provider.end(job, now)
        self.controller.done(job, now)
        self.result.tokens += job.prompt + job.output
        self.result.calls += 1


def controllers(
    name: str, provider: Provider, configured: Limits | None, seed: int
) -> dict[str, Callable[[], Controller]]:
    """Everybody who takes part in a scenario, freshly made."""
    limits = configured or Limits(charge="reserve" if isinstance(provider, Tokens) else "actual")
    scale = 3 if configured else 1
    found: dict[str, Callable[[], Controller]] = {
        "asyncinfer": lambda: Ours(limits, random.Random(seed)),
        "AIMD": Aimd,
        "semaphore 64": lambda: Controller(64),
        "semaphore 256": lambda: Controller(256),
    }
    rates = provider.rates if isinstance(provider, Buckets) else {"requests": RATE} if name == "S10" else None
    if rates:
        found["static bucket"] = lambda: StaticBucket({key: rate * scale for key, rate in rates.items()})
    return found


def run_scenario(name: str, seconds: float, seed: int) -> dict[str, tuple[float, int, float]]:
    """Goodput, refusals and p99 wait of each controller."""
    kind, configured, _ = SCENARIOS[name]

    def provider() -> Provider:
        return kind(seconds, random.Random(seed + 2))

    seen = provider()
    best = Simulation(seen, Oracle(seen), None, seed).run(seconds)
    found = {}
    for label, make in controllers(name, provider(), configured, seed).items():
        full = Simulation(provider(), make(), None, seed).run(seconds)
        light = Simulation(provider(), make(), 0.7 * best.calls / seconds, seed).run(seconds)
        waits = sorted(light.waits)
        found[label] = full.tokens / best.tokens, full.refusals, waits[int(0.99 * (len(waits) - 1))] if waits else 0.0
    return found


def print_table(rows: dict[str, dict[str, tuple[float, int, float]]]) -> None:
    labels = ["asyncinfer", "AIMD", "semaphore 64", "semaphore 256", "static bucket"]
    print(f"{'goodput / refusals / p99 wait (s)':<40}" + "".join(f"{label:>23}" for label in labels))
    for name, row in rows.items():
        cells = "".join(
            f"{row[label][0]:>8.2f} {row[label][1]:>7,} {row[label][2]:>6.2f}" if label in row else f"{'-':>23}"
            for label in labels
        )
        print(f"{name:<4} {SCENARIOS[name][2]:<35}{cells}")
    for label in labels:
        scores = [min(1.0, row[label][0]) for row in rows.values() if label in row]
        refusals = sum(row[label][1] for row in rows.values() if label in row)
        print(f"{label:<15} geometric mean {statistics.geometric_mean(scores):.3f}, {refusals:,} refusals")


def print_micro() -> None:
    """CPU of one call that does not wait: ticket, acquire, on_headers, settle."""

    async def measure(limits: Limits) -> float:
        limiter = Limiter(limits)
        cost = Cost(400, 0, MAX_TOKENS)
        best = math.inf
        for _ in range(9):
            started = time.process_time()
            for _ in range(2000):
                ticket = limiter.ticket(cost)
                await ticket.acquire()
                ticket.on_headers({})
                ticket.settle(input_tokens=400, output_tokens=300)
            best = min(best, (time.process_time() - started) / 2000 * 1e6)
        return best

    bare = asyncio.run(measure(Limits()))
    full = asyncio.run(measure(Limits(requests_per_minute=1e9, tokens_per_minute=1e12)))
    print(f"acquire + on_headers + settle, uncontended: {bare:.1f} us; with two buckets set: {full:.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=600.0, help="simulated seconds for each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios, comma-separated")
    parser.add_argument("--micro", action="store_true", help="only the cost of one call")
    args = parser.parse_args()
    if not args.micro:
        names = args.only.split(",") if args.only else list(SCENARIOS)
        print_table({name: run_scenario(name, args.seconds, args.seed) for name in names})
    print_micro()


if __name__ == "__main__":
    main()
