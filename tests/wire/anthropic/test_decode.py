"""Answers of servers of the Messages format, under every way to cut their bytes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import AsyncInferError, EventTooLargeError, RetryKind, StreamTruncated
from asyncinfer.events import Finish, TextDelta
from asyncinfer.wire import codec
from asyncinfer.wire.anthropic.decode import AnthropicDecoder

from .cases import CASES, PROMPT, START, STOP, Case, document, error, head, over, sse, text


def replay(case: Case, chunks: list[bytes]):
    decoder = AnthropicDecoder()
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


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 3000), max_size=6))
@settings(max_examples=300, deadline=None)
def test_random_splits(name, places):
    case = CASES[name]
    at = sorted({0, len(case.body), *(place % (len(case.body) + 1) for place in places)})
    chunks = [case.body[a:b] for a, b in pairwise(at)]
    assert replay(case, chunks) == (case.events, case.raises)


@given(st.sampled_from([name for name in CASES if CASES[name].raises is None]), st.integers(0, 3000))
@settings(max_examples=200, deadline=None)
def test_a_cut_answer_never_looks_finished(name, place):
    """Wherever the connection breaks: either all events are there, or the end is an error."""
    case = CASES[name]
    cut = case.body[: place % (len(case.body) + 1)]
    events, raised = replay(case, [cut])
    if raised is None:
        assert [event for event in events if isinstance(event, Finish)]
        texts = [event for event in case.events if isinstance(event, TextDelta)]
        assert [event for event in events if isinstance(event, TextDelta)] == texts
    else:
        assert raised is StreamTruncated
        assert not any(isinstance(event, Finish) for event in events)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_typed_error(body):
    decoder = AnthropicDecoder()
    with pytest.raises(AsyncInferError):
        decoder.feed(body)
        decoder.close()


KEYS = [
    "type",
    "index",
    "delta",
    "content_block",
    "message",
    "usage",
    "error",
    "text",
    "thinking",
    "signature",
    "partial_json",
    "citation",
    "citations",
    "input",
    "id",
    "name",
    "model",
    "content",
    "stop_reason",
    "stop_sequence",
    "input_tokens",
    "output_tokens",
    "data",
    "output_tokens_details",
    "request_id",
]
WORDS = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
    "ping",
    "text",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "text_delta",
    "thinking_delta",
    "signature_delta",
    "input_json_delta",
    "end_turn",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@given(st.lists(json_values, max_size=5), st.booleans())
@settings(max_examples=250, deadline=None)
def test_any_json_gives_events_or_a_typed_error(values, as_document):
    if as_document:
        body = json.dumps(values[0] if values else {}).encode()
    else:
        body = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    decoder = AnthropicDecoder()
    try:
        events = decoder.feed(body)
        events += decoder.close()
    except AsyncInferError:
        return
    for event in events:
        if isinstance(event, TextDelta):
            event.text.encode()  # never half a surrogate pair


def test_done_and_complete_tell_the_engine_when_to_stop():
    decoder = AnthropicDecoder()
    decoder.feed(sse(head(), *text(0, "x")))
    assert (decoder.done, decoder.complete) == (False, False)
    message_delta, message_stop = over()
    decoder.feed(sse(message_delta))
    assert (decoder.done, decoder.complete) == (False, True)
    assert decoder.feed(sse(message_stop)) == [STOP]
    assert (decoder.done, decoder.complete) == (True, True)
    assert decoder.feed(sse({"type": "ping"})) == []
    assert decoder.close() == []


def test_events_before_an_error_are_not_lost():
    decoder = AnthropicDecoder()
    events = decoder.feed(sse(head(), *text(0, "x"), error("overloaded_error", "busy", request_id="req_9")))
    assert events == [START, PROMPT, TextDelta("x")]
    assert not decoder.complete
    for again in (lambda: decoder.feed(b"more"), decoder.close):
        with pytest.raises(AsyncInferError, match="busy") as caught:
            again()
        assert caught.value.retry is RetryKind.OVERLOADED
        assert caught.value.code == "overloaded_error"
        assert caught.value.request_id == "req_9"


def test_the_bound_of_an_event():
    decoder = AnthropicDecoder(max_event_bytes=200)
    with pytest.raises(EventTooLargeError):
        decoder.feed(sse(*text(0, "x" * 500)))
    decoder = AnthropicDecoder(max_event_bytes=200)
    with pytest.raises(EventTooLargeError):
        decoder.feed(document({"type": "text", "text": "x" * 900}))


@pytest.mark.parametrize(
    ("status", "kind", "name", "retry"),
    [
        (400, "invalid_request_error", "BadRequestError", "never"),
        (401, "authentication_error", "AuthenticationError", "never"),
        (402, "billing_error", "QuotaExceededError", "never"),
        (403, "permission_error", "PermissionDeniedError", "never"),
        (404, "not_found_error", "NotFoundError", "never"),
        (409, "conflict_error", "ServerError", "transient"),
        (413, "request_too_large", "BadRequestError", "never"),
        (429, "rate_limit_error", "RateLimitError", "throttled"),
        (500, "api_error", "ServerError", "transient"),
        (504, "timeout_error", "ServerError", "transient"),
        (529, "overloaded_error", "OverloadedError", "overloaded"),
    ],
)
def test_every_status(status, kind, name, retry):
    body = json.dumps(error(kind, "why", request_id="req_body")).encode()
    found = codec("anthropic_messages").error(status, {"retry-after": "7"} if status == 429 else {}, body)
    assert (type(found).__name__, found.retry.value, found.status, found.code) == (name, retry, status, kind)
    assert found.message == "why"
    assert found.request_id == "req_body"
    assert found.retry_after == (7 if status == 429 else None)


def test_the_detailed_code_decides():
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "no more money"}}
    body["error"]["details"] = {"error_code": "workspace_spend_limit_exceeded"}
    found = codec("anthropic_messages").error(429, {"request-id": "req_1"}, json.dumps(body).encode())
    assert type(found).__name__ == "QuotaExceededError"
    assert not found.retryable
    assert (found.code, found.request_id) == ("workspace_spend_limit_exceeded", "req_1")
    assert codec("anthropic_messages").error(502, {}, b"<html><title>Bad gateway</title>").retryable


def test_rate_headers():
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:30Z",
        "anthropic-ratelimit-input-tokens-limit": "40000",
        "anthropic-ratelimit-input-tokens-remaining": "39000",
        "anthropic-ratelimit-output-tokens-remaining": "8000",
    }
    found = codec("anthropic_messages").rate_headers(headers, 1767225600.0)
    assert (found["requests"].limit, found["requests"].remaining, found["requests"].reset) == (50, 49, 30)
    assert found["input_tokens"].remaining == 39000
    assert found["output_tokens"].remaining == 8000
