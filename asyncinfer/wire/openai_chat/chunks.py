"""The shape of one chunk (or whole document) of a Chat Completions answer, and how odd ones are brought into it.

`Chunk` names only what is needed; msgspec skips the rest of the bytes. A chunk that is good JSON of an odd type (an
index that is a float, content that is a number, half a surrogate pair) is not an error: `read_odd` takes the slow way
and makes the same `Chunk` of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import ProtocolError
from ..lenient import parse_json
from ..status import redact


class Function(msgspec.Struct, gc=False):
    """Name and (a fragment of) the arguments of a call; some servers send the arguments as an object."""

    name: str | None = None
    arguments: str | dict[str, Any] | list[Any] | None = None


class Custom(msgspec.Struct, gc=False):
    """A call of a custom tool: free text instead of arguments."""

    name: str | None = None
    input: str | None = None


class Call(msgspec.Struct, gc=False):
    """One entry of ``tool_calls``."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra_content: Any = None


class Delta(msgspec.Struct, gc=False):
    """``delta`` of a chunk, or ``message`` of a document. ``content`` is a list at Mistral."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = None
    refusal: str | None = None
    reasoning_details: list[Any] | None = None
    function_call: Function | None = None


class Choice(msgspec.Struct, gc=False):
    """One of ``choices``. ``stop_reason`` is vLLM's and ``matched_stop`` SGLang's word for what ended it."""

    delta: Delta | None = None
    index: int | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    message: Delta | None = None
    stop_reason: Any = None
    matched_stop: Any = None


class Chunk(msgspec.Struct, gc=False):
    """One chunk, but for what only the first of a stream is asked for."""

    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    status_code: Any = None


class Head(Chunk, gc=False):
    """A first chunk, or a document."""

    id: str | None = None
    model: str | None = None


read_head = msgspec.json.Decoder(Head).decode
"""The short way for a first chunk; raises `msgspec.DecodeError` for what is odd or broken."""

read_chunk = msgspec.json.Decoder(Chunk).decode
"""The same for the others."""


def read_odd(data: bytes) -> Head:
    """The chunk in data that the short way refused.

    Raises:
        ProtocolError: it is not a JSON object.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ProtocolError(f"The provider sent JSON that is not an object: {redact(str(value))[:120]!r}")
    choices = value.get("choices")
    return Head(
        choices=[_choice(item, at) for at, item in enumerate(choices) if isinstance(item, dict)]
        if isinstance(choices, list)
        else None,
        usage=value.get("usage"),
        id=_text(value.get("id")),
        model=_text(value.get("model")),
        error=value.get("error"),
        x_groq=value.get("x_groq"),
        status_code=value.get("status_code"),
    )


def _choice(value: dict[str, Any], position: int) -> Choice:
    index = _number(value.get("index"))
    return Choice(
        delta=_delta(value.get("delta")),
        index=position if index is None else index,
        finish_reason=_text(value.get("finish_reason")),
        logprobs=value.get("logprobs"),
        message=_delta(value.get("message")),
        stop_reason=value.get("stop_reason"),
        matched_stop=value.get("matched_stop"),
    )


def _delta(value: Any) -> Delta | None:
    if not isinstance(value, dict):
        return None
    content, calls, details = value.get("content"), value.get("tool_calls"), value.get("reasoning_details")
    return Delta(
        content=content if isinstance(content, list) else _text(content),
        reasoning_content=_text(value.get("reasoning_content")),
        reasoning=_text(value.get("reasoning")),
        tool_calls=[_call(item) for item in calls if isinstance(item, dict)] if isinstance(calls, list) else None,
        refusal=_text(value.get("refusal")),
        reasoning_details=details if isinstance(details, list) else None,
        function_call=_function(value.get("function_call")),
    )


def _call(value: dict[str, Any]) -> Call:
    custom = value.get("custom")
    return Call(
        index=_number(value.get("index")),
        id=_text(value.get("id")),
        function=_function(value.get("function")),
        custom=Custom(_text(custom.get("name")), _text(custom.get("input"))) if isinstance(custom, dict) else None,
        extra_content=value.get("extra_content"),
    )


def _function(value: Any) -> Function | None:
    if not isinstance(value, dict):
        return None
    arguments = value.get("arguments")
    return Function(_text(value.get("name")), arguments if isinstance(arguments, (dict, list)) else _text(arguments))


def _text(value: Any) -> str | None:
    """Text as it is; numbers and the like as they would print; None for null and for objects."""
    if value is None or isinstance(value, str):
        return value
    return None if isinstance(value, (dict, list, bool)) else str(value)


def _number(value: Any) -> int | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
