"""`AnthropicInferenceEngine` against a server of the Messages format over real HTTP, on asyncio and trio."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from asyncinfer import (
    AnthropicInferenceEngine,
    AuthenticationError,
    ConfigError,
    Conversation,
    FinishReason,
    GenerationParams,
    Message,
    ModelParams,
    OverloadedError,
    ReasoningDelta,
    RemoteInferenceEngine,
    RemoteParams,
    Role,
    StreamInterrupted,
    UnsupportedParameterError,
    open_engine,
)
from asyncinfer.providers import PROVIDERS, resolve_api_url
from tests.servers.canned import CannedServer, Request, answer, stream

from .cases import (
    CITATION,
    FOUND,
    PING,
    REDACTED,
    SEARCH,
    THOUGHT,
    begin,
    delta,
    end,
    error,
    head,
    over,
    sse,
    text,
    thinking,
    tool,
)
from .cases import document as whole_document
from .sdk_types import validate

pytestmark = pytest.mark.anyio

PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
HELLO = stream(sse(head(), PING, *text(0, "Hel", "lo"), *over()), headers={"request-id": "req_1"})


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_key_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


def engine_for(server: CannedServer, model: str = "claude-sonnet-4-5", **remote: Any) -> AnthropicInferenceEngine:
    return AnthropicInferenceEngine(
        ModelParams(model_name=model),
        remote_params=RemoteParams(**{"api_url": server.url, "api_key": "sk-ant-test", **remote}),
    )


def steps(*turns: list[dict[str, Any]]) -> Callable[[Request], Any]:
    """A server that answers one turn after the other."""
    left = list(turns)

    def play(request: Request) -> Any:
        return stream(*(sse(event) for event in left.pop(0)))

    return play


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/messages", "/v1/messages/"])
async def test_any_spelling_of_the_url(path: str) -> None:
    with CannedServer(HELLO) as server:
        async with engine_for(server, api_url=server.url + path) as engine:
            assert [token async for token in engine.stream("hi")] == ["Hel", "lo"]
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v1/messages")


async def test_bases_of_other_providers() -> None:
    row = PROVIDERS["anthropic"]
    for url in ("https://api.deepseek.com/anthropic", "https://x.services.ai.azure.com/anthropic/"):
        assert resolve_api_url(url, row).join("/messages") == url.rstrip("/") + "/v1/messages"
    assert resolve_api_url("https://api.anthropic.com", row).models == "https://api.anthropic.com/v1/models"


async def test_headers_and_what_comes_back() -> None:
    with CannedServer(HELLO) as server:
        async with engine_for(server, extra_headers={"anthropic-beta": "x-2026"}, user_id="u") as engine:
            completion = await engine.generate("hi")
    headers = server.requests[0].headers
    assert headers["x-api-key"] == "sk-ant-test"
    assert headers["authorization"] == "Bearer sk-ant-test"  # what most other servers of the format look at
    assert headers["anthropic-version"] == "2023-06-01"
    assert headers["anthropic-beta"] == "x-2026"
    assert server.requests[0].json["metadata"] == {"user_id": "u"}
    assert (completion.text, completion.finish_reason) == ("Hello", FinishReason.STOP)
    assert (completion.id, completion.model, completion.request_id) == ("msg_1", "claude-x", "req_1")
    assert (completion.usage.input_tokens, completion.usage.output_tokens, completion.usage.source) == (12, 38, "exact")
    assert completion.timings.deltas == 2  # a ping is not a token


async def test_at_home_only_its_own_header_is_sent() -> None:
    engine = AnthropicInferenceEngine(
        ModelParams(model_name="claude-opus-5-5"), remote_params=RemoteParams(api_key="sk-ant-test")
    )
    headers = engine.endpoint(engine._default_plan.template).headers
    assert headers["x-api-key"] == "sk-ant-test"
    assert "authorization" not in headers
    assert "sk-ant-test" not in repr(engine)


async def test_the_ways_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        open_engine("anthropic:claude-opus-5-5")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-env")
    engine = open_engine("anthropic:claude-opus-5-5")
    assert isinstance(engine, AnthropicInferenceEngine)
    assert {"temperature", "top_k", "reasoning_effort", "guided_decoding"} <= engine.get_supported_params()
    assert "seed" not in engine.get_supported_params()
    known = RemoteInferenceEngine(
        ModelParams(model_name="m"), remote_params=RemoteParams(api_url="https://api.anthropic.com/v1/messages")
    )
    endpoint = known.endpoint(known._default_plan.template)
    assert endpoint.provider.name == "anthropic"
    assert endpoint.urls.join("/messages") == "https://api.anthropic.com/v1/messages"


async def test_a_document_where_no_stream_is_wanted() -> None:
    with CannedServer(answer(whole_document({"type": "text", "text": "Hello"}))) as server:
        async with engine_for(server, use_streaming=False) as engine:
            assert (await engine.generate("hi")).text == "Hello"
    assert "stream" not in server.requests[0].json


async def test_three_turns_lose_nothing() -> None:
    """Images, thinking, calls and results; a turn whose thinking stands between its calls; a search with citations."""
    first = [
        head(),
        *thinking(0, "Need ", "weather."),
        begin(1, **REDACTED),
        end(1),
        *text(2, "Looking."),
        *tool(3, "toolu_1", "wx", '{"c":', '"Oslo"}'),
        *tool(4, "toolu_2", "wx", '{"c":"Bergen"}'),
        *over("tool_use"),
    ]
    second = [
        head(),
        *thinking(0, "Hm.", signature="czI="),
        *tool(1, "toolu_3", "wx", '{"c":"Bodø"}'),
        *thinking(2, "And now?", signature="czM="),
        *tool(3, "toolu_4", "now"),
        *over("tool_use"),
    ]
    third = [
        head(),
        *text(0, "I searched. "),
        begin(1, **SEARCH),
        end(1),
        begin(2, **FOUND),
        end(2),
        begin(3, type="text", text=""),
        delta(3, type="text_delta", text="It rains."),
        delta(3, type="citations_delta", citation=CITATION),
        end(3),
        *over(),
    ]

    def now() -> str:
        """The time."""
        return ""

    def wx(c: str) -> str:
        """The weather."""
        return c

    conversation = Conversation.from_dict(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "content": "Which of these?"},
                        {"type": "image_binary", "binary": base64.b64encode(PNG).decode()},
                        {"type": "image_url", "content": "https://x/y.jpg"},
                    ],
                },
            ]
        }
    )
    with CannedServer(steps(first, second, third, [head(), *text(0, "Bye."), *over()])) as server:
        async with engine_for(server, "claude-opus-4-6") as engine:
            for results in ({"toolu_1": "rain", "toolu_2": "sun"}, {"toolu_3": "fog", "toolu_4": "noon"}, {}):
                completion = await engine.generate(
                    conversation, tools=[wx, now], generation=GenerationParams(reasoning_effort="high")
                )
                # Through a file and back, as between two runs of a program.
                conversation = Conversation.from_json(completion.conversation.to_json())
                for call_id, result in results.items():
                    conversation = conversation.with_message(
                        Message(role=Role.TOOL, content=result, tool_call_id=call_id)
                    )
            conversation = conversation.with_message(Message(role=Role.USER, content="Thanks."))
            await engine.generate(conversation, tools=[wx, now])
    for request in server.requests:
        validate(request.json)
    last = server.requests[-1].json
    assert last["system"] == "Be brief."
    assert last["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Which of these?"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()},
                },
                {"type": "image", "source": {"type": "url", "url": "https://x/y.jpg"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                THOUGHT,
                REDACTED,
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "toolu_1", "name": "wx", "input": {"c": "Oslo"}},
                {"type": "tool_use", "id": "toolu_2", "name": "wx", "input": {"c": "Bergen"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "sun"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "czI="},
                {"type": "tool_use", "id": "toolu_3", "name": "wx", "input": {"c": "Bodø"}},
                {"type": "thinking", "thinking": "And now?", "signature": "czM="},
                {"type": "tool_use", "id": "toolu_4", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_3", "content": "fog"},
                {"type": "tool_result", "tool_use_id": "toolu_4", "content": "noon"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I searched. "},
                SEARCH,
                FOUND,
                {"type": "text", "text": "It rains.", "citations": [CITATION]},
            ],
        },
        {"role": "user", "content": "Thanks."},
    ]
    assert completion.text == "I searched. It rains."


async def test_reasoning_is_streamed() -> None:
    with CannedServer(stream(sse(head(), *thinking(0, "a", "b"), *text(1, "c"), *over()))) as server:
        async with engine_for(server) as engine:
            async with engine.stream("hi") as found:
                events = [event async for event in found.events()]
                completion = await found.completion()
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["a", "b", ""]
    assert (completion.message.reasoning_content, completion.text) == ("ab", "c")
    assert completion.message.reasoning_details == [{"type": "thinking", "thinking": "ab", "signature": "c2ln"}]


class City(BaseModel):
    name: str
    size: int


LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


async def test_a_model_class_comes_back() -> None:
    with CannedServer(stream(sse(head(), *text(0, '{"name":"Oslo",', '"size":7}'), *over()))) as server:
        async with engine_for(server) as engine:
            completion = await engine.generate("hi", response_model=City)
            assert completion.parsed == City(name="Oslo", size=7)
        async with engine_for(server, "claude-3-7-sonnet-latest") as engine:
            with pytest.raises(UnsupportedParameterError, match="schema"):
                await engine.generate("hi", response_model=City, tools=[LOOK])
    assert server.requests[0].json["output_config"]["format"]["schema"]["additionalProperties"] is False
    assert len(server.requests) == 1


async def test_overloaded_before_the_first_word_is_tried_again() -> None:
    busy = stream(sse(head(), PING, error("overloaded_error")))
    full = answer(json.dumps(error("overloaded_error")).encode(), 529)
    with CannedServer(busy, full, HELLO) as server:
        async with engine_for(server, retry_backoff_base=0.001, retry_backoff_max=0.002) as engine:
            assert (await engine.generate("hi")).text == "Hello"
    assert len(server.requests) == 3


async def test_overloaded_after_it_is_an_error_that_keeps_what_came() -> None:
    with CannedServer(stream(sse(head(), *text(0, "Hel")[:2], error("overloaded_error")))) as server:
        async with engine_for(server) as engine:
            with pytest.raises((OverloadedError, StreamInterrupted)) as caught:
                await engine.generate("hi")
    assert caught.value.partial.text == "Hel"
    assert caught.value.provider == "anthropic"
    assert len(server.requests) == 1


async def test_a_cut_stream_never_looks_finished() -> None:
    with CannedServer(stream(sse(head(), *text(0, "Hel")), "close")) as server:
        async with engine_for(server) as engine:
            with pytest.raises(StreamInterrupted) as caught:
                await engine.generate("hi")
    assert caught.value.partial.text == "Hel"


async def test_an_error_is_typed_and_hides_the_key() -> None:
    body = json.dumps(
        error("authentication_error", "invalid x-api-key sk-ant-test-123456", request_id="req_9")
    ).encode()
    with CannedServer(answer(body, 401)) as server:
        async with engine_for(server) as engine:
            with pytest.raises(AuthenticationError) as caught:
                await engine.generate("hi")
    assert (caught.value.request_id, caught.value.code) == ("req_9", "authentication_error")
    assert "sk-ant-test-123456" not in str(caught.value)


async def test_leaving_early_counts_the_prompt_exactly() -> None:
    with CannedServer(stream(sse(head(), *text(0, "a", "b")[:-1]), "hang")) as server:
        async with engine_for(server) as engine:
            async with engine.stream("hi") as found:
                async for _ in found:
                    break
            with pytest.raises(StreamInterrupted) as caught:
                await found.completion()
    usage = caught.value.partial.usage
    assert (usage.input_tokens, usage.source) == (12, "estimated")
    assert usage.output_tokens >= 1
