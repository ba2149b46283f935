"""Event-stream framing, beside botocore's own parser."""

from __future__ import annotations

import struct
from contextlib import suppress
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.errors import EventTooLargeError, ProtocolError
from asyncinfer.wire.bedrock.frames import Frame, FrameBuffer
from tests.servers.bedrock_bytes import event, frame

KNOWN = bytes.fromhex(
    "00000081000000526cc17693"
    "0b3a6576656e742d7479706507000c6d6573736167655374617274"
    "0d3a636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e"
    "0d3a6d6573736167652d747970650700056576656e74"
    "7b2270223a2261626364222c22726f6c65223a22617373697374616e74227d"
    "f512a005"
)


def raw(head: bytes, payload: bytes = b"", total: int | None = None, length: int | None = None) -> bytes:
    """A message with right checksums and whatever lengths."""
    size = 16 + len(head) + len(payload) if total is None else total
    prelude = struct.pack(">II", size, len(head) if length is None else length)
    whole = prelude + struct.pack(">I", crc32(prelude)) + head + payload
    return whole + struct.pack(">I", crc32(whole))


def botocore_reads(data: bytes) -> list[Frame]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [Frame(dict(found.headers), found.payload) for found in buffer]


def test_a_known_frame() -> None:
    [found] = FrameBuffer().feed(KNOWN)
    assert found.headers == {
        ":event-type": "messageStart",
        ":content-type": "application/json",
        ":message-type": "event",
    }
    assert found.payload == b'{"p":"abcd","role":"assistant"}'


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.text("abc:-é", min_size=1, max_size=9), st.text(max_size=20), max_size=4),
            st.binary(max_size=60),
        ),
        max_size=5,
    ),
    st.data(),
)
def test_frames_are_read_as_botocore_reads_them_however_they_are_cut(
    frames: list[tuple[dict[str, str], bytes]], data: st.DataObject
) -> None:
    stream = b"".join(frame(headers, payload) for headers, payload in frames)
    expected = [Frame(headers, payload) for headers, payload in frames]
    assert botocore_reads(stream) == expected
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    buffer = FrameBuffer()
    found = [
        read
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for read in buffer.feed(stream[start:end])
    ]
    assert found == expected
    assert buffer.empty
    buffer = FrameBuffer()
    assert [read for byte in stream for read in buffer.feed(bytes([byte]))] == expected


def test_every_type_of_header() -> None:
    head = b"".join(
        bytes([len(name)]) + name + value
        for name, value in (
            (b"t", b"\x00"),
            (b"f", b"\x01"),
            (b"i8", b"\x02" + struct.pack(">b", -3)),
            (b"i16", b"\x03" + struct.pack(">h", -300)),
            (b"i32", b"\x04" + struct.pack(">i", -70000)),
            (b"i64", b"\x05" + struct.pack(">q", -(2**40))),
            (b"b", b"\x06" + struct.pack(">H", 2) + b"\xff\x00"),
            (b"s", b"\x07" + struct.pack(">H", 2) + "é".encode()),
            (b"w", b"\x08" + struct.pack(">q", 1_700_000_000_000)),
            (b"u", b"\x09" + bytes(range(16))),
        )
    )
    [found] = FrameBuffer().feed(raw(head))
    assert found.headers == botocore_reads(raw(head))[0].headers
    assert found.headers["i32"] == -70000


@given(st.integers(0, len(KNOWN) - 1), st.integers(1, 255))
def test_damage_is_never_read(at: int, change: int) -> None:
    damaged = bytearray(KNOWN)
    damaged[at] ^= change
    with pytest.raises(ProtocolError):
        FrameBuffer().feed(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n",
        raw(b"", total=12),
        raw(b"", length=99),
        raw(b"\x05ab"),
        raw(b"\x01a\x63"),
        raw(b"\x01a\x07\x00\xff"),
        raw(b"\x01a"),
        raw(b"\x01\xff\x00"),
    ],
)
def test_what_is_no_event_stream(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameBuffer().feed(data)


@pytest.mark.parametrize(("total", "length"), [(30 << 20, 10), (1 << 20, 200 << 10)])
def test_a_message_without_bound_is_not_waited_for(total: int, length: int) -> None:
    with pytest.raises(EventTooLargeError):
        FrameBuffer().feed(raw(b"", total=total, length=length))


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waited_for(noise: bytes) -> None:
    with suppress(ProtocolError):
        FrameBuffer().feed(noise)


def test_many_small_frames_in_one_chunk() -> None:
    one = event("contentBlockDelta", contentBlockIndex=0, delta={"text": "x"})
    assert len(FrameBuffer().feed(one * 2000)) == 2000
