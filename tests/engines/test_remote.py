"""Remote engines against a fake provider over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from traceback import format_exception
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr

from asyncinfer import (
    AsyncInferError,
    AuthenticationError,
    BadRequestError,
    ConfigError,
    ConnectError,
    ContentItem,
    Conversation,
    FinishReason,
    FirstTokenTimeout,
    GenerationParams,
    InferenceConfig,
    LambdaInferenceEngine,
    Message,
    ModelParams,
    OpenAIInferenceEngine,
    RateLimitError,
    RemoteInferenceEngine,
    RemoteParams,
    RemoteVLLMInferenceEngine,
    Role,
    ServerError,
    StreamInterrupted,
    Timeouts,
    Type,
    open_engine,
)
from tests.servers.canned import CannedServer, answer, stream
from tests.servers.provider import Fail, FakeProvider, Reply

pytestmark = pytest.mark.anyio

HI = b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as server:
        yield server


def engine_for(provider: FakeProvider, **remote: Any) -> RemoteInferenceEngine:
    return RemoteInferenceEngine(
        ModelParams(model_name="fake-1"), remote_params=RemoteParams(api_url=provider.url, **remote)
    )


async def until(condition: Any, seconds: float = 2.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.005)


async def test_stream_generate_and_models(provider: FakeProvider) -> None:
    async with engine_for(provider) as engine:
        tokens = [token async for token in engine.stream("one two three")]
        assert tokens == ["one", " two", " three"]
        completion = await engine.generate("four five")
        assert completion.text == "four five"
        assert completion.finish_reason is FinishReason.STOP
        assert completion.usage.source == "exact"
        assert completion.usage.output_tokens == 2
        assert await engine.list_models() == ["fake-1", "fake-2"]
    assert provider.stats.connections == 1


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/", "/v1/chat/completions"])
async def test_any_spelling_of_the_url(provider: FakeProvider, suffix: str) -> None:
    engine = RemoteInferenceEngine(
        ModelParams(model_name="m"), remote_params=RemoteParams(api_url=provider.origin + suffix)
    )
    assert (await engine.generate("x")).text == "x"
    assert await engine.list_models() == ["fake-1", "fake-2"]
    assert {request.path for request in provider.stats.requests} == {"/v1/chat/completions", "/v1/models"}
    await engine.aclose()


async def test_only_what_was_set_is_sent(provider: FakeProvider) -> None:
    engine = engine_for(provider)
    await engine.generate("x")
    await engine.generate("x", generation=GenerationParams(temperature=0.5, max_new_tokens=7))
    await engine.generate("x", inference_config=InferenceConfig())
    bare, asked, config = (request.body for request in provider.stats.requests)
    assert set(bare) <= {"model", "messages", "stream", "stream_options"}
    assert config == bare
    assert asked["temperature"] == 0.5
    assert asked.get("max_tokens", asked.get("max_completion_tokens")) == 7
    await engine.aclose()


async def test_a_document_instead_of_a_stream(provider: FakeProvider) -> None:
    engine = engine_for(provider, use_streaming=False)
    completion = await engine.generate("one two")
    assert completion.text == "one two"
    assert not provider.stats.requests[0].body.get("stream")
    await engine.aclose()


async def test_early_exit_is_seen_upstream(provider: FakeProvider) -> None:
    provider.tokens, provider.per_token = 1000, 0.01
    engine = engine_for(provider)
    async for _ in engine.stream("x"):
        left = time.monotonic()
        break
    await until(lambda: provider.stats.disconnects)
    assert provider.stats.disconnects[0].at - left < 0.5
    await until(lambda: provider.stats.in_flight == 0)
    await engine.aclose()


async def test_cancellation_is_seen_upstream(provider: FakeProvider) -> None:
    provider.tokens, provider.per_token = 1000, 0.01
    engine = engine_for(provider)
    with anyio.move_on_after(0.2):
        await engine.generate("x")
    await until(lambda: provider.stats.disconnects and provider.stats.in_flight == 0)
    await engine.aclose()


async def test_retries_until_the_first_token(provider: FakeProvider) -> None:
    provider.fail = [Fail(status=500, times=1), Fail(cut_after=0, times=1), Fail(status=429, times=1)]
    engine = engine_for(provider)
    completion = await engine.generate("x y")
    assert completion.text == "x y"
    assert completion.timings.attempts == 4
    await engine.aclose()


async def test_a_cut_after_the_first_token_is_reported_with_the_rest(provider: FakeProvider) -> None:
    provider.fail = [Fail(cut_after=2)]
    engine = engine_for(provider)
    with pytest.raises(StreamInterrupted) as caught:
        await engine.generate("a b c d")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a b"
    assert provider.stats.served == 1
    await engine.aclose()


async def test_a_date_to_come_back_at_counts_even_where_the_server_does_not_say_what_time_it_is() -> None:
    later = formatdate(time.time() + 3600, usegmt=True)
    with CannedServer(answer(b"{}", 429, {"retry-after": later})) as server:
        engine = RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=RemoteParams(api_url=server.url))
        with pytest.raises(RateLimitError) as caught:
            await engine.generate("x")
        await engine.aclose()
    assert caught.value.retry_after == pytest.approx(3600, abs=60)
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_an_answer_that_was_finished_is_complete_however_the_body_ends(end: str) -> None:
    text = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
    with CannedServer(stream(text, end)) as server:
        engine = RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=RemoteParams(api_url=server.url))
        completion = await engine.generate("x")
        await engine.aclose()
    assert (completion.text, completion.finish_reason) == ("ok", "stop")
    assert completion.usage.source == "estimated"


async def test_an_error_after_the_last_events_is_not_lost() -> None:
    text = b'data: {"choices":[{"index":0,"delta":{"content":"half"}}]}\n\n'
    error = b'data: {"error":{"message":"engine died","type":"server_error"}}\n\ndata: [DONE]\n\n'
    with CannedServer(stream(text + error)) as server:
        engine = RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=RemoteParams(api_url=server.url))
        with pytest.raises(StreamInterrupted, match="engine died") as caught:
            await engine.generate("x")
        await engine.aclose()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "half"


async def test_refusals_are_typed_and_final(provider: FakeProvider) -> None:
    engine = engine_for(provider)
    provider.fail = [Fail(status=400, body={"error": {"message": "no such thing", "code": "invalid_value"}})]
    with pytest.raises(BadRequestError, match="no such thing") as caught:
        await engine.generate("x")
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (400, "invalid_value", False)
    assert provider.stats.served == 1
    provider.fail, provider.key = [], "sk-right"
    with pytest.raises(AuthenticationError):
        await engine.generate("x")
    await engine.aclose()


async def test_keys_are_sent_and_never_shown(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    provider.key = "sk-sesame"
    monkeypatch.setenv("MY_KEY", "sk-sesame")
    engine = engine_for(provider, api_key_env_varname="MY_KEY")
    assert (await engine.generate("x")).text == "x"
    await engine.aclose()
    engine = engine_for(provider, api_key="sk-sesame")
    assert (await engine.generate("x")).text == "x"
    provider.fail = [Fail(status=400, body={"error": {"message": "bad"}})]
    with pytest.raises(BadRequestError) as caught:
        await engine.generate("x")
    shown = f"{caught.value!r} {caught.value} {engine.remote_params!r} {engine!r} {vars(caught.value)}"
    assert "sesame" not in shown
    await engine.aclose()


async def test_a_key_that_a_server_quotes_is_taken_out_of_every_error() -> None:
    said = "cannot take Tr0ub4dor+3/x of Basic bG9naW46cGFzcw=="
    quoted = json.dumps({"error": {"message": said, "code": "no Tr0ub4dor+3/x"}}).encode()
    asked: list[Callable[[RemoteInferenceEngine], Awaitable[Any]]] = [
        lambda engine: engine.generate("x"),
        lambda engine: engine.generate("x"),
        lambda engine: engine.list_models(),
    ]
    answers = (answer(quoted, 401), stream(HI, b"data: " + quoted + b"\n\n"), answer(quoted, 403))
    with CannedServer(*answers) as server:
        remote = RemoteParams(
            api_url=server.url,
            api_key=SecretStr("Tr0ub4dor+3/x"),
            extra_headers={"proxy-authorization": "Basic bG9naW46cGFzcw=="},
            max_retries=0,
        )
        async with RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=remote) as engine:
            for ask in asked:
                with pytest.raises(AsyncInferError, match=r"cannot take \[secret\] of Basic \[secret\]") as caught:
                    await ask(engine)
                told = "".join(format_exception(caught.value)) + repr(vars(caught.value))
                assert "Tr0ub4dor" not in told and "bG9naW46" not in told


async def test_how_often_an_engine_tries_again_is_not_learnt_from_another() -> None:
    with CannedServer(answer(b"{}", 500), answer(b"{}", 500), stream(HI, b"data: [DONE]\n\n")) as server:
        model, url = ModelParams(model_name="m"), server.url
        async with RemoteInferenceEngine(model, remote_params=RemoteParams(api_url=url, max_retries=0)) as once:
            with pytest.raises(ServerError):
                await once.generate("x")
            async with RemoteInferenceEngine(model, remote_params=RemoteParams(api_url=url)) as patient:
                assert (await patient.generate("x")).text == "Hi"  # while the first one holds their limiter


async def test_every_error_of_an_engine_has_one_name_for_the_provider() -> None:
    begun = b'data: {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "delta": "Hi"}\n\n'
    broken = b'data: {"type": "error", "code": "server_error", "message": "boom"}\n\n'
    with CannedServer(answer(b"{}", 400), stream(broken), stream(begun, broken), stream(begun)) as server:
        remote = RemoteParams(api_url=f"{server.url}/v1/responses", max_retries=0)
        async with OpenAIInferenceEngine(ModelParams(model_name="m"), remote_params=remote) as engine:
            for kind in (BadRequestError, ServerError, StreamInterrupted, StreamInterrupted):
                with pytest.raises(kind) as caught:
                    await engine.generate("x")
                assert caught.value.provider == "openai"


async def test_missing_key_and_url_name_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAIInferenceEngine(ModelParams(model_name="gpt-4o-mini"))
    with pytest.raises(ConfigError, match="api_url"):
        RemoteInferenceEngine(ModelParams(model_name="m"))
    with pytest.raises(ConfigError, match="2025"):
        LambdaInferenceEngine(ModelParams(model_name="m"))
    with pytest.raises(ConfigError, match="NOT_THERE"):
        OpenAIInferenceEngine(ModelParams(model_name="m"), remote_params=RemoteParams(api_key_env_varname="NOT_THERE"))


async def test_nobody_listens() -> None:
    engine = RemoteInferenceEngine(
        ModelParams(model_name="m"), remote_params=RemoteParams(api_url="http://127.0.0.1:9", max_retries=0)
    )
    with pytest.raises(ConnectError):
        await engine.generate("x")
    await engine.aclose()


async def test_a_server_that_never_was_there_is_named_soon() -> None:
    engine = RemoteInferenceEngine(
        ModelParams(model_name="never"), remote_params=RemoteParams(api_url="http://127.0.0.1:9")
    )
    async with engine.stream("x") as stream:
        with pytest.raises(ConnectError, match="is the server running"):
            await stream.completion()
        assert stream.timings.attempts == 3
    await engine.aclose()


async def test_a_silent_model_is_asked_once_more(provider: FakeProvider) -> None:
    provider.first_token = 30.0
    engine = engine_for(provider)
    with pytest.raises(FirstTokenTimeout):
        await engine.generate("x", timeouts=Timeouts(first_token=0.1))
    assert provider.stats.served == 2
    await engine.aclose()


async def test_rows_in_order_with_failures_isolated(provider: FakeProvider) -> None:
    provider.fail = [
        Fail(status=400, match=lambda body: "bad" in body["messages"][-1]["content"]),
        Fail(status=503, every=10),
    ]
    rows = [f"row {number}" + (" bad" if number % 25 == 3 else "") for number in range(200)]
    engine = engine_for(provider)
    results = await engine.generate_many(rows)
    for row, result in zip(rows, results, strict=True):
        assert bool(result) is ("bad" not in row)
        assert not result or result.text == row
    await engine.aclose()


async def test_five_hundred_streams_at_once(provider: FakeProvider) -> None:
    provider.tokens, provider.first_token, provider.per_token = 4, 0.5, 0.05
    engine = engine_for(provider, num_workers=500, use_adaptive_concurrency=False)
    done = 0

    async def one(number: int) -> None:
        nonlocal done
        text = "".join([token async for token in engine.stream(f"n{number}")])
        assert text.startswith(f"n{number}")
        done += 1

    async with anyio.create_task_group() as group:
        for number in range(500):
            group.start_soon(one, number)
    assert done == 500
    assert provider.stats.max_in_flight > 250
    await engine.aclose()


async def test_num_workers_caps_what_is_in_flight(provider: FakeProvider) -> None:
    provider.first_token = 0.02
    engine = engine_for(provider, num_workers=3)
    await engine.generate_many([f"{number}" for number in range(30)])
    assert provider.stats.max_in_flight <= 3
    await engine.aclose()


async def test_a_rate_limit_is_kept_and_no_row_is_lost(provider: FakeProvider) -> None:
    provider.rpm, provider.window = 20, 1.0
    engine = engine_for(provider)
    results = await engine.generate_many([f"{number}" for number in range(60)])
    assert all(results)
    await engine.aclose()


async def test_images_travel_with_their_real_type(provider: FakeProvider, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(PNG)
    conversation = Conversation(
        messages=[
            Message(
                role=Role.USER,
                content=[
                    ContentItem(type=Type.TEXT, content="what?"),
                    ContentItem(type=Type.IMAGE_PATH, content=str(path)),
                    ContentItem(type=Type.IMAGE_URL, content="https://example.com/a.png"),
                ],
            )
        ]
    )
    engine = engine_for(provider)
    await engine.generate(conversation)
    parts = provider.stats.requests[0].body["messages"][0]["content"]
    assert parts[0] == {"type": "text", "text": "what?"}
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert parts[2]["image_url"]["url"] == "https://example.com/a.png"
    with pytest.raises(ConfigError, match=r"nowhere\.png"):
        missing = ContentItem(type=Type.IMAGE_PATH, content="nowhere.png")
        await engine.generate(Conversation(messages=[Message(role=Role.USER, content=[missing])]))
    await engine.aclose()


async def test_tools_and_structured_output(provider: FakeProvider) -> None:
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    def get_weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: where.
        """
        return city

    engine = engine_for(provider)
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    provider.reply = lambda body: Reply(tool_calls=[call], finish_reason="tool_calls")
    completion = await engine.generate("weather?", tools=[get_weather])
    assert completion.finish_reason is FinishReason.TOOL_CALLS
    assert completion.message.tool_calls is not None
    assert completion.message.tool_calls[0].get_arguments_dict() == {"city": "Oslo"}
    sent = provider.stats.requests[-1].body["tools"][0]["function"]
    assert sent["name"] == "get_weather"
    assert sent["parameters"]["required"] == ["city"]

    provider.reply = lambda body: '{"name": "Ada", "age": 36}'
    completion = await engine.generate("who?", response_model=Person)
    assert completion.parsed == Person(name="Ada", age=36)
    assert provider.stats.requests[-1].body["response_format"]["type"] == "json_schema"
    await engine.aclose()


