"""The server's side of the Messages format: write a stream, a document or an error.

Writing is strict: blocks come one after the other and are closed, ``event:`` always says what ``data.type`` says, every
field that a client indexes is there. One answer only: the format has no ``n``.

Rule: no clock and no random numbers: ids come from the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import (
    APIError,
    AsyncInferError,
    ConfigError,
    DeadlineError,
    EngineError,
    OverloadedError,
    StreamInterrupted,
    TransportError,
)
from ...events import Event, Finish, FinishReason, ReasoningDelta, Start, TextDelta, ToolCallDelta, Usage, UsageUpdate
from ..sse import encode_sse
from .blocks import THINKING, Block
from .usage import stop_words, write_usage

if TYPE_CHECKING:
    from collections.abc import Iterable

_json = msgspec.json.Encoder().encode

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""Keeps the connection and the other side's clocks quiet; allowed between any two events."""

_EMPTY: dict[str, Block] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


class MessagesEncoder:
    """Writes one answer, as a stream (`encode` ... `close`) or as one `document`.

    Args:
        answer_id: the answer's id (``msg_...``).
        model: the name to echo.
        input_tokens: what the head of a stream says of the prompt, until the real count is known.
    """

    def __init__(self, answer_id: str, model: str, *, input_tokens: int = 0) -> None:
        self._id = answer_id
        self._model = model
        self._usage = Usage(input_tokens=input_tokens)
        self._begun = False
        self._index = -1
        self._open: str | None = None  # kind of the open block
        self._call: int | None = None  # number of the call that the open block is
        self._finish: Finish | None = None

    def encode(self, event: Event) -> bytes:
        """The bytes of one event; empty for what is written later (usage, the reason)."""
        if isinstance(event, TextDelta):
            if event.index or not event.text:
                return b""
            return self._begin("text") + self._delta({"type": "text_delta", "text": event.text})
        if isinstance(event, UsageUpdate):
            self._usage = event.usage
            return b""
        if isinstance(event, Start):
            return b""  # the head waits for the first content: usage often comes between
        if event.index:
            return b""
        if isinstance(event, Finish):
            self._finish = event
            return b""
        return self._reasoning(event) if isinstance(event, ReasoningDelta) else self._tool(event)

    def close(self) -> bytes:
        """The end of a stream: the open block, the reason, the usage."""
        reason, matched = stop_words(self._finish or Finish(FinishReason.UNKNOWN))
        end = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": matched},
            "usage": write_usage(self._usage),
        }
        return self._head() + self._end_block() + _event(end) + _event({"type": "message_stop"})

    def error(self, error: AsyncInferError) -> bytes:
        """The end of a stream that failed after its head was sent."""
        return encode_sse(error_response(error)[2], "error")

    def document(self, events: Iterable[Event]) -> bytes:
        """The whole answer as one JSON document."""
        content: list[Block] = []
        details: list[Block] = []
        for event in events:
            if isinstance(event, UsageUpdate):
                self._usage = event.usage
            elif isinstance(event, Start) or event.index:
                continue
            elif isinstance(event, Finish):
                self._finish = event
            else:
                _add(content, event)
                details += _blocks(event.details) if isinstance(event, ReasoningDelta) else []
        if any(block["type"] not in THINKING for block in details):
            content = details  # a turn of an order of its own is whole in there: see `decode`
        for block in content:
            if isinstance(block.get("input"), str):
                block["input"] = _object(block["input"])
        reason, matched = stop_words(self._finish or Finish(FinishReason.UNKNOWN))
        return _json(
            {**self._message(), "content": content, "stop_reason": reason, "stop_sequence": matched}
            | {"usage": write_usage(self._usage)}
        )

    # -- the stream ----------------------------------------------------------------------------------------------------

    def _message(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": write_usage(self._usage),
        }

    def _head(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _event({"type": "message_start", "message": self._message()})

    def _begin(self, kind: str, block: Block | None = None) -> bytes:
        """Have a block of a kind open; a given block always begins a new one."""
        if self._open == kind and block is None:
            return b""
        closed = self._head() + self._end_block()
        self._index += 1
        self._open = kind
        start = {"type": "content_block_start", "index": self._index, "content_block": block or _EMPTY[kind]}
        return closed + _event(start)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _end_block(self) -> bytes:
        if self._open is None:
            return b""
        self._open = self._call = None
        return _event({"type": "content_block_stop", "index": self._index})

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        out = b""
        if event.text:
            out = self._begin("thinking") + self._delta({"type": "thinking_delta", "thinking": event.text})
        for block in _blocks(event.details):
            kind = block.get("type")
            if kind == "thinking":
                out += self._begin("thinking")
                if block.get("signature"):
                    out += self._delta({"type": "signature_delta", "signature": block["signature"]})
                out += self._end_block()
            elif kind == "text":
                out += self._end_text(block)
            elif kind != "tool_use":  # it comes whole: redacted thinking, the provider's own tools
                out += self._begin(str(kind), block) + self._end_block()
        return out

    def _end_text(self, block: Block) -> bytes:
        """A text that is over, with its citations if it is still open."""
        if self._open != "text":
            return b""
        cited = [
            self._delta({"type": "citations_delta", "citation": citation}) for citation in block.get("citations") or ()
        ]
        return b"".join(cited) + self._end_block()

    def _tool(self, event: ToolCallDelta) -> bytes:
        out = b""
        if self._open != "tool_use" or self._call != event.call:
            name, call_id = event.name or "", event.id or f"toolu_{event.call}"
            out = self._begin("tool_use", {"type": "tool_use", "id": call_id, "name": name, "input": {}})
            self._call = event.call
        if event.arguments:
            out += self._delta({"type": "input_json_delta", "partial_json": event.arguments})
        return out


# -- the document ------------------------------------------------------------------------------------------------------


def _add(content: list[Block], event: TextDelta | ReasoningDelta | ToolCallDelta) -> None:
    last = content[-1] if content else {}
    if isinstance(event, TextDelta):
        if last.get("type") == "text":
            last["text"] += event.text
        elif event.text:
            content.append({"type": "text", "text": event.text})
    elif isinstance(event, ToolCallDelta):
        calls = [block for block in content if block["type"] == "tool_use"]
        if event.call >= len(calls):
            call_id = event.id or f"toolu_{event.call}"
            content.append({"type": "tool_use", "id": call_id, "name": event.name or "", "input": event.arguments})
        else:
            calls[event.call]["input"] += event.arguments
    else:
        _add_reasoning(content, event)


def _add_reasoning(content: list[Block], event: ReasoningDelta) -> None:
    """Text extends the open thinking block; details close it, or are whole blocks themselves."""
    last = content[-1] if content else {}
    if event.text:
        if last.get("type") == "thinking" and not last["signature"]:
            last["thinking"] += event.text
        else:
            content.append({"type": "thinking", "thinking": event.text, "signature": ""})
    for block in _blocks(event.details):
        last = content[-1] if content else {}
        if block["type"] == "redacted_thinking":
            content.append(block)
        elif block["type"] == "thinking":
            if last.get("type") == "thinking" and not last["signature"]:
                last["signature"] = block.get("signature", "")
            else:
                content.append({"type": "thinking", "thinking": "", "signature": block.get("signature", "")})


def _blocks(details: Any) -> list[Block]:
    """The blocks of this format among reasoning details; those of other formats say nothing here."""
    found = details if isinstance(details, list) else [details]
    return [dict(block) for block in found if isinstance(block, dict) and _is_block(str(block.get("type")))]


def _is_block(kind: str) -> bool:
    return kind in THINKING or kind in {"text", "tool_use"} or kind.endswith(("_tool_use", "_tool_result"))


def _object(text: str) -> Any:
    try:
        value = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": text}


def _event(value: dict[str, Any]) -> bytes:
    return encode_sse(_json(value), value["type"])


# -- errors ------------------------------------------------------------------------------------------------------------

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_response(error: AsyncInferError) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that tell a client of an error, with what it needs to try again wisely."""
    status = _error_status(error)
    headers = {"content-type": "application/json", "x-should-retry": "true" if error.retryable else "false"}
    if error.retry_after is not None:
        headers["retry-after"] = str(max(0, -int(-error.retry_after // 1)))
        headers["retry-after-ms"] = str(int(error.retry_after * 1000))
    if error.request_id:
        headers["request-id"] = error.request_id
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": error.message}}
    body["request_id"] = error.request_id
    return status, headers, _json(body)


def _error_status(error: AsyncInferError) -> int:
    if isinstance(error, OverloadedError):
        return 529
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
