"""Choices, expressions and classes where a format knows only JSON Schemas, or only tools: over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from asyncinfer import (
    AnthropicInferenceEngine,
    BedrockInferenceEngine,
    Finish,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    Message,
    ModelParams,
    OpenAIInferenceEngine,
    RemoteInferenceEngine,
    RemoteParams,
    Role,
    StructuredOutputError,
    TextDelta,
    open_engine,
)
from tests.servers.bedrock_bytes import begin, event, finish, streamed
from tests.servers.canned import CannedServer, answer, stream
from tests.wire.answers import chunk, document, sse
from tests.wire.anthropic.cases import document as message
from tests.wire.anthropic.cases import head, over, tool
from tests.wire.anthropic.cases import sse as messages

pytestmark = pytest.mark.anyio

CHOICE = GenerationParams(guided_decoding=GuidedDecodingParams(choice=["ye\ts", "no"]))
DATE = GenerationParams(guided_decoding=GuidedDecodingParams(regex=r"\d{4}-\d\d"))


class City(BaseModel):
    name: str
    size: int
    river: str | None = None


def remote(server: CannedServer, kind: Any = OpenAIInferenceEngine, model: str = "gpt-4o", **more: Any) -> Any:
    place = RemoteParams(api_url=server.origin + "/v1", api_key="k", **more)
    return kind(ModelParams(model_name=model), remote_params=place)


def said(*pieces: str, finish: str = "stop") -> bytes:
    return sse(*(chunk({"content": piece}) for piece in pieces), chunk(finish=finish))


async def test_a_choice_at_openai_shows_the_plain_text_from_its_first_letter_on() -> None:
    pieces = ['{"', "answer", '": "', "ye", "\\", "ts", '"}']
    with CannedServer(stream(said(*pieces)), answer(document({"content": "".join(pieces)}))) as server:
        async with remote(server) as engine:
            async with engine.stream("Well?", generation=CHOICE) as asked:
                events = [found async for found in asked.events()]
                completion = await asked.completion()
            assert [found.text for found in events if isinstance(found, TextDelta)] == ["ye", "\ts"]
        async with remote(server, use_streaming=False) as engine:
            whole = await engine.generate("Well?", generation=CHOICE)
    for found in (completion, whole):
        assert found.text == found.parsed == found.message.content == "ye\ts"
        assert found.conversation.messages[-1].text == "ye\ts"
        assert found.finish_reason is FinishReason.STOP
    wanted = server.requests[0].json["response_format"]["json_schema"]
    assert wanted["strict"] is True
    assert wanted["schema"]["properties"] == {"answer": {"type": "string", "enum": ["ye\ts", "no"]}}


@pytest.mark.parametrize(
    ("body", "partial"),
    [
        (said('{"answer": "2026-1'), "2026-1"),  # stopped inside the string: not whole, whatever the server says
        (said('{"answer": "2026-11', finish="length"), "2026-11"),
        (said('{"answer": "2026-11', finish="stop"), "2026-11"),
        (said('{"answer": "November"}'), "November"),
        (said("November"), "November"),
        (said('{"ans', finish="length"), ""),
    ],
)
async def test_an_expression_is_checked_on_what_the_object_held(body: bytes, partial: str) -> None:
    with CannedServer(stream(body)) as server:
        async with remote(server, RemoteInferenceEngine, "m") as engine:
            with pytest.raises(StructuredOutputError, match="regex") as caught:
                await engine.generate("When?", generation=DATE)
    assert caught.value.partial is not None
    assert caught.value.partial.text == partial


async def test_a_server_that_answers_without_the_object_is_heard_all_the_same() -> None:
    with CannedServer(stream(said("2026", "-11"))) as server:
        async with remote(server, RemoteInferenceEngine, "m") as engine:
            assert (await engine.generate("When?", generation=DATE)).parsed == "2026-11"
    sent = server.requests[0].json["response_format"]["json_schema"]["schema"]
    assert sent["properties"]["answer"]["pattern"] == r"^\d{4}-\d\d$"


async def test_who_promises_json_only_is_told_of_the_object() -> None:
    with CannedServer(stream(said('{"answer":"no"}'))) as server:
        async with open_engine("deepseek:m", remote_params=RemoteParams(api_url=server.origin, api_key="k")) as engine:
            assert (await engine.generate("Well?", generation=CHOICE)).parsed == "no"
    assert '"enum":["ye\\ts","no"]' in server.requests[0].json["messages"][0]["content"]


async def test_a_class_is_sent_as_strict_where_nobody_says_otherwise() -> None:
    body = stream(said('{"name": "Oslo", "size": 7, "river": null}'))
    loose = GenerationParams(guided_decoding=GuidedDecodingParams(json=City, strict=False))
    with CannedServer(body) as server:
        async with remote(server) as engine:
            assert (await engine.generate("hi", response_model=City)).parsed == City(name="Oslo", size=7)
            assert (await engine.generate("hi", generation=loose)).parsed == City(name="Oslo", size=7)
    strict, asked = (request.json["response_format"]["json_schema"] for request in server.requests)
    assert (strict["strict"], strict["schema"]["required"]) == (True, ["name", "size", "river"])
    assert asked == {"name": "City", "schema": City.model_json_schema()}


OSLO = ('{"name": "Os', 'lo", "size"', ": 7}")


async def test_an_old_claude_answers_by_a_call_that_nobody_sees() -> None:
    called = messages(head(), *tool(0, "t1", "answer", "", *OSLO), *over("tool_use"))
    block = {"type": "tool_use", "id": "t1", "name": "answer", "input": {"name": "Oslo", "size": 7}}
    chosen = messages(head(), *tool(0, "t1", "answer", '{"ans', 'wer": "no"}'), *over("tool_use"))
    later = stream(called), answer(message(block, reason="tool_use")), stream(chosen)
    with CannedServer(*later) as server:
        async with remote(server, AnthropicInferenceEngine, "claude-3-7-sonnet-latest") as engine:
            async with engine.stream("Which?", response_model=City) as asked:
                events = [found async for found in asked.events()]
                first = await asked.completion()
            assert [found.text for found in events if isinstance(found, TextDelta)] == list(OSLO)
            assert events[-1] == Finish(FinishReason.STOP, 0, None, "tool_use")
            whole = await engine.generate(
                first.conversation.with_message(Message(role=Role.USER, content="Sure?")), response_model=City
            )
            assert (await engine.generate("Well?", generation=CHOICE)).parsed == "no"
    for found in (first, whole):
        assert found.parsed == City(name="Oslo", size=7)
        assert not found.message.tool_calls
        assert found.finish_reason is FinishReason.STOP
    replayed = server.requests[1].json["messages"][1]
    assert replayed == {"role": "assistant", "content": "".join(OSLO)}


async def test_a_call_cut_by_the_limit_is_no_answer() -> None:
    cut = messages(head(), *tool(0, "t1", "answer", *OSLO[:2]), *over("max_tokens"))
    with CannedServer(stream(cut)) as server:
        async with remote(server, AnthropicInferenceEngine, "claude-3-7-sonnet-latest") as engine:
            with pytest.raises(StructuredOutputError, match="max_new_tokens"):
                await engine.generate("Which?", response_model=City)


@pytest.mark.parametrize("streams", [True, False])
async def test_an_old_claude_on_bedrock(streams: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    start = event("contentBlockStart", contentBlockIndex=0, start={"toolUse": {"toolUseId": "t", "name": "answer"}})
    pieces = [event("contentBlockDelta", contentBlockIndex=0, delta={"toolUse": {"input": piece}}) for piece in OSLO]
    stop = event("contentBlockStop", contentBlockIndex=0)
    body = begin() + start + b"".join(pieces) + stop + finish("tool_use")
    call = {"toolUse": {"toolUseId": "t", "name": "answer", "input": {"name": "Oslo", "size": 7}}}
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    document = {
        "output": {"message": {"role": "assistant", "content": [call]}},
        "stopReason": "tool_use",
        "usage": usage,
        "metrics": {"latencyMs": 1},
    }
    reply = streamed(body) if streams else answer(json.dumps(document).encode())
    with CannedServer(reply) as server:
        place = RemoteParams(api_url=server.origin, region="us-east-1", use_streaming=streams)
        model = ModelParams(model_name="anthropic.claude-3-haiku-20240307-v1:0")
        async with BedrockInferenceEngine(model, remote_params=place) as engine:
            completion = await engine.generate("Which?", response_model=City)
    assert completion.parsed == City(name="Oslo", size=7)
    assert (completion.finish_reason, completion.message.tool_calls) == (FinishReason.STOP, None)
    assert server.requests[0].json["toolConfig"]["toolChoice"] == {"tool": {"name": "answer"}}
