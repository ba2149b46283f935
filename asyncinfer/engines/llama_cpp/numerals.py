"""Whole numbers between two bounds, digit by digit, as GBNF. Pure."""

from __future__ import annotations

import math
from typing import Any

from ...errors import ConfigError

_MOST = 10**16 - 1
"""Where there is no bound: sixteen digits, as in llama.cpp."""


def integers(told: dict[str, Any]) -> str | None:
    """The numerals that a schema's bounds allow; None where it has none.

    Raises:
        ConfigError: there are none between the bounds.
    """
    lows = [math.ceil(told["minimum"])] if "minimum" in told else []
    highs = [math.floor(told["maximum"])] if "maximum" in told else []
    if isinstance(told.get("exclusiveMinimum"), (int, float)) and told["exclusiveMinimum"] is not True:
        lows.append(math.floor(told["exclusiveMinimum"]) + 1)
    if isinstance(told.get("exclusiveMaximum"), (int, float)) and told["exclusiveMaximum"] is not True:
        highs.append(math.ceil(told["exclusiveMaximum"]) - 1)
    if not lows and not highs:
        return None
    low, high = max(lows, default=min(-_MOST, *highs, 0)), min(highs, default=max(_MOST, *lows, 0))
    if low > high:
        path = "generation.guided_decoding.json"
        raise ConfigError(f"{path} cannot be made a grammar: no whole number is between {low} and {high}", path=path)
    choices = []
    if low < 0:
        choices += [f'"-" {one}' for one in _from_to(max(1, -high), -low)]
    if high >= 0:
        choices += _from_to(max(0, low), high)
    return " | ".join(choices)


def _from_to(low: int, high: int) -> list[str]:
    """0 <= low <= high; one choice or more for each count of digits."""
    found = []
    for size in range(len(str(low)), len(str(high)) + 1):
        least, most = max(low, 10 ** (size - 1) if size > 1 else 0), min(high, 10**size - 1)
        found += _alike(str(least), str(most))
    return found


def _alike(low: str, high: str) -> list[str]:
    """Numerals of as many digits."""
    if not low:
        return [""]
    rest = len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        digit = f"[{low[0]}-{high[0]}]"
        return [f"{digit} [0-9]{{{rest}}}" if rest else digit]
    if low[0] == high[0]:
        return [f'"{low[0]}" {one}' for one in _alike(low[1:], high[1:])]
    found = [f'"{low[0]}" {one}' for one in _alike(low[1:], "9" * rest)]
    if int(high[0]) - int(low[0]) > 1:
        found.append(f"[{int(low[0]) + 1}-{int(high[0]) - 1}] [0-9]{{{rest}}}")
    return found + [f'"{high[0]}" {one}' for one in _alike("0" * rest, high[1:])]
