"""The shape of one streamed event, and how odd ones are brought into it.

`Chunk` names only what is needed; msgspec skips the rest of the bytes. An event that is good JSON of an odd type is not
an error: `read_odd` takes the slow way and makes the same `Chunk` of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import ProtocolError
from ..lenient import parse_json
from ..status import redact


class Delta(msgspec.Struct, gc=False):
    """``delta`` of a ``content_block_delta`` or of a ``message_delta``."""

    type: str | None = None
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Any = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event, or a whole document, whose own ``type`` is ``message``."""

    type: str | None = None
    index: int | None = None
    delta: Delta | None = None
    content_block: Any = None
    message: Any = None
    usage: Any = None
    error: Any = None


read_chunk = msgspec.json.Decoder(Chunk).decode
"""The short way; raises `msgspec.DecodeError` for what is odd or broken."""


def read_odd(data: bytes) -> Chunk:
    """The event in data that the short way refused.

    Raises:
        ProtocolError: it is not a JSON object.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ProtocolError(f"The provider sent JSON that is not an object: {redact(str(value))[:120]!r}")
    index = value.get("index")
    return Chunk(
        type=text_of(value.get("type")),
        index=int(index) if isinstance(index, (int, float)) and index == index and abs(index) < 1e9 else None,  # noqa: PLR0124  NaN
        delta=_delta(value.get("delta")),
        content_block=value.get("content_block"),
        message=value.get("message"),
        usage=value.get("usage"),
        error=value.get("error"),
    )


def _delta(value: Any) -> Delta | None:
    if not isinstance(value, dict):
        return None
    return Delta(
        type=text_of(value.get("type")),
        text=text_of(value.get("text")),
        partial_json=text_of(value.get("partial_json")),
        thinking=text_of(value.get("thinking")),
        signature=text_of(value.get("signature")),
        citation=value.get("citation"),
        stop_reason=text_of(value.get("stop_reason")),
        stop_sequence=text_of(value.get("stop_sequence")),
    )


def text_of(value: Any) -> str | None:
    """Text, made whole where it holds half a surrogate pair; None for everything else."""
    if not isinstance(value, str):
        return None
    if value.isascii():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
