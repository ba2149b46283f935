"""What the scheduler keeps of one call, and what it shows of itself."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..errors import AsyncInferError
    from ..limits import Cost
    from .quota import BucketState, Hold, Need

IDLE, WAITING, HELD = "idle", "waiting", "held"


@dataclass(slots=True, frozen=True)
class LimiterState:
    """A limiter at one moment.

    Attributes:
        name: the limiter's name.
        window: concurrency window, its fraction included.
        in_flight: requests that hold a slot.
        waiting: calls that wait for one, those that back off included.
        backing_off: those of them that wait out a fault of their own.
        tenants: calls that wait in the queue, by tenant.
        paused: seconds for which the provider wants nobody to send; 0 if it does not.
        pace: request starts per second that are allowed, or None while no refusal has shown that there is a limit.
        mean_output_tokens: expected length of an answer.
        buckets: every bucket that is known.
        sent, accepted, throttled, overloaded, faults: requests so far, and what became of them.
    """

    name: str
    window: float
    in_flight: int
    waiting: int
    backing_off: int
    tenants: dict[str, int]
    paused: float
    pace: float | None
    mean_output_tokens: float
    buckets: tuple[BucketState, ...]
    sent: int
    accepted: int
    throttled: int
    overloaded: int
    faults: int


class Call:
    """One call, through all its attempts.

    Attributes:
        attempts: requests sent so far.
        queued: seconds waited for slots so far.
        state: `IDLE`, `WAITING` or `HELD` (it holds a slot).
        error: why it can never be granted, if so.
    """

    __slots__ = (
        "asleep", "attempts", "cost", "error", "faults", "hold", "max_retries", "need", "not_before", "number",
        "queued", "seq", "since", "state", "tenant", "turn", "weight",
    )  # fmt: skip

    def __init__(self, cost: Cost, *, tenant: str = "", weight: float = 1.0, max_retries: int | None = None) -> None:
        self.cost = cost
        self.tenant = tenant
        self.weight = weight
        self.max_retries = max_retries
        self.attempts = 0
        self.faults = 0
        self.queued = 0.0
        self.state = IDLE
        self.error: AsyncInferError | None = None
        self.asleep = False
        self.hold: Hold | None = None
        self.not_before = -inf
        self.number = self.seq = self.turn = 0
        self.need: Need = (1, 0, 0, 0)
        self.since = 0.0
