"""AWS event-stream framing (``application/vnd.amazon.eventstream``): bytes to messages, however they are cut.

A message is ``total length, length of the headers, CRC-32 of these eight bytes, headers, payload, CRC-32 of all before
it``; numbers are big-endian. The stream has no terminal message: what a whole answer is, only the content can say.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple
from zlib import crc32

from ...errors import EventTooLargeError, ProtocolError

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_LEAST = _PRELUDE.size + _CRC.size
_MAX_HEADERS = 128 << 10
_MAX_PAYLOAD = 24 << 20
_TRUE, _FALSE, _BYTES, _TEXT = 0, 1, 6, 7
_NUMBERS = {2: struct.Struct(">b"), 3: struct.Struct(">h"), 4: struct.Struct(">i"), 5: struct.Struct(">q")}
_NUMBERS[8] = _NUMBERS[5]  # a moment, in milliseconds since the epoch
_UUID = 9


class Frame(NamedTuple):
    """One message: its headers by name (``":event-type"`` ...), and its payload."""

    headers: dict[str, Any]
    payload: bytes


class FrameBuffer:
    """Holds the bytes of the message that is not whole yet."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def empty(self) -> bool:
        """Whether the bytes so far end where a message ends."""
        return not self._held

    def feed(self, chunk: bytes) -> list[Frame]:
        """The messages that ``chunk`` completes.

        Raises:
            ProtocolError: the bytes are no event stream, or were damaged on their way.
        """
        held = self._held
        held += chunk
        frames: list[Frame] = []
        start = 0
        while len(held) - start >= _PRELUDE.size:
            total, head, check = _PRELUDE.unpack_from(held, start)
            _check(total, head, check, crc32(held[start : start + 8]))
            if len(held) - start < total:
                break
            end = start + total - _CRC.size
            whole = bytes(held[start:end])
            if crc32(whole) != _CRC.unpack_from(held, end)[0]:
                raise ProtocolError("a message of the event stream was damaged on its way: its checksum is wrong")
            payload = _PRELUDE.size + head
            frames.append(Frame(_headers(whole[_PRELUDE.size : payload]), whole[payload:]))
            start += total
        del held[:start]
        return frames


def _check(total: int, head: int, check: int, computed: int) -> None:
    if check != computed:
        raise ProtocolError("this is not an AWS event stream (or it was damaged): the checksum of a prelude is wrong")
    if total < _LEAST or head > total - _LEAST:
        raise ProtocolError(f"a message of the event stream has impossible lengths ({total} and {head} bytes)")
    if head > _MAX_HEADERS or total - head - _LEAST > _MAX_PAYLOAD:
        raise EventTooLargeError(f"a message of the event stream is too large ({total} bytes)")


def _headers(data: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    at = 0
    try:
        while at < len(data):
            size = data[at]
            name = data[at + 1 : at + 1 + size].decode()
            at += 1 + size
            kind = data[at]
            headers[name], at = _value(kind, data, at + 1)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ProtocolError("the headers of a message of the event stream cannot be read") from error
    if at != len(data):
        raise ProtocolError("the headers of a message of the event stream are cut short")
    return headers


def _value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind in {_TEXT, _BYTES}:
        end = at + 2 + _LENGTH.unpack_from(data, at)[0]
        raw = data[at + 2 : end]
        return (raw.decode() if kind == _TEXT else raw), end
    if kind in {_TRUE, _FALSE}:
        return kind == _TRUE, at
    if kind == _UUID:
        return data[at : at + 16], at + 16
    number = _NUMBERS.get(kind)
    if number is None:
        raise ProtocolError(f"a header of the event stream has the unknown type {kind}")
    return number.unpack_from(data, at)[0], at + number.size
