"""The Bedrock engine over real HTTP and the real event-stream framing, on asyncio and trio."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import anyio
import pytest

from asyncinfer import (
    APIError,
    AsyncInferError,
    AuthenticationError,
    BadRequestError,
    BedrockInferenceEngine,
    ConfigError,
    ConnectError,
    ContentItem,
    Conversation,
    FinishReason,
    FirstTokenTimeout,
    GenerationParams,
    Message,
    ModelParams,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ReasoningDelta,
    RemoteParams,
    RetryKind,
    Role,
    ServerError,
    Start,
    StreamInterrupted,
    StreamTruncated,
    TextDelta,
    Timeouts,
    ToolCallDelta,
    TotalTimeout,
    Type,
    open_engine,
)
from tests.servers.background import eventually
from tests.servers.bedrock_bytes import (
    REQUEST_ID,
    begin,
    document,
    error,
    event,
    exception,
    finish,
    refusal,
    streamed,
    text,
    words,
)
from tests.servers.canned import Answer, CannedServer, Gate, Request, answer

pytestmark = pytest.mark.anyio

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Dummy credentials, and nothing of this machine's."""
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def engine_for(server: CannedServer, model: str = CLAUDE, **remote: Any) -> BedrockInferenceEngine:
    return BedrockInferenceEngine(
        ModelParams(model_name=model), remote_params=RemoteParams(api_url=server.origin, **remote)
    )


@pytest.fixture
def server() -> Iterator[CannedServer]:
    with CannedServer(streamed(words("Hello", ", ", "world"))) as found:
        yield found


async def test_a_stream(server: CannedServer) -> None:
    engine = engine_for(server)
    async with engine.stream("hi") as stream:
        events = [found async for found in stream.events()]
        completion = await stream.completion()
    assert [found.text for found in events if isinstance(found, TextDelta)] == ["Hello", ", ", "world"]
    assert completion.text == "Hello, world"
    assert completion.finish_reason is FinishReason.STOP
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (7, 3)
    assert completion.usage.source == "exact"
    assert completion.request_id == REQUEST_ID
    assert completion.model == CLAUDE
    assert isinstance(events[0], Start)
    [request] = server.requests
    assert (request.method, unquote(request.target)) == ("POST", f"/model/{CLAUDE}/converse-stream")
    assert request.json == {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/")
    assert "/us-east-1/bedrock/aws4_request" in request.headers["authorization"]
    await engine.aclose()


async def test_connections_are_used_again(server: CannedServer) -> None:
    engine = engine_for(server)
    for _ in range(3):
        assert (await engine.generate("hi")).text == "Hello, world"
    assert server.connections == 1
    await engine.aclose()


async def test_the_first_token_comes_before_the_last_is_made() -> None:
    gate = Gate()
    with CannedServer(streamed(begin() + text("one"), gate, text(" two") + finish())) as server:
        engine = engine_for(server)
        seen = []
        async for token in engine.stream("hi"):
            seen.append(token)
            gate.open()
        assert seen == ["one", " two"]
        await engine.aclose()


async def test_a_whole_document() -> None:
    blocks = (
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "c2VhbGVk"}},
        {"text": "Look."},
        {"toolUse": {"toolUseId": "t1", "name": "wx", "input": {"city": "Oslo"}}},
    )
    with CannedServer(document(*blocks, reason="tool_use")) as server:
        engine = engine_for(server, use_streaming=False)
        completion = await engine.generate("hi")
        assert completion.text == "Look."
        assert completion.finish_reason is FinishReason.TOOL_CALLS
        assert completion.message.reasoning_content == "hm"
        assert completion.message.reasoning_details == [
            {"reasoningText": {"text": "hm", "signature": "c2ln"}},
            {"redactedContent": "c2VhbGVk"},
        ]
        assert completion.message.tool_calls is not None
        assert completion.message.tool_calls[0].get_arguments_dict() == {"city": "Oslo"}
        assert completion.request_id == REQUEST_ID
        assert unquote(server.requests[0].target).endswith("/converse")
        await engine.aclose()


