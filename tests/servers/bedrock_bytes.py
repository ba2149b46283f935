"""Bedrock's side of the wire: AWS event-stream frames, and the answers of Converse and ConverseStream made of them."""

from __future__ import annotations

import json
import struct
from typing import Any
from zlib import crc32

from .canned import Answer, Step, answer, stream

REQUEST_ID = "0d8f2b6a-1111-2222-3333-444455556666"
_CONTENT_TYPE = "application/vnd.amazon.eventstream"


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message, all headers strings."""
    head = b"".join(
        bytes([len(name.encode())]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    whole = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return whole + struct.pack(">I", crc32(whole))


def event(name: str, **body: Any) -> bytes:
    """An event as the service sends it: padding key, compact JSON."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps({**body, "p": "abcdefgh"}, separators=(",", ":")).encode())


def exception(name: str, message: str = "no", **body: Any) -> bytes:
    """A modelled exception inside a stream."""
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message, **body}).encode())


def error(code: str, message: str) -> bytes:
    """An unmodelled error inside a stream: all headers, no payload."""
    return frame({":error-code": code, ":error-message": message, ":message-type": "error"}, b"")


def text(piece: str, block: int = 0) -> bytes:
    return event("contentBlockDelta", contentBlockIndex=block, delta={"text": piece})


def begin() -> bytes:
    return event("messageStart", role="assistant")


def finish(reason: str = "end_turn", **usage: int) -> bytes:
    counted = {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10, **usage}
    return event("messageStop", stopReason=reason) + event("metadata", usage=counted, metrics={"latencyMs": 12})


def words(*pieces: str) -> bytes:
    """A whole stream of text."""
    stop = event("contentBlockStop", contentBlockIndex=0)
    return begin() + b"".join(map(text, pieces)) + stop + finish()


def streamed(*steps: Step) -> Answer:
    """The HTTP answer of ConverseStream."""
    return stream(*steps, headers={"x-amzn-requestid": REQUEST_ID}, content_type=_CONTENT_TYPE)


def document(*blocks: dict[str, Any], reason: str = "end_turn", **more: Any) -> Answer:
    """The HTTP answer of Converse."""
    body = {
        "output": {"message": {"role": "assistant", "content": list(blocks)}},
        "stopReason": reason,
        "usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10},
        "metrics": {"latencyMs": 12},
        **more,
    }
    return answer(json.dumps(body).encode(), headers={"x-amzn-requestid": REQUEST_ID})


def refusal(status: int, name: str, message: str = "no", **body: Any) -> Answer:
    """An exception before the stream."""
    headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/x/", "x-amzn-requestid": REQUEST_ID}
    return answer(json.dumps({"message": message, **body}).encode(), status=status, headers=headers)
