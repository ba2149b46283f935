"""Responses answers under every way to cut their bytes; the cassettes are checked against OpenAI's own types."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from asyncinfer.errors import AsyncInferError, EventTooLargeError, RetryKind
from asyncinfer.events import Finish, TextDelta
from asyncinfer.wire.openai_responses import ResponsesDecoder

from .answers import CASES, CREATED, Case, end, event, message, sse

OFFICIAL = TypeAdapter(ResponseStreamEvent)


def replay(case: Case, chunks: list[bytes]):
    decoder = ResponsesDecoder()
    events = []
    try:
        for piece in chunks:
            events += decoder.feed(piece)
        events += decoder.close()
        events += decoder.close()
    except AsyncInferError as error:
        return events, type(error)
    return events, None


@pytest.mark.parametrize("name", CASES)
def test_the_events_are_the_same_however_the_bytes_come(name):
    case = CASES[name]
    expected = (case.events, case.raises)
    body = case.body
    assert replay(case, [body]) == expected
    for size in (1, 2, 3, 7, 64):
        assert replay(case, [body[i : i + size] for i in range(0, len(body), size)]) == expected


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 9000), max_size=6))
@settings(max_examples=200, deadline=None)
def test_random_splits(name, places):
    case = CASES[name]
    body = case.body
    at = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    assert replay(case, [body[a:b] for a, b in pairwise(at)]) == (case.events, case.raises)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.official and case.payloads])
def test_the_cassettes_are_what_openai_says_it_sends(name):
    for payload in CASES[name].payloads:
        typed = OFFICIAL.validate_python(payload)
        assert typed.type == payload["type"]
        # and what its types write reads the same
        written = json.loads(typed.model_dump_json(exclude_unset=True))
        assert written["type"] == payload["type"]


def test_bytes_written_by_openais_own_types():
    case = CASES["reasoning between calls"]
    body = b"".join(
        b"event: %b\ndata: %b\n\n" % (typed.type.encode(), typed.model_dump_json().encode())
        for typed in map(OFFICIAL.validate_python, case.payloads)
    )
    events, raised = replay(case, [body])
    assert raised is None
    # Their types add their defaults to what must travel back; all else is equal.
    assert [e for e in events if not getattr(e, "details", None)] == [
        e for e in case.events if not getattr(e, "details", None)
    ]


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_typed_error(body):
    decoder = ResponsesDecoder()
    with pytest.raises(AsyncInferError):
        decoder.feed(body)
        decoder.close()


KEYS = ["type", "delta", "item", "output_index", "response", "output", "content", "text", "summary", "status", "error"]
KEYS += ["usage", "arguments", "call_id", "name", "id", "logprobs", "incomplete_details", "reason", "part", "phase"]
TYPES = sorted({payload["type"] for case in CASES.values() for payload in case.payloads if "type" in payload})
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5) | st.sampled_from(TYPES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
        | st.fixed_dictionaries(
            {"type": st.sampled_from([*TYPES, "message", "reasoning", "function_call"])},
            optional=dict.fromkeys(KEYS[1:], inner),
        )
    ),
    max_leaves=25,
)


@given(st.lists(json_values, max_size=5), st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_json_gives_events_or_a_typed_error(values, as_document):
    lines = [json.dumps(value) for value in values]
    body = lines[0].encode() if as_document and lines else b"".join(b"data: %b\n\n" % x.encode() for x in lines)
    decoder = ResponsesDecoder()
    events = []
    try:
        events = decoder.feed(body)
        while more := decoder.close():  # an error may follow the last events
            events += more
    except AsyncInferError:
        return
    assert isinstance(events[-1], Finish)
    for one in events:
        if isinstance(one, TextDelta):
            one.text.encode()


def test_done_and_complete_tell_the_engine_when_to_stop():
    decoder = ResponsesDecoder()
    decoder.feed(sse(CREATED, *message("x")))
    assert (decoder.done, decoder.complete) == (False, False)
    assert isinstance(decoder.feed(sse(end()))[-1], Finish)
    assert (decoder.done, decoder.complete) == (True, True)
    assert decoder.close() == []


def test_the_verdicts_of_failures():
    for code, retry in (
        ("rate_limit_exceeded", RetryKind.THROTTLED),
        ("server_error", RetryKind.TRANSIENT),
        ("image_parse_error", RetryKind.NEVER),
        ("bio_policy", RetryKind.NEVER),
    ):
        decoder = ResponsesDecoder()
        assert decoder.feed(sse(CREATED, end("failed", usage=None, error={"code": code, "message": "x"})))
        with pytest.raises(AsyncInferError) as caught:
            decoder.close()
        assert (caught.value.retry, caught.value.code) == (retry, code)


def test_a_failure_without_words_is_still_one():
    decoder = ResponsesDecoder()
    with pytest.raises(AsyncInferError, match="without explanation"):
        decoder.feed(sse(event("failed", response={"status": "failed"})))
        decoder.close()


def test_bounds():
    with pytest.raises(EventTooLargeError):
        ResponsesDecoder(max_event_bytes=100).feed(b"data: " + b"x" * 200)
    decoder = ResponsesDecoder(max_event_bytes=100)
    with pytest.raises(EventTooLargeError, match="400 bytes"):
        for _ in range(10):
            decoder.feed(b'{"' + b"x" * 100)