async def test_three_turns_with_tools_thinking_and_an_image(tmp_path: Any) -> None:
    first = (
        begin()
        + event("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": {"text": "Need "}})
        + event("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": {"text": "weather."}})
        + event("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": {"signature": "c2lnbmVk"}})
        + event("contentBlockStop", contentBlockIndex=0)
        + event("contentBlockDelta", contentBlockIndex=1, delta={"reasoningContent": {"redactedContent": "c2Vh"}})
        + event("contentBlockStop", contentBlockIndex=1)
        + event("contentBlockStart", contentBlockIndex=2, start={"toolUse": {"toolUseId": "t1", "name": "wx"}})
        + event("contentBlockDelta", contentBlockIndex=2, delta={"toolUse": {"input": '{"c":'}})
        + event("contentBlockDelta", contentBlockIndex=2, delta={"toolUse": {"input": '"Oslo"}'}})
        + event("contentBlockStop", contentBlockIndex=2)
        + event("contentBlockStart", contentBlockIndex=3, start={"toolUse": {"toolUseId": "t2", "name": "now"}})
        + event("contentBlockStop", contentBlockIndex=3)
        + finish("tool_use", cacheReadInputTokens=100, cacheWriteInputTokens=20)
    )
    picture, paper = tmp_path / "x.png", tmp_path / "notes.md"
    picture.write_bytes(PNG)
    paper.write_text("# Notes")
    with CannedServer(streamed(first), streamed(words("Rain."))) as server:
        engine = engine_for(server)
        tools = [{"type": "function", "function": {"name": "wx", "parameters": {"type": "object"}}}]
        asked = Conversation(
            messages=[
                Message(role=Role.SYSTEM, content="Be brief."),
                Message(
                    role=Role.USER,
                    content=[
                        ContentItem(type=Type.TEXT, content="Weather?"),
                        ContentItem(type=Type.IMAGE_PATH, content=str(picture)),
                        ContentItem(type=Type.DOCUMENT_PATH, content=str(paper)),
                    ],
                ),
            ]
        )
        async with engine.stream(asked, tools=tools) as stream:
            kinds = [type(found) async for found in stream.events()]
            answered = await stream.completion()
        assert kinds.count(ReasoningDelta) == 4
        assert kinds.count(ToolCallDelta) == 4
        assert answered.usage.input_tokens == 127
        assert (answered.usage.cached_tokens, answered.usage.cache_write_tokens) == (100, 20)
        assert answered.message.tool_calls is not None
        assert [(call.id, call.get_arguments_dict()) for call in answered.message.tool_calls] == [
            ("t1", {"c": "Oslo"}),
            ("t2", {}),
        ]
        conversation = answered.conversation
        for name, result in (("t1", "rain"), ("t2", "noon")):
            conversation = conversation.with_message(Message(role=Role.TOOL, tool_call_id=name, content=result))
        last = await engine.generate(conversation, tools=tools)
        assert last.text == "Rain."
        again = last.conversation.with_message(Message(role=Role.USER, content="Sure?"))
        await engine.generate(again, tools=tools)
        sent = server.requests[2].json
        assert sent["system"] == [{"text": "Be brief."}]
        _, image, notes = sent["messages"][0]["content"]
        assert image["image"] == {"format": "png", "source": {"bytes": b64encode(PNG).decode()}}
        assert notes["document"] == {"format": "md", "name": "notes", "source": {"bytes": "IyBOb3Rlcw=="}}
        assert sent["messages"][1]["content"] == [
            {"reasoningContent": {"reasoningText": {"text": "Need weather.", "signature": "c2lnbmVk"}}},
            {"reasoningContent": {"redactedContent": "c2Vh"}},
            {"toolUse": {"toolUseId": "t1", "name": "wx", "input": {"c": "Oslo"}}},
            {"toolUse": {"toolUseId": "t2", "name": "now", "input": {}}},
        ]
        results = [block["toolResult"] for block in sent["messages"][2]["content"]]
        assert [(found["toolUseId"], found["content"]) for found in results] == [
            ("t1", [{"text": "rain"}]),
            ("t2", [{"text": "noon"}]),
        ]
        assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user", "assistant", "user"]
        await engine.aclose()


