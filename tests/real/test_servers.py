"""The remote engines against two servers that nobody here wrote: llama.cpp's and vLLM's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anyio
import pytest
from pydantic import BaseModel

from asyncinfer import (
    AuthenticationError,
    Conversation,
    Engine,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    Message,
    RemoteParams,
    Role,
    TextDelta,
    ToolCallDelta,
    UsageUpdate,
    open_engine,
)

from .servers import RealServer, llama_server, vllm_server

pytestmark = pytest.mark.anyio

FRANCE = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return json.dumps({"weather": "sunny", "temp": 21, "city": city})


@pytest.fixture(
    scope="module", params=["llama", pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.timeout(900)])]
)
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with llama_server() if request.param == "llama" else vllm_server() as running:
        yield running


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(server: RealServer) -> Engine:
    remote = RemoteParams(api_url=server.url, api_key=server.key)
    # Greedy on purpose: what is not set is not sent, and a server's own default is to sample.
    greedy = GenerationParams(temperature=0.0)
    return open_engine(f"{server.engine}:{server.model}", remote_params=remote, generation_params=greedy)


async def test_stream(engine: Engine) -> None:
    async with engine.stream(FRANCE) as stream:
        events = [event async for event in stream.events()]
        completion = await stream.completion()
    assert completion.text == ANSWER
    assert sum(type(event) is TextDelta for event in events) > 1
    assert any(type(event) is UsageUpdate for event in events)
    assert completion.finish_reason is FinishReason.STOP
    assert completion.usage.source == "exact"
    assert completion.usage.input_tokens > 10
    assert completion.usage.output_tokens > 5
    await engine.aclose()


async def test_many_in_order(engine: Engine) -> None:
    sums = [(a, b) for a in range(10) for b in range(4)]
    results = await engine.generate_many([f"What is {a} + {b}?" for a, b in sums])
    assert [result.text for result in results] == [f"{a} + {b} = {a + b}." for a, b in sums]
    await engine.aclose()


async def test_tools_and_their_results(engine: Engine) -> None:
    conversation = Conversation(
        messages=[Message(role=Role.USER, content="What is the weather in Oslo?")], tools=[get_weather]
    )
    async with engine.stream(conversation) as stream:
        events = [event async for event in stream.events()]
        completion = await stream.completion()
    assert any(type(event) is ToolCallDelta for event in events)
    assert completion.finish_reason is FinishReason.TOOL_CALLS
    calls = completion.message.tool_calls
    assert calls is not None
    assert (calls[0].function.name, calls[0].get_arguments_dict()) == ("get_weather", {"city": "Oslo"})
    result = Message(role=Role.TOOL, content='{"weather": "sunny", "temp": 21}', tool_call_id=calls[0].id)
    completion = await engine.generate(completion.conversation.with_message(result))
    assert completion.text == "It is sunny in Oslo and 21 degrees."
    await engine.aclose()


async def test_json_schema(engine: Engine) -> None:
    completion = await engine.generate("Give JSON for the person Alice aged 30.", response_model=Person)
    assert completion.parsed == Person(name="Alice", age=30)
    # A schema the model would not follow by itself: the server really constrains it.
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    generation = GenerationParams(
        guided_decoding=GuidedDecodingParams(json={**schema, "additionalProperties": False}), max_new_tokens=100
    )
    completion = await engine.generate(FRANCE, generation=generation)
    assert set(json.loads(completion.text)) == {"ok"}
    await engine.aclose()


async def test_max_tokens_and_stop_strings(engine: Engine) -> None:
    cut = await engine.generate(FRANCE, generation=GenerationParams(max_new_tokens=3))
    assert cut.finish_reason is FinishReason.LENGTH
    assert cut.usage.output_tokens == 3
    stopped = await engine.generate(FRANCE, generation=GenerationParams(stop_strings=[" is Par"]))
    assert stopped.text == "The capital of France"
    assert stopped.finish_reason is FinishReason.STOP
    await engine.aclose()


async def test_leaving_early_is_seen_by_the_server(engine: Engine, server: RealServer) -> None:
    endless = GenerationParams(max_new_tokens=900, extra_body={"ignore_eos": True})
    made: list[float] = []
    # Where all of a server shares two cores, its engine may be done with an answer before its front has sent a token.
    while len(made) < 10 and min(made, default=900) >= 600:
        before = await anyio.to_thread.run_sync(server.metric, server.made)
        async for _ in engine.stream("Count from 1 to 20.", generation=endless):
            break
        with anyio.fail_after(20):
            while await anyio.to_thread.run_sync(server.metric, server.running):
                await anyio.sleep(0.02)
        made.append(await anyio.to_thread.run_sync(server.metric, server.made) - before)
    assert min(made) < 600, f"the server went on to make {made} tokens"
    assert (await engine.generate(FRANCE)).text == ANSWER
    await engine.aclose()


@pytest.fixture
def messages_engine(server: RealServer) -> Engine:
    """The same server, spoken to in Anthropic's format."""
    return open_engine(
        f"anthropic:{server.model}",
        remote_params=RemoteParams(api_url=f"{server.url}/v1/messages", api_key=server.key or "none"),
        generation_params=GenerationParams(temperature=0.0, max_new_tokens=200),
    )


