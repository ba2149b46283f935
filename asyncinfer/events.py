"""What every engine streams: six small events.

A stream is ``Start (TextDelta | ReasoningDelta | ToolCallDelta | UsageUpdate)* Finish+``, one `Finish` for each choice.
Events sit on the per-token path, so they are `msgspec.Struct` without garbage-collector tracking: 64 ns to make.
``index`` is the choice an event belongs to, 0 unless ``n > 1``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec


class FinishReason(StrEnum):
    """Why an answer ended. Provider words are mapped by the codecs; `UNKNOWN` never means "complete"."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"
    CONTEXT_OVERFLOW = "context_overflow"
    CONTINUATION = "continuation"
    ABORT = "abort"
    ERROR = "error"
    UNKNOWN = "unknown"


class Usage(msgspec.Struct, gc=False):
    """Tokens of one call.

    Attributes:
        input_tokens: prompt tokens, cached ones included.
        output_tokens: generated tokens, reasoning included.
        cached_tokens: part of ``input_tokens`` that was read from the provider's cache.
        cache_write_tokens: part of ``input_tokens`` that was written to it.
        reasoning_tokens: part of ``output_tokens`` that was spent on reasoning.
        source: ``"exact"`` as counted by the engine or provider, ``"estimated"`` where the call ended before it said.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    source: Literal["exact", "estimated"] = "exact"

    @property
    def total_tokens(self) -> int:
        """Input plus output tokens."""
        return self.input_tokens + self.output_tokens


class Start(msgspec.Struct, gc=False):
    """The engine accepted the request and began to answer.

    Attributes:
        id: the engine's id of the answer.
        model: the model that answers, as the engine names it.
        request_id: the provider's request id (a header), for support.
    """

    id: str = ""
    model: str = ""
    request_id: str | None = None


class TextDelta(msgspec.Struct, gc=False):
    """A piece of the answer's text. ``logprobs`` is the provider's list for these tokens, where asked for."""

    text: str
    index: int = 0
    logprobs: Any = None


class ReasoningDelta(msgspec.Struct, gc=False):
    """A piece of the model's reasoning.

    ``details`` are structured parts that must be sent back verbatim on a later turn (signatures, encrypted blocks).
    """

    text: str
    index: int = 0
    details: Any = None


class ToolCallDelta(msgspec.Struct, gc=False):
    """A piece of one tool call.

    Attributes:
        call: position of the call within the answer, 0-based; pieces with the same number belong together.
        id, name: present on the first piece.
        arguments: a fragment of the JSON text of the arguments.
        extra: provider fields that must travel back with the call (thought signatures).
    """

    call: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    index: int = 0
    extra: Any = None


class UsageUpdate(msgspec.Struct, gc=False):
    """Token counts so far; the last one of a stream counts."""

    usage: Usage


class Finish(msgspec.Struct, gc=False):
    """One choice is complete.

    ``matched`` is the stop string or token id that ended it, where the engine says; ``raw`` is the provider's own word.
    """

    reason: FinishReason
    index: int = 0
    matched: str | int | None = None
    raw: str | None = None


Event = Start | TextDelta | ReasoningDelta | ToolCallDelta | UsageUpdate | Finish

DELTAS: tuple[type[Any], ...] = (TextDelta, ReasoningDelta, ToolCallDelta)
"""The events that carry content: the first of them closes the retry window."""