async def test_an_early_exit_is_seen_upstream() -> None:
    with CannedServer(streamed(begin() + text("one"), "hang")) as server:
        engine = engine_for(server)
        async for _ in engine.stream("hi"):
            left = time.monotonic()
            break
        await eventually(lambda: server.interrupted)
        assert server.disconnects[0].at - left < 0.5
        await engine.aclose()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancellation_is_seen_upstream(begun: bool) -> None:
    steps: list[Any] = [begin() + text("one"), "hang"] if begun else ["hang"]
    with CannedServer(streamed(*steps) if begun else ["hang"]) as server:
        engine = engine_for(server)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(engine.generate, "hi")
                await eventually(lambda: server.requests)
                await anyio.sleep(0.05)
                scope.cancel()
        await eventually(lambda: server.interrupted)
        await engine.aclose()


async def test_closing_the_engine_stops_its_calls() -> None:
    with CannedServer(streamed(begin() + text("one"), "hang")) as server:
        engine = engine_for(server)
        stream = engine.stream("hi")
        tokens = aiter(stream)
        assert await anext(tokens) == "one"
        await engine.aclose()
        await eventually(lambda: server.interrupted)


@pytest.mark.parametrize(
    ("status", "name", "kind", "verdict"),
    [
        (429, "ThrottlingException", RateLimitError, RetryKind.THROTTLED),
        (400, "ValidationException", BadRequestError, RetryKind.NEVER),
        (403, "ExpiredTokenException", AuthenticationError, RetryKind.NEVER),
        (502, "BadGateway", ServerError, RetryKind.TRANSIENT),
    ],
)
@pytest.mark.parametrize("streams", [True, False])
async def test_refusals_are_typed(status: int, name: str, kind: type, verdict: RetryKind, streams: bool) -> None:
    with CannedServer(refusal(status, name, "because")) as server:
        engine = engine_for(server, max_retries=0, use_streaming=streams)
        with pytest.raises(kind, match="because") as caught:
            await engine.generate("hi")
        assert type(caught.value) is kind
        assert (caught.value.status, caught.value.code, caught.value.retry) == (status, name, verdict)
        assert (caught.value.request_id, caught.value.provider) == (REQUEST_ID, "bedrock")
        assert len(server.requests) == 1, "botocore's own retries are off"
        await engine.aclose()


async def test_retries_are_ours_until_the_first_delta() -> None:
    answers = (
        refusal(500, "InternalServerException"),
        streamed(begin() + exception("modelStreamErrorException", originalStatusCode=500)),
        streamed(begin(), "reset"),
        streamed(words("done")),
    )
    with CannedServer(*answers) as server:
        engine = engine_for(server)
        completion = await engine.generate("hi")
        assert (completion.text, completion.timings.attempts) == ("done", 4)
        await engine.aclose()


