"""The shape of one chunk (or whole document) of an answer, and how odd ones are brought into it.

`Chunk` names only what is needed; msgspec skips the rest of the bytes. A chunk that is good JSON of an odd type is not
an error: `read_odd` takes the slow way and makes the same `Chunk` of it.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ...errors import ProtocolError
from ...events import FinishReason, Usage
from ..lenient import count
from ..status import redact

FINISH_REASONS = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.CONTINUATION,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "MODEL_ARMOR",
        ),
        FinishReason.CONTENT_FILTER,
    ),
    **dict.fromkeys(
        (
            "MALFORMED_FUNCTION_CALL",
            "UNEXPECTED_TOOL_CALL",
            "TOO_MANY_TOOL_CALLS",
            "MISSING_THOUGHT_SIGNATURE",
            "MALFORMED_RESPONSE",
        ),
        FinishReason.ERROR,
    ),
}
"""The service's word -> ours; any other word (``LANGUAGE``, ``OTHER``, ``NO_IMAGE`` ...) is `FinishReason.UNKNOWN`."""

SPECIAL = ("inlineData", "fileData", "executableCode", "codeExecutionResult", "toolCall", "toolResponse")
"""Kinds of parts that are neither text nor a call of ours: kept and sent back as they came."""


_NO_ARGUMENTS = msgspec.Raw()


class Call(msgspec.Struct, gc=False, rename="camel"):
    """A function call, whole, or (Vertex, where asked for) a piece of one."""

    name: str | None = None
    id: str | None = None
    args: msgspec.Raw = _NO_ARGUMENTS  # never None: msgspec would not take an object then
    partial_args: list[dict[str, Any]] | None = None
    will_continue: bool | None = None


class Part(msgspec.Struct, gc=False, rename="camel"):
    """One part of a candidate's content."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: Call | None = None
    inline_data: Any = None
    file_data: Any = None
    executable_code: Any = None
    code_execution_result: Any = None
    tool_call: Any = None
    tool_response: Any = None

    @property
    def special(self) -> bool:
        """Whether it is one of the `SPECIAL` kinds."""
        return (
            self.inline_data is not None
            or self.executable_code is not None
            or self.code_execution_result is not None
            or self.file_data is not None
            or self.tool_call is not None
            or self.tool_response is not None
        )

    def as_sent(self) -> dict[str, Any]:
        """A part of a special kind, as it came."""
        values = (
            self.inline_data,
            self.file_data,
            self.executable_code,
            self.code_execution_result,
            self.tool_call,
            self.tool_response,
        )
        sent = {name: value for name, value in zip(SPECIAL, values, strict=True) if value is not None}
        if self.thought:
            sent["thought"] = True
        if self.thought_signature is not None:
            sent["thoughtSignature"] = self.thought_signature
        return sent


class Content(msgspec.Struct, gc=False):
    """What a candidate said in this chunk."""

    parts: list[Part] | None = None


class Candidate(msgspec.Struct, gc=False, rename="camel"):
    """One of the answers."""

    content: Content | None = None
    index: int | None = None
    finish_reason: str | None = None
    logprobs_result: Any = None
    grounding_metadata: Any = None
    citation_metadata: Any = None
    url_context_metadata: Any = None
    continuation_token: str | None = None


class Counts(msgspec.Struct, gc=False, rename="camel"):
    """``usageMetadata``. ``candidates_token_count`` leaves thoughts out."""

    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    total_token_count: int | None = None

    def usage(self) -> Usage | None:
        """The counts as we have them, None where there are none."""
        if self.prompt_token_count is None and self.total_token_count is None and self.candidates_token_count is None:
            return None
        thoughts = count(self.thoughts_token_count) or 0
        return Usage(
            input_tokens=(count(self.prompt_token_count) or 0) + (count(self.tool_use_prompt_token_count) or 0),
            output_tokens=(count(self.candidates_token_count) or 0) + thoughts,
            cached_tokens=count(self.cached_content_token_count) or 0,
            reasoning_tokens=thoughts,
        )


class Chunk(msgspec.Struct, gc=False, rename="camel"):
    """One chunk, or a whole document."""

    candidates: list[Candidate] | None = None
    usage_metadata: Counts | None = None
    model_version: str | None = None
    response_id: str | None = None
    prompt_feedback: Any = None
    error: Any = None


read_chunk = msgspec.json.Decoder(Chunk).decode
"""The short way; raises `msgspec.DecodeError` for what is odd or broken."""


def read_odd(value: Any) -> Chunk:
    """The chunk in a decoded value that the short way refused: fields of an odd type are read as far as they go.

    Raises:
        ProtocolError: it is not an object.
    """
    if not isinstance(value, dict):
        raise ProtocolError(f"The provider sent JSON that is not an object: {redact(str(value))[:120]!r}")
    candidates, counts = value.get("candidates"), value.get("usageMetadata")
    return Chunk(
        candidates=[_candidate(item) for item in candidates if isinstance(item, dict)]
        if isinstance(candidates, list)
        else None,
        usage_metadata=_counts(counts) if isinstance(counts, dict) else None,
        model_version=_text(value.get("modelVersion")),
        response_id=_text(value.get("responseId")),
        prompt_feedback=value.get("promptFeedback"),
        error=value.get("error"),
    )


def _candidate(value: dict[str, Any]) -> Candidate:
    content = value.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return Candidate(
        content=Content([_part(part) for part in parts if isinstance(part, dict)]) if isinstance(parts, list) else None,
        index=_number(value.get("index")),
        finish_reason=_text(value.get("finishReason")),
        logprobs_result=value.get("logprobsResult"),
        grounding_metadata=value.get("groundingMetadata"),
        citation_metadata=value.get("citationMetadata"),
        url_context_metadata=value.get("urlContextMetadata"),
        continuation_token=_text(value.get("continuationToken")),
    )


def _part(value: dict[str, Any]) -> Part:
    call = value.get("functionCall")
    special = {name: value.get(name) for name in SPECIAL}
    return Part(
        _whole_text(value.get("text")),
        value.get("thought") is True,
        _text(value.get("thoughtSignature")),
        _call(call) if isinstance(call, dict) else None,
        *special.values(),
    )


def _call(value: dict[str, Any]) -> Call:
    args, pieces = value.get("args"), value.get("partialArgs")
    return Call(
        name=_text(value.get("name")),
        id=_text(value.get("id")),
        args=msgspec.Raw(json.dumps(args).encode()) if isinstance(args, dict) else _NO_ARGUMENTS,
        partial_args=[piece for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else None,
        will_continue=value.get("willContinue") is True,
    )


def _counts(value: dict[str, Any]) -> Counts:
    names = (
        "promptTokenCount",
        "cachedContentTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "toolUsePromptTokenCount",
        "totalTokenCount",
    )
    return Counts(*(count(value.get(name)) for name in names))


def _text(value: Any) -> str | None:
    """Text as it is; numbers as they would print; None for the rest."""
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, (dict, list, bool)) else str(value)


def _whole_text(value: Any) -> str | None:
    text = _text(value)
    return None if text is None else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _number(value: Any) -> int | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if abs(found) < 1 << 60 else None
