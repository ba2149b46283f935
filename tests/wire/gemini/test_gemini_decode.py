"""Answers of Gemini, under every way to cut their bytes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import (
    AsyncInferError,
    AuthenticationError,
    BadRequestError,
    EventTooLargeError,
    OverloadedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RetryKind,
    StreamTruncated,
)
from asyncinfer.events import Finish, Start, TextDelta
from asyncinfer.wire import codec
from asyncinfer.wire.gemini import GeminiDecoder
from asyncinfer.wire.gemini.chunks import read_chunk

from .answers import CASES, RPC, Case, chunk, error, sse, text


def replay(case: Case, chunks: list[bytes]):
    decoder = GeminiDecoder(case.choices)
    events = []
    try:
        for piece in chunks:
            events += decoder.feed(piece)
        events += decoder.close()
        events += decoder.close()  # a second end says nothing new, or the same error again
    except AsyncInferError as raised:
        return events, type(raised)
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
    assert replay(case, [case.body[a:b] for a, b in pairwise(at)]) == (case.events, case.raises)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_typed_error(body):
    decoder = GeminiDecoder()
    with pytest.raises(AsyncInferError):
        decoder.feed(body)
        decoder.close()


KEYS = """
candidates content parts text thought thoughtSignature functionCall args name id partialArgs jsonPath willContinue index
finishReason usageMetadata promptTokenCount error code status promptFeedback blockReason logprobsResult
chosenCandidates token inlineData executableCode groundingMetadata stringValue
""".split()  # noqa: SIM905 -- a list would take a page
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5) | st.just("$.a[1]"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=25,
)


@given(st.lists(json_values, max_size=4), st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_json_gives_events_or_a_typed_error(values, as_document):
    body = json.dumps(values[0] if values else {}).encode() if as_document else sse(*(json.dumps(v) for v in values))
    decoder = GeminiDecoder()
    try:
        events = decoder.feed(body) + decoder.close()
    except AsyncInferError:
        return
    assert any(isinstance(event, Finish) for event in events) or decoder._broken is not None
    for event in events:
        if isinstance(event, TextDelta):
            event.text.encode()


def test_complete_tells_the_engine_that_nothing_is_missing():
    decoder = GeminiDecoder(2)
    decoder.feed(sse(chunk(text("x"), finish="STOP")))
    assert not decoder.complete
    decoder.feed(sse(chunk(text("x"), finish="STOP", index=1)))
    assert decoder.complete
    assert not decoder.done
    blocked = GeminiDecoder()
    blocked.feed(sse({"promptFeedback": {"blockReason": "SAFETY"}}))
    assert blocked.complete


def test_events_before_an_error_are_not_lost():
    decoder = GeminiDecoder()
    assert decoder.feed(sse(chunk(text("x")), error(500, "INTERNAL"))) == [Start("r1", "gemini-x"), TextDelta("x")]
    for _ in range(2):
        with pytest.raises(AsyncInferError, match="no") as caught:
            decoder.close()
        assert caught.value.retry is RetryKind.TRANSIENT


def test_truncation_after_the_last_events_is_raised_by_a_further_close():
    decoder = GeminiDecoder()
    assert decoder.feed(sse(chunk(text("x")))[:-4]) == []
    assert decoder.close() == [Start("r1", "gemini-x"), TextDelta("x")]
    with pytest.raises(StreamTruncated):
        decoder.close()


def test_bounds():
    with pytest.raises(EventTooLargeError):
        GeminiDecoder(max_event_bytes=100).feed(b"data: " + b"x" * 200)
    with pytest.raises(EventTooLargeError, match="400 bytes"):
        GeminiDecoder(max_event_bytes=100).feed(b'{"' + b"x" * 500)
    with pytest.raises(ProtocolError, match="neither"):
        GeminiDecoder().feed(b"data: {}\n\n{\n" + b'"a": [{"b": 1},\n' * 30_000)
    with pytest.raises(ProtocolError):
        GeminiDecoder().feed(b'data: {"candidates":' + b"[" * 200_000 + b"\n\n")


def test_a_call_may_not_fill_the_memory():
    body = sse(
        chunk(
            {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a[999999999]", "stringValue": "x"}]}},
            finish="STOP",
        )
    )
    decoder = GeminiDecoder()
    assert decoder.feed(body)[1].arguments == '{"a":[]}'


REFUSALS = [
    (400, error(400, "INVALID_ARGUMENT"), BadRequestError, RetryKind.NEVER, None),
    (
        400,
        error(400, "INVALID_ARGUMENT", {"@type": RPC + "ErrorInfo", "reason": "API_KEY_INVALID"}),
        AuthenticationError,
        RetryKind.NEVER,
        None,
    ),
    (401, error(401, "UNAUTHENTICATED"), AuthenticationError, RetryKind.NEVER, None),
    (
        429,
        error(429, "RESOURCE_EXHAUSTED", {"@type": RPC + "RetryInfo", "retryDelay": "38s"}),
        RateLimitError,
        RetryKind.THROTTLED,
        38.0,
    ),
    (
        429,
        [error(429, "RESOURCE_EXHAUSTED", {"@type": RPC + "RetryInfo", "retryDelay": "8.25s"})],
        RateLimitError,
        RetryKind.THROTTLED,
        8.25,
    ),
    (
        429,
        error(
            429,
            "RESOURCE_EXHAUSTED",
            {"@type": RPC + "QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]},
        ),
        QuotaExceededError,
        RetryKind.NEVER,
        None,
    ),
    (503, error(503, "UNAVAILABLE"), OverloadedError, RetryKind.OVERLOADED, None),
]


@pytest.mark.parametrize(("status", "body", "kind", "retry", "wait"), REFUSALS)
def test_refusals(status, body, kind, retry, wait):
    found = codec("gemini").error(status, {}, json.dumps(body).encode())
    assert (type(found), found.retry, found.retry_after, found.status) == (kind, retry, wait, status)
    assert found.message == "no"


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("odd")])
def test_the_usual_chunks_take_the_short_way(name):
    """Half surrogates and odd types are what the slow way is for; it must not be needed for anything else."""
    for line in CASES[name].body.split(b"\r\n\r\n"):
        if line.startswith(b"data: {") and line.endswith(b"}") and b"{not" not in line:
            read_chunk(line[6:])