async def test_how_often_an_engine_tries_again_is_its_own_affair() -> None:
    refused = refusal(500, "InternalServerException")
    with CannedServer(streamed(words("one")), refused, refused, streamed(words("two"))) as server:
        patient, once = engine_for(server), engine_for(server, max_retries=0)  # of one limiter
        assert (await patient.generate("hi")).text == "one"
        with pytest.raises(ServerError):
            await once.generate("hi")
        assert (await patient.generate("hi")).text == "two"
        await patient.aclose()
        await once.aclose()


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("throttlingException", RateLimitError),
        ("serviceUnavailableException", OverloadedError),
        ("internalServerException", ServerError),
        ("validationException", BadRequestError),
        ("modelStreamErrorException", ServerError),
    ],
)
async def test_an_exception_inside_the_stream(name: str, cause: type) -> None:
    with CannedServer(streamed(begin() + text("one") + text(" two"), exception(name, "broke"))) as server:
        engine = engine_for(server)
        with pytest.raises(StreamInterrupted, match="broke") as caught:
            await engine.generate("hi")
        assert type(caught.value.__cause__) is cause
        assert caught.value.partial is not None
        assert caught.value.partial.text == "one two"
        assert len(server.requests) == 1
        await engine.aclose()


async def test_an_error_message_inside_the_stream() -> None:
    with CannedServer(streamed(begin() + error("InternalFailure", "gone"))) as server:
        engine = engine_for(server, max_retries=0)
        with pytest.raises(ServerError, match="gone"):
            await engine.generate("hi")
        await engine.aclose()


async def test_a_stream_that_was_cut_never_looks_finished() -> None:
    whole = begin() + text("one") + text(" two")
    endings: list[Answer] = [streamed(whole), streamed(whole[:-5]), streamed(whole, "close"), streamed(whole, "reset")]
    for ending in endings:
        with CannedServer(ending) as server:
            engine = engine_for(server)
            with pytest.raises(StreamInterrupted) as caught:
                await engine.generate("hi")
            assert caught.value.partial is not None
            assert caught.value.partial.text.startswith("one")
            await engine.aclose()
    with CannedServer(endings[0]) as server:
        engine = engine_for(server)
        with pytest.raises(StreamTruncated):
            await engine.generate("hi")
        await engine.aclose()


@pytest.mark.parametrize("body", [b"null", b"[]", b'[{"error": "no"}]', b"7"])
@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("status", [200, 400, 503])
async def test_json_that_is_no_object_is_a_typed_error(body: bytes, streams: bool, status: int) -> None:
    with CannedServer(answer(body, status)) as server:
        engine = engine_for(server, max_retries=0, use_streaming=streams)
        with pytest.raises(AsyncInferError) as caught:
            await engine.generate("hi")
        assert isinstance(caught.value, (ProtocolError, APIError, StreamTruncated))
        assert caught.value.provider == "bedrock"
        await engine.aclose()


async def test_an_answer_without_usage_is_whole_and_says_so() -> None:
    body = begin() + text("one") + event("messageStop", stopReason="max_tokens")
    with CannedServer(streamed(body, "close")) as server:
        engine = engine_for(server)
        completion = await engine.generate("hi")
        assert completion.finish_reason is FinishReason.LENGTH
        assert completion.usage.source == "estimated"
        await engine.aclose()


async def test_damaged_bytes() -> None:
    good = words("one")
    bad = bytearray(good)
    bad[40] ^= 1
    with CannedServer(streamed(bytes(bad))) as server:
        engine = engine_for(server, max_retries=0)
        with pytest.raises(ProtocolError, match="checksum"):
            await engine.generate("hi")
        await engine.aclose()


async def test_the_clocks_are_ours() -> None:
    with CannedServer(streamed(words("x")), streamed("hang"), streamed(begin() + text("x"), "hang")) as server:
        engine = engine_for(server, max_retries=0)
        await engine.generate("hi")
        with pytest.raises(FirstTokenTimeout):
            await engine.generate("hi", timeouts=Timeouts(first_token=0.2))
        with pytest.raises(TotalTimeout):
            await engine.generate("hi", timeouts=Timeouts(total=0.3))
        await eventually(lambda: server.interrupted == 2)
        await engine.aclose()


async def test_nobody_listens() -> None:
    engine = BedrockInferenceEngine(
        ModelParams(model_name=CLAUDE), remote_params=RemoteParams(api_url="http://127.0.0.1:9", max_retries=0)
    )
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1:9"):
        await engine.generate("hi")
    await engine.aclose()


