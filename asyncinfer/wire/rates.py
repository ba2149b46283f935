"""Rate-limit headers of every provider that sends any, read into one value.

The spellings (names are lower case):

* OpenAI, Azure, Groq, Mistral, xAI, LiteLLM: ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, resets as Go
  durations; Groq's ``requests`` are per day, which only the dialect knows (``rate_windows``).
* Cerebras, SambaNova: the same with a window, ``...-requests-day``, ``...-tokens-minute``; resets in seconds or epoch.
* Fireworks: ``...-tokens-prompt``, ``...-tokens-generated``.
* Together, OpenRouter: ``x-ratelimit-{limit,remaining,reset}`` and ``x-tokenlimit-{limit,remaining}``.
* Mistral's older ``ratelimitbysize-*`` (tokens) and the IETF draft's ``ratelimit-*`` (requests).
* Anthropic: ``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}``, RFC 3339.

Rule: negative or unreadable numbers, which Azure sends at times, say nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from ..limits import Budget, RateHeaders, Resource
from .moments import number, reset_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(
    r"(?:x-|anthropic-)?(?P<kind>ratelimitbysize|ratelimit|tokenlimit)-"
    r"(?:(?P<what>limit|remaining|reset)(?:-(?P<of>[a-z-]+))?|(?P<of2>[a-z-]+)-(?P<what2>limit|remaining|reset))"
)
_RESOURCES: dict[str, Resource] = {
    "requests": "requests",
    "tokens": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
    "tokens-prompt": "input_tokens",
    "tokens-generated": "output_tokens",
    "tokens-input": "input_tokens",
    "tokens-output": "output_tokens",
    "prompt-tokens": "input_tokens",
    "completion-tokens": "output_tokens",
}
_WINDOWS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "month": 2592000.0}
_BARE: dict[str, Resource] = {"ratelimit": "requests", "ratelimitbysize": "tokens", "tokenlimit": "tokens"}

_Key = tuple[Resource, float]


def rate_headers(
    headers: Mapping[str, str], now: float, windows: Mapping[Resource, float] | None = None
) -> RateHeaders:
    """The rate-limit headers of one response.

    Args:
        headers: names in lower case.
        now: the wall clock, in seconds since the epoch; resets that name a moment are measured from it.
        windows: seconds that a bucket spans where the header's name does not say (`Dialect.rate_windows`).

    Returns:
        One budget for each resource, empty where the provider sends none. Where a provider reports a resource per
        minute and per day, the one with less remaining counts.
    """
    budgets: dict[_Key, Budget] = {}
    for name, text in headers.items():
        if "limit" not in name:
            continue
        read = _read_name(name)
        if read is None:
            continue
        resource, window, what = read
        key = (resource, window or (windows or {}).get(resource, 60.0))
        budget = budgets.get(key)
        if budget is None:
            budget = budgets[key] = Budget(window=key[1])
        if what == "reset":
            budget.reset = reset_seconds(text, now)
        else:
            value = number(text)
            setattr(budget, what, -1.0 if value is None else value)
    return _tightest(budgets)


@lru_cache(maxsize=256)
def _read_name(name: str) -> tuple[Resource, float | None, str] | None:
    """Of which resource, over how many seconds (None where the name does not say), a header tells what. Servers send
    the same few names with every response."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    what, of = match["what"] or match["what2"], match["of"] or match["of2"]
    if of is None:
        return _BARE[match["kind"]], None, what
    if of in _RESOURCES:
        return _RESOURCES[of], None, what
    base, _, unit = of.rpartition("-")
    found = _RESOURCES.get(base)
    return (found, _WINDOWS[unit], what) if found is not None and unit in _WINDOWS else None


def _tightest(budgets: dict[_Key, Budget]) -> RateHeaders:
    result: RateHeaders = {}
    for (resource, _), budget in budgets.items():
        if budget.limit is not None and budget.limit <= 0:
            continue  # garbage: nobody grants nothing and answers
        if budget.remaining is not None and budget.remaining < 0:
            budget.remaining = None
        if budget.limit is None and budget.remaining is None:
            continue
        other = result.get(resource)
        if (
            other is None
            or _left(budget) < _left(other)
            or (_left(budget) == _left(other) and budget.window < other.window)
        ):
            result[resource] = budget
    return result


def _left(budget: Budget) -> float:
    if budget.remaining is not None:
        return budget.remaining
    return budget.limit if budget.limit is not None else float("inf")
