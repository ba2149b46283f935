"""Answers of all providers, under every way to cut their bytes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import AsyncInferError, EventTooLargeError, ProtocolError, RetryKind, StreamTruncated
from asyncinfer.events import Finish, FinishReason, Start, TextDelta, Usage
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.openai_chat.decode import ChatDecoder
from asyncinfer.wire.openai_chat.usage import read_usage, write_usage

from .answers import CASES, Case, chunk, document, sse
from .requests import make_request


def replay(case: Case, chunks: list[bytes]):
    decoder = ChatDecoder(case.choices, ends_at_eof=case.ends_at_eof)
    events = []
    try:
        for piece in chunks:
            events += decoder.feed(piece)
        events += decoder.close()
        events += decoder.close()  # a second end says nothing new, or the same error again
    except AsyncInferError as error:
        return events, type(error)
    return events, None


@pytest.mark.parametrize("name", CASES)
def test_the_events_are_the_same_however_the_bytes_come(name):
    case = CASES[name]
    expected = (case.events, case.raises)
    assert replay(case, [case.body]) == expected
    assert replay(case, [case.body[i : i + 1] for i in range(len(case.body))]) == expected
    for size in (2, 3, 7, 64):
        assert replay(case, [case.body[i : i + size] for i in range(0, len(case.body), size)]) == expected


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 2000), max_size=6))
@settings(max_examples=300, deadline=None)
def test_random_splits(name, places):
    case = CASES[name]
    at = sorted({0, len(case.body), *(place % (len(case.body) + 1) for place in places)})
    chunks = [case.body[a:b] for a, b in pairwise(at)]
    assert replay(case, chunks) == (case.events, case.raises)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_typed_error(body):
    decoder = ChatDecoder()
    with pytest.raises(AsyncInferError):
        decoder.feed(body)
        decoder.close()


KEYS = [
    *("choices", "delta", "message", "content", "tool_calls", "index", "id", "function", "name", "arguments", "usage"),
    *("error", "x_groq", "logprobs", "text", "finish_reason", "reasoning_details", "refusal", "prompt_tokens", "type"),
    *("thinking", "detail", "status_code"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(st.lists(json_values, max_size=4), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_json_gives_events_or_a_typed_error(values, as_document):
    body = json.dumps(values[0] if values else {}).encode() if as_document else sse(*(json.dumps(v) for v in values))
    decoder = ChatDecoder()
    events = []
    try:
        events = decoder.feed(body)
        while more := decoder.close():
            events += more
    except AsyncInferError:
        return
    assert any(isinstance(event, Finish) for event in events)
    for event in events:
        if isinstance(event, TextDelta):
            event.text.encode()  # never half a surrogate pair


def test_done_and_complete_tell_the_engine_when_to_stop():
    decoder = ChatDecoder()
    decoder.feed(sse(chunk({"content": "x"}), done=False))
    assert (decoder.done, decoder.complete) == (False, False)
    decoder.feed(sse(chunk(finish="stop"), done=False))
    assert (decoder.done, decoder.complete) == (False, True)
    assert decoder.feed(b"data: [DONE]\n\n") == [Finish(FinishReason.STOP, 0, None, "stop")]
    assert (decoder.done, decoder.complete) == (True, True)
    assert decoder.feed(b": more\n\n") == []


def test_events_before_an_error_are_not_lost():
    decoder = ChatDecoder()
    assert decoder.feed(sse(chunk({"content": "x"}), {"error": {"message": "boom"}})) == [
        Start("c1", "m"),
        TextDelta("x"),
    ]
    assert not decoder.complete
    with pytest.raises(AsyncInferError, match="boom"):
        decoder.close()
    with pytest.raises(AsyncInferError, match="boom"):
        decoder.feed(b"")


def test_an_error_after_the_last_events_is_raised_by_a_further_close():
    decoder = ChatDecoder()
    assert decoder.feed(sse(chunk({"content": "x"}), done=False)[:-2]) == []
    assert decoder.close() == [Start("c1", "m"), TextDelta("x")]
    for _ in range(2):
        with pytest.raises(StreamTruncated):
            decoder.close()


def test_the_verdict_of_an_error_in_the_stream():
    with pytest.raises(AsyncInferError) as caught:
        ChatDecoder().feed(sse({"error": {"message": "x", "type": "rate_limit_error", "code": None}}))
    assert (caught.value.retry, caught.value.code) == (RetryKind.THROTTLED, "rate_limit_error")
    with pytest.raises(AsyncInferError) as caught:
        ChatDecoder().feed(sse({"error": {"message": "key sk-abcdefghijklmnop is bad", "code": "invalid_api_key"}}))
    assert "abcdefgh" not in str(caught.value)
    assert caught.value.retry is RetryKind.NEVER


def test_bounds():
    with pytest.raises(EventTooLargeError):
        ChatDecoder(max_event_bytes=100).feed(b"data: " + b"x" * 200)
    decoder = ChatDecoder(max_event_bytes=100)
    with pytest.raises(EventTooLargeError, match="400 bytes"):
        for _ in range(10):
            decoder.feed(b'{"' + b"x" * 100)


def test_deep_nesting_is_a_typed_error():
    with pytest.raises(ProtocolError):
        ChatDecoder().feed(b'data: {"choices":' + b"[" * 200_000 + b"\n\n")


def test_the_codec_knows_how_many_answers_were_asked_for():
    openai, groq = PROVIDERS["openai"].dialect, PROVIDERS["groq"].dialect
    body = sse(chunk({"content": "a"}, "stop"), done=False)
    request = make_request(n=2)
    for dialect, complete in ((openai, False), (groq, True)):  # Groq gives one answer, whatever is asked
        decoder = codec("openai_chat").decoder(request, dialect, "text/event-stream")
        decoder.feed(body)
        assert decoder.complete is complete


def test_no_other_codec_yet():
    with pytest.raises(KeyError):
        codec("telepathy")


@pytest.mark.parametrize(
    ("wire", "ours"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}, Usage(5, 2, 3)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(5, 2)),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 1},
            Usage(5, 2, 4),
        ),
        ({"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 1, "completion_tokens": 2}, Usage(5, 2, 4)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 3}, Usage(5, 2, 3)),
        (
            {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cache_write_tokens": 3}},
            Usage(5, 2, 0, 3),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(5, 9, 0, 0, 7),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 9, "reasoning_tokens": 7, "total_tokens": 14}, Usage(5, 9, 0, 0, 7)),
        # xAI counts reasoning beside the completion
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": 14,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            Usage(5, 9, 0, 0, 7),
        ),
        ({"input_tokens": 5, "output_tokens": 2}, Usage(5, 2)),
        ({"completion_tokens": 2, "total_tokens": 7}, Usage(5, 2)),
        ({"prompt_tokens": 5, "total_tokens": 7}, Usage(5, 2)),
        ({"prompt_tokens": 5.0, "completion_tokens": None}, Usage(5, 0)),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({}, None),
        (None, None),
        ("5", None),
    ],
)
def test_usage_in_every_spelling(wire, ours):
    assert read_usage(wire) == ours


def test_usage_round_trip():
    usage = Usage(10, 20, 3, 4, 5)
    assert read_usage(write_usage(usage)) == usage


def test_a_long_document_in_small_pieces():
    body = document({"content": "word " * 200_000})
    decoder = ChatDecoder()
    for at in range(0, len(body), 512):
        assert decoder.feed(body[at : at + 512]) == []
    assert decoder.close()[1] == TextDelta("word " * 200_000)