async def test_a_hundred_at_once() -> None:
    gate = Gate()
    with CannedServer(streamed(begin() + text("one"), gate, text(" two") + finish())) as server:
        engine = engine_for(server, num_workers=100, use_adaptive_concurrency=False)
        results: list[Any] = []

        async def run() -> None:
            results.extend(await engine.generate_many(["hi"] * 100))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await eventually(lambda: gate.reached == 100)  # no pool of the library's own holds any back
            gate.open()
        assert [result.text for result in results] == ["one two"] * 100
        await engine.aclose()


# -- who asks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["param", "variable", "named"])
async def test_a_bearer_key(server: CannedServer, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    remote: dict[str, Any] = {}
    if how == "param":
        remote["api_key"] = "bedrock-api-key-sesame"
    elif how == "named":
        monkeypatch.setenv("MY_KEY", "bedrock-api-key-sesame")
        remote["api_key_env_varname"] = "MY_KEY"
    else:
        monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-sesame")
    engine = engine_for(server, extra_headers={"x-team": "blue"}, **remote)
    await engine.generate("hi")
    assert server.requests[0].headers["authorization"] == "Bearer bedrock-api-key-sesame"
    assert server.requests[0].headers["x-team"] == "blue"
    shown = (
        f"{engine!r} {vars(engine)!r} {engine._destinations!r} {[d[1].place for d in engine._destinations.values()]}"
    )
    assert "sesame" not in shown
    await engine.aclose()


async def test_a_profile(server: CannedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-west-3\n")
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = AKLAB\naws_secret_access_key = secret\n")
    remote = RemoteParams(api_url=server.origin)
    engine = BedrockInferenceEngine(ModelParams(model_name=CLAUDE), remote_params=remote, profile="lab")
    await engine.generate("hi")
    assert "Credential=AKLAB/" in server.requests[0].headers["authorization"]
    assert "/eu-west-3/bedrock/" in server.requests[0].headers["authorization"]
    await engine.aclose()


async def test_what_is_missing_is_named(server: CannedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    engine = engine_for(server)
    with pytest.raises(ConfigError, match="AWS_BEARER_TOKEN_BEDROCK") as caught:
        await engine.generate("hi")
    assert caught.value.provider == "bedrock"
    await engine.aclose()
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(ConfigError, match="AWS_REGION"):
        BedrockInferenceEngine(ModelParams(model_name=CLAUDE))
    with pytest.raises(ConfigError, match="api_url"):
        BedrockInferenceEngine(
            ModelParams(model_name=CLAUDE), remote_params=RemoteParams(api_url="http://", region="us-east-1")
        )
    with pytest.raises(ConfigError, match="lab"):
        BedrockInferenceEngine(ModelParams(model_name=CLAUDE), profile="lab")


@pytest.mark.parametrize(
    ("remote", "region", "url"),
    [
        ({}, "us-east-1", None),
        ({"region": "eu-west-1"}, "eu-west-1", None),
        (
            {"api_url": "https://bedrock-runtime.ap-south-1.amazonaws.com/"},
            "ap-south-1",
            "https://bedrock-runtime.ap-south-1.amazonaws.com",
        ),
        (
            {"api_url": "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/model/x/converse"},
            "us-gov-west-1",
            "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
        ),
        (
            {"api_url": "https://bedrock-runtime.{region}.amazonaws.com", "region": "eu-west-1"},
            "eu-west-1",
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
        ),
        ({"api_url": "https://gateway.example/bedrock"}, "us-east-1", "https://gateway.example/bedrock"),
    ],
)
async def test_where_to(remote: dict[str, Any], region: str, url: str | None) -> None:
    engine = BedrockInferenceEngine(ModelParams(model_name=CLAUDE), remote_params=RemoteParams(**remote))
    [(_, destination)] = engine._destinations.values()
    assert (destination.place.region, destination.place.endpoint_url) == (region, url)
    if url and "amazonaws" in url:
        assert destination.control.endpoint_url == url.replace("-runtime", "")


async def test_extra_body_reaches_the_service_and_is_checked(server: CannedServer) -> None:
    engine = engine_for(server)
    more = {
        "guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1", "streamProcessingMode": "async"},
        "performanceConfig": {"latency": "optimized"},
        "serviceTier": {"type": "flex"},
        "requestMetadata": {"team": "blue"},
    }
    await engine.generate("hi", generation=GenerationParams(extra_body=more, max_new_tokens=9))
    sent = server.requests[0].json
    assert {key: sent[key] for key in more} == more
    assert sent["inferenceConfig"] == {"maxTokens": 9}
    with pytest.raises(ConfigError, match="nonsense"):
        await engine.generate("hi", generation=GenerationParams(extra_body={"nonsense": 1}))
    assert len(server.requests) == 1
    await engine.aclose()


async def test_models_are_listed_page_by_page() -> None:
    def reply(request: Request) -> Answer:
        if request.target.startswith("/foundation-models"):
            rows = [
                {"modelId": "amazon.nova-lite-v1:0", "modelArn": "arn:x", "inputModalities": ["TEXT", "IMAGE"]},
                {"modelId": "amazon.image-v1", "modelArn": "arn:y", "inputModalities": ["IMAGE"]},
            ]
            return answer(b'{"modelSummaries":%s}' % json.dumps(rows).encode())
        assert request.target.startswith("/inference-profiles")
        if "nextToken" not in request.target:
            return answer(b'{"inferenceProfileSummaries":[%s],"nextToken":"t"}' % _profile("us.amazon.nova-lite-v1:0"))
        return answer(b'{"inferenceProfileSummaries":[%s]}' % _profile("eu.amazon.nova-lite-v1:0"))

    with CannedServer(reply) as server:
        engine = engine_for(server)
        profiles = ["us.amazon.nova-lite-v1:0", "eu.amazon.nova-lite-v1:0"]
        assert await engine.list_models() == ["amazon.nova-lite-v1:0", "amazon.image-v1", *profiles]
        assert await engine.list_models(chat_only=True) == ["amazon.nova-lite-v1:0", *profiles]
        assert "byOutputModality=TEXT" in server.requests[3].target
        await engine.aclose()


def _profile(name: str) -> bytes:
    return b'{"inferenceProfileId":"%s","status":"ACTIVE"}' % name.encode()


async def test_profiles_that_may_not_be_listed() -> None:
    models = answer(b'{"modelSummaries":[{"modelId":"m","modelArn":"a"}]}')
    with CannedServer(models, refusal(403, "AccessDeniedException")) as server:
        engine = engine_for(server)
        assert await engine.list_models() == ["m"]
        await engine.aclose()
    with CannedServer(refusal(403, "AccessDeniedException")) as server:
        engine = engine_for(server)
        with pytest.raises(PermissionDeniedError) as caught:
            await engine.list_models()
        assert caught.value.provider == "bedrock"
        await engine.aclose()


def test_a_second_loop() -> None:
    with CannedServer(streamed(words("x"))) as server:
        engine = engine_for(server)
        for backend in ("asyncio", "trio", "asyncio", "trio"):
            assert anyio.run(engine.generate, "hi", backend=backend).text == "x"
        assert server.connections == 4
        time.sleep(0.05)
        assert server.open_connections == 0, "a loop that ends closes its connections"


async def test_by_name() -> None:
    engine = open_engine(f"bedrock:{CLAUDE}")
    assert isinstance(engine, BedrockInferenceEngine)
    assert engine.model_params.model_name == CLAUDE
    assert {"temperature", "top_k", "reasoning_effort", "guided_decoding"} <= engine.get_supported_params()
    assert "seed" not in engine.get_supported_params()
