"""Durations and moments as providers write them into headers and bodies, read into seconds.

Rule: what is not a finite, sensible number is None, never an exception: a broken header must not break an answer.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|μs|ns|d|h|m|s)")
_EPOCH_SECONDS = 1e9  # a reset this big is a moment, not a duration: 31 years
_EPOCH_MILLISECONDS = 1e11


def number(text: Any) -> float | None:
    """A finite float from a header's text (or a JSON number), else None. Of ``"100, 100;w=60"`` the first counts."""
    if isinstance(text, bool) or text is None:
        return None
    if isinstance(text, str):
        text = text.partition(",")[0].partition(";")[0].strip()
        if "_" in text:  # Python's own idea of a number
            return None
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def go_duration(text: str) -> float | None:
    """Seconds of a Go duration: ``6m0s``, ``20ms``, ``1h1m1s``, ``2m59.56s``; also protobuf's ``38s``."""
    total = 0.0
    position = 0
    while position < len(text):
        part = _GO_PART.match(text, position)
        if part is None:
            return None
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    return total if position and math.isfinite(total) else None


def rfc3339(text: str) -> float | None:
    """Seconds since the epoch of ``2026-10-01T12:00:00Z``; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def http_date(text: str) -> float | None:
    """Seconds since the epoch of an HTTP date (RFC 9110, all three forms)."""
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def reset_seconds(text: str, now: float) -> float | None:
    """Seconds from ``now`` (since the epoch) until the moment that a ``reset`` header names, in any of its forms:
    seconds, Go duration, RFC 3339, seconds or milliseconds since the epoch. Never negative."""
    text = text.strip()
    value = number(text)
    if value is not None:
        if value >= _EPOCH_MILLISECONDS:
            value = value / 1e3 - now
        elif value >= _EPOCH_SECONDS:
            value -= now
        elif value < 0:
            return None
        return max(0.0, value)
    duration = go_duration(text)
    if duration is not None:
        return duration
    moment = rfc3339(text) if "-" in text else None
    return None if moment is None else max(0.0, moment - now)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a response asks to wait, or None.

    ``retry-after-ms`` counts before ``retry-after``, which may be seconds (also fractional) or an HTTP date; a date is
    measured against ``now`` (seconds since the epoch) or, without it, against the response's own ``date`` header.
    """
    value = number(headers.get("retry-after-ms"))
    if value is not None and value >= 0:
        return value / 1e3
    text = headers.get("retry-after")
    if text is None:
        return None
    value = number(text) if text.strip()[:1] in "-+.0123456789" else None
    if value is not None:
        return value if value >= 0 else None
    duration = go_duration(text.strip())
    if duration is not None:
        return duration
    moment = http_date(text)
    if now is None:
        now = http_date(headers.get("date", ""))
    return None if moment is None or now is None else max(0.0, moment - now)
