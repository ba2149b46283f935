"""Token counts and stop reasons, in the format's words and in ours.

``input_tokens`` leaves out what was read from the cache and what was written to it; ours counts the whole prompt.
``output_tokens`` includes thinking.
"""

from __future__ import annotations

from typing import Any

from ...events import Finish, FinishReason, Usage
from ..lenient import count

STOP_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "pause_turn": FinishReason.PAUSE,
    "refusal": FinishReason.REFUSAL,
    "model_context_window_exceeded": FinishReason.CONTEXT_OVERFLOW,
}
"""The format's word -> ours; any other word is `FinishReason.UNKNOWN`."""

_WORDS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.PAUSE: "pause_turn",
    FinishReason.REFUSAL: "refusal",
    FinishReason.CONTENT_FILTER: "refusal",
    FinishReason.CONTEXT_OVERFLOW: "model_context_window_exceeded",
}


def stop_words(finish: Finish) -> tuple[str | None, str | None]:
    """``stop_reason`` and ``stop_sequence`` of a `Finish`. A reason that the format has no word for (an error, an
    abort, one unknown) is null: clients must not take it for an end."""
    if finish.reason is FinishReason.STOP and isinstance(finish.matched, str):
        return "stop_sequence", finish.matched
    return _WORDS.get(finish.reason), None


class Counts:
    """The usage of one answer: later reports overwrite earlier ones, field by field."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: dict[str, int] = {}

    def add(self, value: Any) -> bool:
        """Take in a ``usage`` object; whether it held any count."""
        if not isinstance(value, dict):
            return False
        found = {name: number for name in _FIELDS if (number := count(value.get(name))) is not None}
        details = value.get("output_tokens_details")
        thinking = count(details.get("thinking_tokens")) if isinstance(details, dict) else None
        if thinking is not None:
            found["thinking_tokens"] = thinking
        self._fields.update(found)
        return bool(found)

    def usage(self, *, output: bool = True) -> Usage:
        """The counts so far; without those of the output, while they are only a beginning."""
        fields = self._fields
        cached = fields.get("cache_read_input_tokens", 0)
        written = fields.get("cache_creation_input_tokens", 0)
        return Usage(
            fields.get("input_tokens", 0) + cached + written,
            fields.get("output_tokens", 0) if output else 0,
            cached,
            written,
            fields.get("thinking_tokens", 0) if output else 0,
        )


_FIELDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def write_usage(usage: Usage) -> dict[str, Any]:
    """The ``usage`` object that clients expect."""
    return {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }
