"""Limits that make sense: checked when a limiter is made, and merged when two engines name the same one."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, TypeVar

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..limits import Limits

N = TypeVar("N", int, float)

RATES = ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
COUNTS = ("min_concurrency", "max_concurrency", "start_concurrency")
CHARGES = ("actual", "settle", "reserve")
"""From the mildest to the strictest."""


def check(limits: Limits) -> None:
    """Raise `ConfigError`, naming field and cure, for a limit that cannot be kept."""
    for name in RATES:
        value = getattr(limits, name)
        if value is not None and not (_number(value) and value > 0):
            raise ConfigError(f"{name} must be a number above 0, not {value!r}; leave it out for no limit", path=name)
    for name in COUNTS:
        value = getattr(limits, name)
        if value is not None and not (_whole(value) and value >= 1):
            raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}", path=name)
    if limits.max_retries is not None and not (_whole(limits.max_retries) and limits.max_retries >= 0):
        raise ConfigError(
            f"max_retries must be a whole number, 0 for none, not {limits.max_retries!r}", path="max_retries"
        )
    if not (_number(limits.min_interval) and limits.min_interval >= 0):
        raise ConfigError(
            f"min_interval must be a number of seconds, 0 for none, not {limits.min_interval!r}", path="min_interval"
        )
    if limits.charge not in CHARGES:
        raise ConfigError(f"charge must be one of {', '.join(CHARGES)}, not {limits.charge!r}", path="charge")


def check_weight(weight: float) -> None:
    """Raise `ConfigError` for a weight that is no share."""
    if not (_number(weight) and weight > 0):
        raise ConfigError(f"weight must be a number above 0, not {weight!r}", path="weight")


def stricter(first: Limits, second: Limits) -> Limits:
    """The limits that keep both. What concerns retries and the start stays as in ``first``."""
    return replace(
        first,
        requests_per_minute=_least(first.requests_per_minute, second.requests_per_minute),
        tokens_per_minute=_least(first.tokens_per_minute, second.tokens_per_minute),
        input_tokens_per_minute=_least(first.input_tokens_per_minute, second.input_tokens_per_minute),
        output_tokens_per_minute=_least(first.output_tokens_per_minute, second.output_tokens_per_minute),
        max_concurrency=_least(first.max_concurrency, second.max_concurrency),
        adaptive=first.adaptive and second.adaptive,
        min_interval=max(first.min_interval, second.min_interval),
        charge=max(first.charge, second.charge, key=CHARGES.index),
    )


def _least(first: N | None, second: N | None) -> N | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
