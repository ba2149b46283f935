"""Answers of SGLang's own format under every way to cut their bytes."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import AsyncInferError, EventTooLargeError, RetryKind
from asyncinfer.events import Finish, FinishReason, TextDelta
from asyncinfer.wire.sglang import GenerateDecoder

from .answers import CASES, LENGTH, Case, abort, part, sse, stop


def replay(case: Case, chunks: list[bytes]):
    decoder = GenerateDecoder(case.choices, stops=case.stops, model="m")
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
    assert replay(case, [case.body]) == expected
    for size in (1, 2, 3, 7, 64):
        assert replay(case, [case.body[i : i + size] for i in range(0, len(case.body), size)]) == expected


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 2000), max_size=6))
@settings(max_examples=200, deadline=None)
def test_random_splits(name, places):
    case = CASES[name]
    at = sorted({0, len(case.body), *(place % (len(case.body) + 1) for place in places)})
    assert replay(case, [case.body[a:b] for a, b in pairwise(at)]) == (case.events, case.raises)


pieces = st.lists(st.sampled_from(["a", "b", "ha", "EN", "E", "ND", " ", "é", ""]), min_size=1, max_size=12)


@given(pieces, st.booleans(), st.sampled_from([(), ("END",)]), st.booleans())
@settings(max_examples=400, deadline=None)
def test_whatever_a_server_streams_the_text_is_its_text(tokens, incremental, stops, cut):
    """The two kinds of server, with token ids, whatever the tokens: the text that comes out is the text."""
    ids = [1 + ord(token[0]) + 1000 * len(token) if token else 0 for token in tokens]
    whole = "".join(tokens)
    matched = bool(stops) and "END" in whole
    if matched:  # a server stops there
        upto = next(n for n in range(1, len(tokens) + 1) if "END" in "".join(tokens[:n]))
        tokens, ids = tokens[:upto], ids[:upto]
        whole = "".join(tokens)[: "".join(tokens).index("END")]
    if incremental and matched:
        return  # how much of the stop string the last deltas lack is the server's own affair: cases above
    events = []
    for n in range(1, len(tokens) + 1):
        finish = None if n < len(tokens) else stop("END") if matched else LENGTH
        so_far = whole if finish and matched else "".join(tokens[:n])
        if incremental:
            events.append(part(tokens[n - 1], ids[n - 1 : n], finish, count=n))
        else:
            events.append(part(so_far, ids[:n], finish))
    decoder = GenerateDecoder(stops=stops)
    out = decoder.feed(sse(*events, done=not cut)) + decoder.close()
    assert "".join(event.text for event in out if isinstance(event, TextDelta)) == whole
    assert isinstance(out[-1], Finish)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_typed_error(body):
    decoder = GenerateDecoder()
    with pytest.raises(AsyncInferError):
        decoder.feed(body)
        decoder.close()


KEYS = ["text", "output_ids", "meta_info", "index", "finish_reason", "type", "matched", "error", "message", "id"]
KEYS += ["completion_tokens", "prompt_tokens", "output_token_logprobs", "output_top_logprobs", "status_code"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
        | st.fixed_dictionaries({"meta_info": st.dictionaries(st.sampled_from(KEYS), inner)}, optional={"text": inner})
    ),
    max_leaves=25,
)


@given(st.lists(json_values, max_size=4), st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_json_gives_events_or_a_typed_error(values, as_document):
    body = json.dumps(values[0] if values else {}).encode() if as_document else sse(*values)
    decoder = GenerateDecoder(stops=("a",))
    events = []
    try:
        events = decoder.feed(body)
        while more := decoder.close():  # an error may follow the last events
            events += more
    except AsyncInferError:
        return
    assert any(isinstance(event, Finish) for event in events)
    for event in events:
        if isinstance(event, TextDelta):
            event.text.encode()


def test_done_and_complete_tell_the_engine_when_to_stop():
    decoder = GenerateDecoder()
    decoder.feed(sse(part("x", [1]), done=False))
    assert (decoder.done, decoder.complete) == (False, False)
    assert decoder.feed(sse(part("x", [1, 2], LENGTH), done=False)) == []
    assert (decoder.done, decoder.complete) == (False, True)
    assert decoder.feed(b"data: [DONE]\n\n")[-1] == Finish(FinishReason.LENGTH, 0, None, "length")
    assert (decoder.done, decoder.complete) == (True, True)


def test_the_verdict_of_an_abort():
    decoder = GenerateDecoder()
    decoder.feed(sse(part("x", [1], abort(503))))
    with pytest.raises(AsyncInferError, match="queue is full") as caught:
        decoder.close()
    assert (caught.value.status, caught.value.retry) == (503, RetryKind.OVERLOADED)


def test_bounds():
    with pytest.raises(EventTooLargeError):
        GenerateDecoder(max_event_bytes=100).feed(b"data: " + b"x" * 200)
    decoder = GenerateDecoder(max_event_bytes=100)
    with pytest.raises(EventTooLargeError, match="400 bytes"):
        for _ in range(10):
            decoder.feed(b'{"' + b"x" * 100)