async def test_a_client_of_the_users_own(provider: FakeProvider) -> None:
    import httpx2

    for module in (httpx, httpx2):
        async with module.AsyncClient() as client:
            engine = RemoteInferenceEngine(
                ModelParams(model_name="m"), remote_params=RemoteParams(api_url=provider.url), http_client=client
            )
            assert (await engine.generate("x y")).text == "x y"
            await engine.aclose()
            assert not client.is_closed


async def test_first_token_clock_over_http(provider: FakeProvider) -> None:
    provider.first_token = 5.0
    engine = engine_for(provider, max_retries=0)
    with pytest.raises(TimeoutError):
        await engine.generate("x", timeouts=Timeouts(first_token=0.1))
    await until(lambda: provider.stats.in_flight == 0)
    await engine.aclose()


async def test_vllm_serves_its_adapter(provider: FakeProvider) -> None:
    engine = RemoteVLLMInferenceEngine(
        ModelParams(model_name="base", adapter_model="my-lora"), remote_params=RemoteParams(api_url=provider.origin)
    )
    await engine.generate("x")
    assert provider.stats.requests[0].body["model"] == "my-lora"
    await engine.aclose()


async def test_open_engine(provider: FakeProvider) -> None:
    engine = open_engine("remote:m", remote_params=RemoteParams(api_url=provider.url))
    assert isinstance(engine, RemoteInferenceEngine)
    assert (await engine.generate("x")).text == "x"
    await engine.aclose()
    config = InferenceConfig.from_str(
        f"model: {{model_name: m}}\nengine: remote_vllm\nremote_params: {{api_url: '{provider.origin}'}}\n"
    )
    engine = open_engine(config)
    assert isinstance(engine, RemoteVLLMInferenceEngine)
    assert (await engine.generate("x")).text == "x"
    await engine.aclose()


async def test_an_error_is_retried_only_while_it_may_help(provider: FakeProvider) -> None:
    provider.fail = [Fail(status=500)]
    engine = engine_for(provider, max_retries=2)
    with pytest.raises(ServerError):
        await engine.generate("x")
    assert provider.stats.served == 3
    await engine.aclose()


def test_one_engine_over_many_loops(provider: FakeProvider) -> None:
    engine = engine_for(provider)

    async def once() -> str:
        return (await engine.generate("a b")).text

    for backend in ("asyncio", "trio", "asyncio"):
        assert anyio.run(once, backend=backend) == "a b"
