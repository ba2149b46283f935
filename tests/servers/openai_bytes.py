"""The bytes of OpenAI's chat completions, as the fake provider sends them."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from .provider import FakeProvider

PIECES = re.compile(r"\s*\S+\s*$|\s*\S+")
"""A token here: a word with the blanks before it (the last one with those after it, too)."""

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Reply:
    """One answer. ``tool_calls`` are ``{"id", "type", "function": {"name", "arguments"}}``."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = "stop"


def _usage(body: dict[str, Any], tokens: int) -> dict[str, int]:
    prompt = sum(len(str(message.get("content") or "").split()) for message in body.get("messages", []))
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def stream_writes(
    provider: FakeProvider, body: dict[str, Any], reply: Reply, rate: dict[str, str]
) -> deque[tuple[bytes, int]]:
    base = {
        "id": f"chatcmpl-{provider.stats.served}",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": body.get("model", ""),
    }
    choices = range(body.get("n") or 1)
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    deltas: list[dict[str, Any]] = []
    if reply.reasoning:
        deltas += [{"reasoning_content": piece} for piece in PIECES.findall(reply.reasoning)]
    if reply.text or not (reply.reasoning or reply.tool_calls):
        deltas += [{"content": piece} for piece in provider.pieces(reply.text)]
    deltas += [{"tool_calls": [{"index": i, **call}]} for i, call in enumerate(reply.tool_calls)]

    def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
        return b"".join(
            b"data: %b\n\n" % _encode({**base, "choices": [{"index": i, "delta": delta, "finish_reason": reason}]})
            for i in choices
        )

    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n%b\r\n" % _lines(
        {"x-request-id": f"req-{provider.stats.served}", **rate}
    )
    writes: deque[tuple[bytes, int]] = deque([(head, 0)])
    deltas[0] = {"role": "assistant", **deltas[0]}
    for start in range(0, len(deltas), provider.coalesce):
        group = deltas[start : start + provider.coalesce]
        writes.append((_chunk(b"".join(map(event, group))), len(group)))
    last = event({}, "tool_calls" if reply.tool_calls else reply.finish_reason)
    if provider.usage == "always" or (provider.usage == "asked" and asked):
        counted = _usage(body, len(deltas) * len(choices))
        last += b"data: %b\n\n" % _encode({**base, "choices": [], "usage": counted})
    if provider.done:
        last += b"data: [DONE]\n\n"
    writes.append((_chunk(last) + b"0\r\n\r\n", 0))
    return writes


def document(provider: FakeProvider, body: dict[str, Any], reply: Reply, rate: dict[str, str]) -> bytes:
    pieces = provider.pieces(reply.text) if reply.text else []
    message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces) if pieces else None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = reply.tool_calls
    reason = "tool_calls" if reply.tool_calls else reply.finish_reason
    count = body.get("n") or 1
    whole = {
        "id": f"chatcmpl-{provider.stats.served}",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", ""),
        "choices": [{"index": i, "message": message, "finish_reason": reason} for i in range(count)],
    }
    if provider.usage != "never":
        whole["usage"] = _usage(body, len(pieces) * count)
    return response(200, _encode(whole), {"x-request-id": f"req-{provider.stats.served}", **rate})


def _lines(headers: dict[str, str] | None) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode("latin-1")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def response(status: int, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b" % (
        status,
        len(body),
        _lines(headers),
        body,
    )
