"""The server's side of Chat Completions: read a client's request, write a stream, a document or an error.

Reading is tolerant, as clients need it: unknown fields are left aside, ``null`` means unset, both names of the token
maximum are understood, content may be text or parts for every role. Writing is strict, as clients need it too: every
field that an OpenAI client indexes is there, arguments are text, nothing is NaN.

Rule: no clock and no random numbers: ids and times come from the caller. No file named in a request is ever read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...conversation import Conversation
from ...errors import (
    APIError,
    AsyncInferError,
    BadRequestError,
    ConfigError,
    DeadlineError,
    EngineError,
    StreamInterrupted,
    TransportError,
)
from ...events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from ...params import GenerationParams
from ..sse import encode_sse
from .usage import write_usage

if TYPE_CHECKING:
    from collections.abc import Iterable

_PARAMS = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty",
    "repeat_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop_strings",
    "stop_token_ids": "stop_token_ids",
    "logit_bias": "logit_bias",
    "n": "n",
    "logprobs": "logprobs",
    "top_logprobs": "top_logprobs",
    "reasoning_effort": "reasoning_effort",
    "min_tokens": "min_new_tokens",
    "skip_special_tokens": "skip_special_tokens",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
}
_WORDS = {FinishReason.REFUSAL: "stop", FinishReason.CONTEXT_OVERFLOW: "length"}
_KNOWN = {"model", "messages", "tools", "functions", "stream", "stream_options", "response_format", "user", *_PARAMS}
_json = msgspec.json.Encoder().encode

DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""


class ChatRequest(msgspec.Struct):
    """What a client asked for.

    Attributes:
        model: the model's name as the client gave it.
        conversation: messages and tools.
        generation: sampling parameters; only what the client sent is set.
        stream, include_usage: how the answer is to be written.
        user: the client's own user id, or None.
        extra: fields that are not understood, as sent.
    """

    model: str
    conversation: Conversation
    generation: GenerationParams
    stream: bool = False
    include_usage: bool = False
    user: str | None = None
    extra: dict[str, Any] = {}


def parse_chat_request(body: bytes) -> ChatRequest:
    """Read the body of a ``POST /chat/completions``.

    Raises:
        BadRequestError: it is not one; ``status`` 400, and the message names the field.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _bad("the body must be a JSON object")
    model, messages = value.get("model"), value.get("messages")
    if not isinstance(model, str) or not model:
        raise _bad("model: name a model, as text")
    if not isinstance(messages, list) or not messages:
        raise _bad("messages: give a list with at least one message")
    options = value.get("stream_options")
    user = value.get("user")
    try:
        return ChatRequest(
            model=model,
            conversation=_conversation(messages, value),
            generation=_generation(value),
            stream=bool(value.get("stream")),
            include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
            user=user if isinstance(user, str) else None,
            extra={name: field for name, field in value.items() if name not in _KNOWN},
        )
    except ConfigError as error:
        raise _bad(error.message) from error


def _bad(message: str) -> BadRequestError:
    return BadRequestError(message, status=400, code="invalid_request_error")


def _conversation(messages: list[Any], value: dict[str, Any]) -> Conversation:
    document: dict[str, Any] = {"messages": [_message(message, at) for at, message in enumerate(messages)]}
    tools = value.get("tools") or [
        {"type": "function", "function": function} for function in value.get("functions") or ()
    ]
    if tools:
        document["tools"] = tools
    return Conversation.from_dict(document)


def _message(message: Any, at: int) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise _bad(f"messages[{at}]: a message must be an object")
    read = {key: field for key, field in message.items() if field is not None}
    calls = read.get("tool_calls")
    if calls is not None and not calls:
        del read["tool_calls"]
    if read.get("role") == "function":
        read["role"] = "tool"
    if "content" not in read and not calls:
        read["content"] = ""
    return read


def _generation(value: dict[str, Any]) -> GenerationParams:
    asked = {ours: value[wire] for wire, ours in _PARAMS.items() if value.get(wire) is not None}
    shape = _shape(value)
    if shape:
        asked["guided_decoding"] = shape
    return GenerationParams(**asked)


def _shape(value: dict[str, Any]) -> dict[str, Any] | None:
    """The form that the answer must have, in OpenAI's spelling or in vLLM's."""
    wanted: Any = value.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return {"json": wanted.get("schema") or {"type": "object"}}
    if kind == "json_schema":
        named = wanted.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else wanted.get("schema")
        if not isinstance(schema, dict):
            raise _bad("response_format.json_schema.schema: give a JSON Schema, an object")
        return {"json": schema, "strict": bool(isinstance(named, dict) and named.get("strict"))}
    outputs = value.get("structured_outputs")
    if isinstance(outputs, dict):
        return {key: outputs[key] for key in ("json", "regex", "choice", "grammar") if outputs.get(key) is not None}
    return None


