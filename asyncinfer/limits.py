"""Values that wire, scheduling and engines exchange about rate limits. No behaviour, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Resource = Literal["requests", "tokens", "input_tokens", "output_tokens"]
"""What a bucket counts: requests, all tokens, prompt tokens, generated tokens."""


@dataclass(slots=True)
class Budget:
    """What a response header says of one bucket.

    Attributes:
        limit: size of the bucket per ``window`` seconds, or None if unsaid.
        remaining: what is left, or None if unsaid.
        reset: seconds until the bucket is full again, or None if unsaid.
        window: seconds over which ``limit`` is granted (60; 86400 for a daily quota).
    """

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None
    window: float = 60.0


RateHeaders = dict[Resource, Budget]
"""The rate-limit headers of one response, parsed; empty where the provider sends none."""


@dataclass(slots=True)
class Cost:
    """What one request is expected to take from the buckets.

    Attributes:
        input_tokens: estimated prompt tokens, the cached ones included.
        cached_tokens: the part of them that the provider does not count.
        max_output_tokens: the most that may be generated, or None if the request does not say.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    max_output_tokens: int | None = None


@dataclass(slots=True)
class Limits:
    """How a limiter is set up: what the user or the provider's row says. None means: learn it.

    Attributes:
        requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute: buckets.
        max_concurrency: the most requests in flight (``num_workers``), or None for the algorithm's own cap.
        adaptive: False fixes the window at ``max_concurrency`` (16 if unset).
        min_concurrency: what refusals never shrink the window below, or None for 1.
        start_concurrency: where the window begins, or None for the algorithm's constant.
        min_interval: least seconds between the request starts of one worker (``politeness_policy``).
        max_retries: further attempts after the first, or None for the algorithm's own bound.
        backoff_first, backoff_most: seconds before the first retry after a fault, and at most; None for the
            algorithm's own.
        charge: when output tokens count: ``"actual"`` as produced, ``"reserve"`` the maximum at admission and for good,
            ``"settle"`` the maximum at admission, trued up at the end.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    input_tokens_per_minute: float | None = None
    output_tokens_per_minute: float | None = None
    max_concurrency: int | None = None
    adaptive: bool = True
    min_concurrency: int | None = None
    start_concurrency: int | None = None
    min_interval: float = 0.0
    max_retries: int | None = None
    backoff_first: float | None = None
    backoff_most: float | None = None
    charge: Literal["actual", "reserve", "settle"] = "actual"
