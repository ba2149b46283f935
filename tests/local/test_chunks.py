"""Binding a: chunks of llama-server to events, and its errors to ours."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.engines.llama_cpp.chunks import ChunkReader, request_body
from asyncinfer.engines.local.ask import Ask
from asyncinfer.errors import AsyncInferError, BadRequestError, ContextLengthError, EngineError
from asyncinfer.events import (
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)


def chunk(delta=None, **fields):
    reason = fields.pop("reason", None)
    choices = [] if delta is None else [{"index": 0, "finish_reason": reason, "delta": delta}]
    return json.dumps({"id": "i", "model": "m", "object": "chat.completion.chunk", "choices": choices, **fields})


def test_a_whole_answer():
    reader = ChunkReader(Ask(messages=[]))
    progress = {"total": 9, "cache": 4, "processed": 5, "time_ms": 1}
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    more = {"index": 0, "function": {"arguments": "}"}}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    chunks = [
        chunk({"role": "assistant", "content": None}, prompt_progress=progress),
        chunk({"role": "assistant", "content": None}, prompt_progress=progress),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "a"}),
        chunk({"tool_calls": [call]}),
        chunk({"tool_calls": [more]}),
        chunk({}, reason="tool_calls", __verbose={"stopping_word": "", "prompt": "..."}),
        chunk(usage=usage, timings={"cache_n": 4}),
    ]
    assert not reader.finished
    assert [event for text in chunks for event in reader.feed(text)] == [
        Start(id="i", model="m"),
        UsageUpdate(Usage(input_tokens=9, cached_tokens=4)),
        ReasoningDelta("hm"),
        TextDelta("a"),
        ToolCallDelta(0, id="c", name="f", arguments="{"),
        ToolCallDelta(0, arguments="}"),
        Finish(FinishReason.TOOL_CALLS, raw="tool_calls"),
        UsageUpdate(Usage(input_tokens=9, output_tokens=5, cached_tokens=4)),
    ]
    assert reader.finished


def test_the_stop_string_and_an_unknown_reason():
    assert ChunkReader(Ask(messages=[])).feed(chunk({}, reason="stop", __verbose={"stopping_word": "END"}))[
        -1
    ] == Finish(FinishReason.STOP, matched="END", raw="stop")
    assert ChunkReader(Ask(messages=[])).feed(chunk({}, reason="new"))[-1].reason is FinishReason.UNKNOWN


@pytest.mark.parametrize(
    ("said", "events"),
    [
        ('<tool_call>{"name": "f"}', [ToolCallDelta(0, name="f", arguments="{}"), Finish(FinishReason.TOOL_CALLS)]),
        ('<tool_call>{"na', [TextDelta('<tool_call>{"na'), Finish(FinishReason.STOP)]),
    ],
)
def test_a_stop_token_ends_a_forced_call_like_any_other_end(said, events):
    reader = ChunkReader(Ask(messages=[], must_call=True, stop_ids=(7,)))
    logprobs = {"content": [{"id": 7, "token": "!", "top_logprobs": []}]}
    choice = {"index": 0, "finish_reason": None, "delta": {"content": "!"}, "logprobs": logprobs}
    found = reader.feed(chunk({"content": said})) + reader.feed(json.dumps({"choices": [choice]}))
    events[-1].matched = 7
    for event in found:
        if type(event) is ToolCallDelta:
            event.id = None  # a random one
    assert found == [Start(id="i", model="m"), *events, UsageUpdate(Usage(output_tokens=1))]
    assert reader.finished and reader.stopped


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 400, "type": "exceed_context_size_error", "message": "too long"}, ContextLengthError),
        ({"code": 400, "type": "invalid_request_error", "message": "bad"}, BadRequestError),
        ({"code": 500, "type": "server_error", "message": "oops"}, EngineError),
        ({"message": "oops"}, EngineError),
    ],
)
def test_errors_are_typed(error, kind):
    with pytest.raises(kind, match=error["message"]) as caught:
        ChunkReader(Ask(messages=[])).feed(json.dumps({"error": error}))
    assert not caught.value.retryable
    assert type(caught.value) is kind


@given(
    st.text()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["choices", "delta", "usage", "error", "id"]), x),
    ).map(json.dumps)
)
def test_anything_else_is_a_typed_error(text):
    with suppress(AsyncInferError):
        ChunkReader(Ask(messages=[])).feed(text)


def test_every_sampling_value_is_spelled_out():
    body = request_body(Ask(messages=[]), 100)
    expected = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "repeat_last_n": 100}
    assert expected.items() <= body.items()
    assert "seed" not in body and "stop" not in body and "tools" not in body
    assert request_body(Ask(messages=[], max_tokens=None), 1)["max_tokens"] == -1