class ChatEncoder:
    """Writes one answer, as a stream (`encode` ... `close`) or as one `document`.

    Args:
        answer_id: constant over the answer (``chatcmpl-...``).
        model: the name to echo.
        created: seconds since the epoch.
        include_usage: end a stream with a chunk that has the usage.
    """

    def __init__(self, answer_id: str, model: str, created: int, *, include_usage: bool = False) -> None:
        self._base = {"id": answer_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._include_usage = include_usage
        self._begun: set[int] = set()
        self._usage: Usage | None = None
        head = _json(self._base)[:-1] + b',"choices":[{"index":%d,"delta":{"content":'
        self._text_head = b"data: " + head.replace(b"%", b"%%").replace(b'"index":%%d', b'"index":%d')
        self._text_tail = b'},"logprobs":null,"finish_reason":null}]' + self._no_usage() + b"}\n\n"

    def _no_usage(self) -> bytes:
        return b',"usage":null' if self._include_usage else b""

    def encode(self, event: Event) -> bytes:
        """The bytes of one event; empty for what is written later (usage)."""
        if type(event) is TextDelta and event.logprobs is None and event.index in self._begun:
            return self._text_head % event.index + _json(event.text) + self._text_tail
        if isinstance(event, Start):
            return self._chunk(0, {})
        if isinstance(event, UsageUpdate):
            self._usage = event.usage
            return b""
        if isinstance(event, Finish):
            return self._chunk(event.index, {}, finish_reason=finish_word(event.reason))
        logprobs = event.logprobs if isinstance(event, TextDelta) else None
        return self._chunk(event.index, _delta(event), logprobs=logprobs)

    def close(self) -> bytes:
        """The end of a stream: the usage chunk, if it was asked for, and ``[DONE]``."""
        if not self._include_usage:
            return DONE
        usage = write_usage(self._usage or Usage())
        return encode_sse(_json({**self._base, "choices": [], "usage": usage})) + DONE

    def error(self, error: AsyncInferError) -> bytes:
        """The end of a stream that failed after its head was sent."""
        return encode_sse(error_response(error)[2]) + DONE

    def _chunk(
        self, index: int, delta: dict[str, Any], *, logprobs: Any = None, finish_reason: str | None = None
    ) -> bytes:
        if index not in self._begun:
            self._begun.add(index)
            delta = {"role": "assistant", "content": "", **delta}
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
            "finish_reason": finish_reason,
        }
        chunk: dict[str, Any] = {**self._base, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        return encode_sse(_json(chunk))

    def document(self, events: Iterable[Event]) -> bytes:
        """The whole answer as one JSON document."""
        choices: dict[int, dict[str, Any]] = {}
        usage = Usage()
        for event in events:
            if isinstance(event, UsageUpdate):
                usage = event.usage
            elif not isinstance(event, Start):
                choice = choices.setdefault(event.index, _empty_choice(event.index))
                _add(choice, event)
        return _json(
            {
                **self._base,
                "object": "chat.completion",
                "choices": [choice for _, choice in sorted(choices.items())],
                "usage": write_usage(usage),
            }
        )


def finish_word(reason: FinishReason) -> str:
    """Our reason in the words that clients of this format know."""
    return _WORDS.get(reason, reason.value)


def _delta(event: TextDelta | ReasoningDelta | ToolCallDelta) -> dict[str, Any]:
    if isinstance(event, TextDelta):
        return {"content": event.text}
    if isinstance(event, ReasoningDelta):
        delta: dict[str, Any] = {"reasoning_content": event.text}
        if event.details is not None:
            delta["reasoning_details"] = event.details
        return delta
    function = {"arguments": event.arguments}
    call: dict[str, Any] = {"index": event.call, "function": function}
    if event.name is not None:
        function["name"] = event.name
    if event.id is not None:
        call["id"] = event.id
    if event.id is not None or event.name is not None:
        call["type"] = "function"
    if event.extra is not None:
        call["extra_content"] = event.extra
    return {"tool_calls": [call]}


def _empty_choice(index: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": None}


def _add(choice: dict[str, Any], event: TextDelta | ReasoningDelta | ToolCallDelta | Finish) -> None:
    message = choice["message"]
    if isinstance(event, TextDelta):
        message["content"] = (message["content"] or "") + event.text
        if event.logprobs is not None:
            choice["logprobs"] = choice["logprobs"] or {"content": [], "refusal": None}
            choice["logprobs"]["content"].extend(event.logprobs)
    elif isinstance(event, ReasoningDelta):
        message["reasoning_content"] = message.get("reasoning_content", "") + event.text
        if event.details is not None:
            message.setdefault("reasoning_details", []).extend(event.details)
    elif isinstance(event, Finish):
        choice["finish_reason"] = finish_word(event.reason)
    else:
        calls = message.setdefault("tool_calls", [])
        while len(calls) <= event.call:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[event.call]
        call["id"] = event.id or call["id"]
        call["function"]["name"] = event.name or call["function"]["name"]
        call["function"]["arguments"] += event.arguments
        if event.extra is not None:
            call["extra_content"] = event.extra


def error_response(error: AsyncInferError) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that tell a client of an error, with what it needs to try again wisely."""
    status = _error_status(error)
    kind = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    headers = {"content-type": "application/json", "x-should-retry": "true" if error.retryable else "false"}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(0, -int(-error.retry_after // 1)))
        headers["retry-after-ms"] = str(int(error.retry_after * 1000))
    body = {
        "error": {
            "message": error.message,
            "type": kind.get(status, "invalid_request_error" if status < 500 else "server_error"),
            "param": error.path if isinstance(error, ConfigError) else None,
            "code": error.code,
        }
    }
    return status, headers, _json(body)


def _error_status(error: AsyncInferError) -> int:
    if isinstance(error, APIError) and error.status is not None and error.status >= 400:
        return error.status
    table: tuple[tuple[type[AsyncInferError], int], ...] = (
        (ConfigError, 400),
        (DeadlineError, 504),
        (EngineError, 503),
        (TransportError, 502),
        (StreamInterrupted, 502),
    )
    return next((status for kind, status in table if isinstance(error, kind)), 500)
