"""Reading what providers send when they do not keep to their own format.

Rule: nothing here raises for an odd value; only what is no JSON at all is an error.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ..errors import ProtocolError
from .status import redact

MOST_TOKENS = 1 << 50
"""More tokens than any call, and any account, will ever see: a number above it is a mistake."""


def parse_json(data: bytes) -> Any:
    """JSON with Python's tolerance: NaN, half surrogate pairs, bytes that are not UTF-8.

    Raises:
        ProtocolError: it is not JSON at all; the message shows how it begins.
    """
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        shown = redact(data[:120].decode("utf-8", "replace"))
        raise ProtocolError(f"The provider sent something that is not JSON: {shown!r}") from None


def arguments_object(text: str) -> dict[str, Any]:
    """The arguments of a call as the object that some formats ask for.

    What a model once wrote may be none. The call was answered with an error, and the conversation goes on: it is sent
    back under a name that says so, Anthropic's own for it.
    """
    try:
        value = msgspec.json.decode(text) if text.strip() else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": text}


def count(value: Any) -> int | None:
    """A number of tokens: an integer, a float, or either as text (``12``, ``12.0``, ``"12"``); None for everything that
    no count can be (negative, absurdly large, NaN, another type)."""
    if type(value) is int:
        return value if 0 <= value <= MOST_TOKENS else None
    if isinstance(value, str):
        try:
            value = float(value) if len(value) <= 32 else None
        except ValueError:
            return None
    return int(value) if isinstance(value, float) and 0 <= value <= MOST_TOKENS else None
