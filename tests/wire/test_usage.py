"""Token counts as servers really write them: numbers, floats, text; what can be no count says nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.events import Event, Usage, UsageUpdate
from asyncinfer.wire.anthropic.decode import AnthropicDecoder
from asyncinfer.wire.bedrock import ConverseDecoder, read_document
from asyncinfer.wire.gemini.decode import GeminiDecoder
from asyncinfer.wire.lenient import MOST_TOKENS, count
from asyncinfer.wire.openai_chat.decode import ChatDecoder
from asyncinfer.wire.openai_responses import ResponsesDecoder
from asyncinfer.wire.protocol import Decoder
from asyncinfer.wire.sglang import GenerateDecoder
from tests.servers import bedrock_bytes

NUMBERS = [(12, 34), (12.0, 34.0), ("12", "34"), ("12.0", " 34 ")]
NONSENSE: list[Any] = [-1, "-1", 1e300, 10**40, "9" * 40, True, None, [], {}, "many", "nan", "inf", ""]


def counted(decoder: Decoder, body: bytes) -> Usage | None:
    events: list[Event] = [*decoder.feed(body), *decoder.close()]
    found = [event.usage for event in events if type(event) is UsageUpdate]
    return found[-1] if found else None


def sse(*payloads: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(payload).encode() + b"\n\n" for payload in payloads)


def chat(given: Any, made: Any) -> Usage | None:
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": given, "completion_tokens": made}
    return counted(ChatDecoder(), sse({"id": "c", "choices": [choice]}, {"choices": [], "usage": usage}))


def anthropic(given: Any, made: Any) -> Usage | None:
    start = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": given}}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": made}}
    return counted(AnthropicDecoder(), sse(start, end, {"type": "message_stop"}))


def gemini(given: Any, made: Any) -> Usage | None:
    candidate = {"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}
    counts = {"promptTokenCount": given, "candidatesTokenCount": made}
    return counted(GeminiDecoder(), sse({"candidates": [candidate], "usageMetadata": counts}))


def responses(given: Any, made: Any) -> Usage | None:
    response = {"id": "r", "status": "completed", "output": [], "usage": {"input_tokens": given, "output_tokens": made}}
    return counted(ResponsesDecoder(), sse({"type": "response.completed", "response": response}))


def sglang(given: Any, made: Any) -> Usage | None:
    meta = {"id": "r", "finish_reason": {"type": "stop"}, "prompt_tokens": given, "completion_tokens": made}
    return counted(GenerateDecoder(), sse({"text": "x", "meta_info": meta}))


def bedrock(given: Any, made: Any) -> Usage | None:
    stop = bedrock_bytes.event("messageStop", stopReason="end_turn")
    usage = bedrock_bytes.event("metadata", usage={"inputTokens": given, "outputTokens": made})
    return counted(ConverseDecoder(), bedrock_bytes.begin() + bedrock_bytes.text("x") + stop + usage)


def converse(given: Any, made: Any) -> Usage | None:
    message = {"role": "assistant", "content": [{"text": "x"}]}
    usage = {"inputTokens": given, "outputTokens": made}
    events = read_document({"output": {"message": message}, "stopReason": "end_turn", "usage": usage})
    return next((event.usage for event in events if type(event) is UsageUpdate), None)


FORMATS = [chat, anthropic, gemini, responses, sglang, bedrock, converse]


@pytest.mark.parametrize(("given", "made"), NUMBERS)
@pytest.mark.parametrize("read", FORMATS)
def test_a_count_is_a_count_however_it_is_written(read: Any, given: Any, made: Any) -> None:
    assert read(given, made) == Usage(12, 34)


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
@pytest.mark.parametrize("read", FORMATS)
def test_what_can_be_no_count_says_nothing_and_breaks_nothing(read: Any, nonsense: Any) -> None:
    found = read(12, nonsense)
    assert found is not None
    assert (found.input_tokens, found.output_tokens) == (12, 0)
    assert read(nonsense, nonsense) in (None, Usage())


@pytest.mark.parametrize("usage", [3, "12", [], True], ids=repr)
def test_usage_that_is_no_object(usage: Any) -> None:
    stop = bedrock_bytes.event("messageStop", stopReason="end_turn")
    body = bedrock_bytes.begin() + stop + bedrock_bytes.event("metadata", usage=usage)
    assert counted(ConverseDecoder(), body) is None
    candidate = {"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}
    assert counted(GeminiDecoder(), sse({"candidates": [candidate], "usageMetadata": usage})) is None
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}
    assert counted(ChatDecoder(), sse({"id": "c", "choices": [choice], "usage": usage})) is None


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_a_count_is_never_negative_nor_absurd(value: Any) -> None:
    found = count(value)
    assert found is None or (type(found) is int and 0 <= found <= MOST_TOKENS)


@given(st.integers(0, MOST_TOKENS))
def test_every_count_reads_as_itself(number: int) -> None:
    assert count(number) == count(str(number)) == count(float(number)) == number