async def test_messages_stream(messages_engine: Engine) -> None:
    async with messages_engine.stream(FRANCE) as stream:
        events = [event async for event in stream.events()]
        completion = await stream.completion()
    assert completion.text == ANSWER
    assert sum(type(event) is TextDelta for event in events) > 1
    assert completion.finish_reason is FinishReason.STOP
    assert completion.usage.output_tokens > 5
    await messages_engine.aclose()


async def test_messages_tools_and_their_results(messages_engine: Engine) -> None:
    conversation = Conversation(
        messages=[Message(role=Role.USER, content="What is the weather in Oslo?")], tools=[get_weather]
    )
    completion = await messages_engine.generate(conversation)
    assert completion.finish_reason is FinishReason.TOOL_CALLS
    calls = completion.message.tool_calls
    assert calls is not None
    assert (calls[0].function.name, calls[0].get_arguments_dict()) == ("get_weather", {"city": "Oslo"})
    result = Message(role=Role.TOOL, content='{"weather": "sunny", "temp": 21}', tool_call_id=calls[0].id)
    completion = await messages_engine.generate(completion.conversation.with_message(result))
    assert completion.text == "It is sunny in Oslo and 21 degrees."
    await messages_engine.aclose()


@pytest.fixture
def responses_engine(server: RealServer) -> Engine:
    """The same server, spoken to in the format of OpenAI's Responses."""
    return open_engine(
        f"{server.engine}:{server.model}",
        remote_params=RemoteParams(api_url=f"{server.url}/v1/responses", api_key=server.key),
        generation_params=GenerationParams(temperature=0.0, max_new_tokens=200),
    )


async def test_responses_stream(responses_engine: Engine) -> None:
    async with responses_engine.stream(FRANCE) as stream:
        events = [event async for event in stream.events()]
        completion = await stream.completion()
    assert completion.text == ANSWER
    assert sum(type(event) is TextDelta for event in events) > 1
    assert completion.finish_reason is FinishReason.STOP
    assert completion.usage.output_tokens > 5
    await responses_engine.aclose()


async def test_models(engine: Engine) -> None:
    assert len(await engine.list_models()) == 1
    await engine.aclose()


async def test_many_streams_at_once(engine: Engine) -> None:
    async def one() -> None:
        assert "".join([token async for token in engine.stream(FRANCE)]) == ANSWER

    async with anyio.create_task_group() as group:
        for _ in range(64):
            group.start_soon(one)
    await engine.aclose()


async def test_a_wrong_key(server: RealServer) -> None:
    if server.key is None:
        assert server.engine == "remote_vllm"  # started without one: there is nothing to be wrong
        return
    engine = open_engine("remote:tiny", remote_params=RemoteParams(api_url=server.url, api_key="sk-wrong"))
    with pytest.raises(AuthenticationError):
        await engine.generate(FRANCE)
    await engine.aclose()
