"""The SSE decoder against the WHATWG rules, told once more in the plainest way, under every way to cut the bytes."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncinfer.errors import EventTooLargeError
from asyncinfer.wire.sse import SSEDecoder, encode_comment, encode_sse


def plain_reading(body: bytes) -> list[tuple[str, bytes]]:
    """The standard's algorithm on a whole body, and the event that its end cut off."""
    lines = re.split(rb"\r\n|\n|\r", body.removeprefix(b"\xef\xbb\xbf"))
    events, name, data = [], "", []
    for line in [*lines, b""]:
        if not line:
            if data:
                events.append((name, b"\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return events


def cut(body: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[a:b] for a, b in pairwise(at)]


def read(chunks: list[bytes]) -> list[tuple[str, bytes]]:
    decoder = SSEDecoder()
    events = [event for chunk in chunks for event in decoder.feed_named(chunk)]
    return events + decoder.close_named()


CASES = {
    "lf": b"data: a\n\ndata: b\n\n",
    "crlf": b"data: a\r\n\r\ndata: b\r\n\r\n",
    "cr": b"data: a\r\rdata: b\r\r",
    "mixed ends": b"data: a\n\r\ndata: b\r\n\ndata: c\r\n\rdata: d\n\n",
    "bom": b"\xef\xbb\xbfdata: a\n\n",
    "two boms": b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
    "comment": b": keep-alive\n\n: x\ndata: a\n: y\ndata: b\n\n",
    "many lines": b"data: a\ndata: b\ndata:\ndata: d\n\n",
    "no space": b"data:a\n\ndata:  b\n\n",
    "no colon": b"data\n\ndata\ndata\n\n",
    "names": b"event: x\ndata: a\n\ndata: b\n\nevent: y\n\ndata: c\n\n",
    "name after data": b"data: a\nevent: x\n\ndata: b\n\n",
    "other fields": b"id: 7\nretry: 10\nfoo: bar\ndata: a\n\n",
    "blank lines": b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n",
    "no last blank line": b"data: a\n\ndata: b\n",
    "no last line end": b"data: a\n\ndata: b",
    "utf-8": "data: Zoë 中文 🙂\n\ndata: ü\n\n".encode(),
    "empty": b"",
    "only a bom": b"\xef\xbb\xbf",
    "half a bom": b"\xef\xbb",
    "data inside data": b"data: data: a\n\ndata: x\n\ndata: y\n\n",
}


@pytest.mark.parametrize("body", CASES.values(), ids=CASES)
def test_events_do_not_depend_on_the_cuts(body):
    expected = plain_reading(body)
    assert read([body]) == expected
    assert read([body[i : i + 1] for i in range(len(body))]) == expected
    for place in range(len(body)):
        assert read([body[:place], body[place:]]) == expected


@given(
    st.lists(
        st.sampled_from(
            [
                b"data: ",
                b"data:",
                b"data",
                b"event: e",
                b": c",
                b"{}",
                b"x",
                b"\n",
                b"\n\n",
                b"\r\n",
                b"\r",
                b"\xf0\x9f",
            ]
        ),
        max_size=30,
    ),
    st.lists(st.integers(0, 200), max_size=8),
)
@example([b"data: ", b"x", b"\r", b"\n", b"\n", b"data: ", b"{}", b"\n\n"], [9])
@settings(max_examples=400, deadline=None)
def test_any_bytes_cut_anywhere(pieces, places):
    body = b"".join(pieces)
    assert read(cut(body, places)) == plain_reading(body)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes(body, places):
    assert read(cut(body, places)) == plain_reading(body)


def test_id_and_retry_are_remembered():
    decoder = SSEDecoder()
    decoder.feed(b"id: 7\nretry: 1500\ndata: a\n\nid: bad\0id\nretry: soon\n\n")
    assert (decoder.last_event_id, decoder.retry) == ("7", 1500)


def test_the_unterminated_event_is_the_codecs_to_judge():
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\n\ndata: b") == [b"a"]
    assert decoder.close() == [b"b"]
    assert decoder.close() == []


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
@pytest.mark.parametrize(
    "body",
    [
        b"data: " + b"x" * 2000,
        b"data: x\n" * 600,
        b": " + b"c" * 2000,
        b"data\n" * 1100,
        b"data: " + b"x" * 2000 + b"\n\n",
    ],
    ids=["one line", "many lines", "comment", "empty lines", "a whole event"],
)
def test_memory_is_bounded_however_the_event_arrives(body, size):
    decoder = SSEDecoder(max_event_bytes=1000)
    with pytest.raises(EventTooLargeError, match="1000 bytes"):
        for at in range(0, len(body), size):
            decoder.feed(body[at : at + size])


def test_many_small_events_pass_a_small_bound():
    decoder = SSEDecoder(max_event_bytes=1000)
    body = b"data: " + b"x" * 90 + b"\n\n"
    assert decoder.feed(body * 100) == [b"x" * 90] * 100
    assert [event for _ in range(100) for event in decoder.feed(body[:50]) + decoder.feed(body[50:])] == [
        b"x" * 90
    ] * 100


def test_a_growing_line_is_not_looked_at_again():
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    for _ in range(1000):
        decoder.feed(b"x" * 100)
    # Pieces are only put aside: nothing was joined before the line end came.
    assert len(decoder._pieces) == 1001
    assert decoder.feed(b"\n\n") == [b"x" * 100_000]
    assert decoder._pieces == []


@given(st.text(), st.one_of(st.none(), st.text("abc_", min_size=1)))
@settings(max_examples=200, deadline=None)
def test_what_is_encoded_is_decoded(text, name):
    body = encode_comment() + encode_sse(text.encode(), name)
    lines = re.sub("\r\n|\r", "\n", text).encode()
    assert read([body]) == [(name or "", lines)]


def test_a_comment_is_no_event():
    assert read([encode_comment("a\nb"), encode_sse(b"x")]) == [("", b"x")]
