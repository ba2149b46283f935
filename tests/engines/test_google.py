"""Gemini and Vertex AI over real HTTP: both formats, credentials that end, one token for everybody."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import anyio.lowlevel
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from asyncinfer import (
    AuthenticationError,
    ConfigError,
    Conversation,
    GenerationParams,
    GoogleGeminiInferenceEngine,
    GoogleVertexInferenceEngine,
    InferenceConfig,
    ModelParams,
    RateLimitError,
    RemoteInferenceEngine,
    RemoteParams,
    StreamTruncated,
    TransportError,
    open_engine,
)
from asyncinfer.transport.google_auth import GoogleCredential, google_auth, project_of
from tests.servers.canned import CannedServer, Gate, Request, answer, stream

pytestmark = pytest.mark.anyio

VARIABLES = (
    "PROJECT_ID GOOGLE_CLOUD_PROJECT GCLOUD_PROJECT CLOUDSDK_CORE_PROJECT REGION GOOGLE_CLOUD_LOCATION "
    "GOOGLE_CLOUD_REGION CLOUD_ML_REGION GOOGLE_APPLICATION_CREDENTIALS GOOGLE_API_KEY GEMINI_API_KEY"
)
MODEL = ModelParams(model_name="gemini-x")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES.split():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))  # nobody's own credentials


def said(*words: str, finish: str | None = "STOP") -> list[bytes]:
    chunks: list[dict[str, Any]] = [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": word}]}, "index": 0}], "responseId": "r1"}
        for word in words
    ]
    if finish is not None:
        chunks[-1]["candidates"][0]["finishReason"] = finish
        chunks[-1]["usageMetadata"] = {"promptTokenCount": 3, "candidatesTokenCount": len(words), "totalTokenCount": 9}
    return [b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks]


# -- the developer API -------------------------------------------------------------------------------------------------


def gemini(server: CannedServer, **remote: Any) -> GoogleGeminiInferenceEngine:
    return GoogleGeminiInferenceEngine(MODEL, remote_params=RemoteParams(api_url=server.origin, api_key="k", **remote))


async def test_a_stream_token_by_token() -> None:
    gate = Gate()
    first, second = said("Hel", "lo")
    with CannedServer(stream(first, gate, second)) as server:
        async with gemini(server) as engine:
            tokens = []
            async for token in engine.stream("hi"):
                tokens.append(token)
                gate.open()
            completion = await engine.generate("hi")
    assert tokens == ["Hel", "lo"]
    assert (completion.text, completion.usage.output_tokens, completion.usage.source) == ("Hello", 2, "exact")
    assert server.requests[0].target == "/v1beta/models/gemini-x:streamGenerateContent?alt=sse"
    assert server.requests[0].headers["x-goog-api-key"] == "k"
    assert "authorization" not in server.requests[0].headers


async def test_a_document_and_a_query_of_the_users_own() -> None:
    body = said("Hello")[0][6:]
    with CannedServer(answer(body), stream(*said("x"))) as server:
        engine = GoogleGeminiInferenceEngine(
            MODEL, remote_params=RemoteParams(api_url=server.origin + "/v1?a=b", api_key="k", use_streaming=False)
        )
        assert (await engine.generate("hi")).text == "Hello"
        engine = GoogleGeminiInferenceEngine(
            MODEL, remote_params=RemoteParams(api_url=server.origin + "/v1?a=b", api_key="k")
        )
        assert (await engine.generate("hi")).text == "x"
    assert [request.target for request in server.requests] == [
        "/v1/models/gemini-x:generateContent?a=b",
        "/v1/models/gemini-x:streamGenerateContent?alt=sse&a=b",
    ]


async def test_a_cut_answer_is_not_a_finished_one() -> None:
    with CannedServer(stream(*said("Hel", finish=None))) as server:
        with pytest.raises(StreamTruncated) as caught:
            await gemini(server).generate("hi")
    assert caught.value.partial.text == "Hel"


async def test_refusals_keep_their_wait() -> None:
    body = {
        "error": {
            "code": 429,
            "message": "slow",
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"}],
        }
    }
    with CannedServer(answer(json.dumps(body).encode(), 429)) as server:
        with pytest.raises(RateLimitError) as caught:
            await gemini(server, max_retries=0).generate("hi")
    assert (caught.value.retry_after, caught.value.provider) == (38, "gemini")


async def test_models() -> None:
    page = {
        "models": [
            {"name": "models/gemini-x", "supportedGenerationMethods": ["generateContent", "countTokens"]},
            {"name": "models/embed", "supportedGenerationMethods": ["embedContent"]},
        ]
    }
    with CannedServer(answer(json.dumps(page).encode())) as server:
        engine = gemini(server)
        assert await engine.list_models() == ["gemini-x", "embed"]
        assert await engine.list_models(chat_only=True) == ["gemini-x"]
    assert server.requests[0].target == "/v1beta/models"


async def test_a_signature_comes_back_with_its_call() -> None:
    call = {"functionCall": {"name": "now", "args": {}, "id": "c1"}, "thoughtSignature": "QUJD"}
    first = {"candidates": [{"content": {"parts": [call]}, "finishReason": "STOP"}], "responseId": "r1"}

    def now() -> str:
        """The time."""
        return "noon"

    with CannedServer(stream(b"data: " + json.dumps(first).encode() + b"\n\n"), stream(*said("Noon."))) as server:
        completion = await gemini(server).run_tools("What time is it?", [now])
    assert completion.text == "Noon."
    contents = json.loads(server.requests[1].body)["contents"]
    assert contents[1] == {"role": "model", "parts": [call]}
    assert contents[2]["parts"] == [{"functionResponse": {"id": "c1", "name": "now", "response": {"output": "noon"}}}]


async def test_the_compatible_endpoint_is_chosen_by_its_url() -> None:
    chat = {"id": "c", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
    with CannedServer(stream(b"data: " + json.dumps(chat).encode() + b"\n\ndata: [DONE]\n\n")) as server:
        engine = GoogleGeminiInferenceEngine(
            MODEL, remote_params=RemoteParams(api_url=server.origin + "/v1beta/openai/chat/completions", api_key="k")
        )
        assert (await engine.generate("hi")).text == "x"
    assert server.requests[0].target == "/v1beta/openai/chat/completions"
    assert server.requests[0].headers["authorization"] == "Bearer k"


def test_a_host_is_no_face() -> None:
    for url in ("https://openai.example.com/v1beta", "https://example.com/openais/v1beta"):
        engine = GoogleGeminiInferenceEngine(MODEL, remote_params=RemoteParams(api_url=url, api_key="k"))
        assert base(engine)[0] == "gemini"


# -- where Vertex AI is ------------------------------------------------------------------------------------------------

CLOUD = "https://europe-west1-aiplatform.googleapis.com/v1beta1/projects/p-1/locations/europe-west1"
GUIDE = (
    "https://{region}-aiplatform.googleapis.com/v1beta1/projects/{project_id}/locations/{region}"
    "/endpoints/openapi/chat/completions"
)


def base(engine: RemoteInferenceEngine) -> tuple[str, str, str]:
    assert engine._default_plan is not None
    found = engine.endpoint(engine._default_plan.template)
    return found.provider.name, found.urls.base, found.provider.codec


def vertex(model: ModelParams = MODEL, **remote: Any) -> GoogleVertexInferenceEngine:
    return GoogleVertexInferenceEngine(model, remote_params=RemoteParams(**remote))


def test_project_and_region(monkeypatch: pytest.MonkeyPatch, account: Path) -> None:
    native = ("google_vertex", CLOUD, "gemini")
    assert base(vertex(project_id="p-1", region="europe-west1")) == native
    kwargs = ModelParams(model_name="gemini-x", model_kwargs={"project_id": "p-1", "region": "europe-west1"})
    assert base(vertex(kwargs)) == native
    assert base(vertex(project_id="p-1", region="europe-west1", api_url=GUIDE)) == (
        "google_vertex_openai",
        CLOUD + "/endpoints/openapi",
        "openai_chat",
    )
    generic = RemoteInferenceEngine(
        MODEL, remote_params=RemoteParams(api_url=GUIDE, project_id="p-1", region="europe-west1")
    )
    assert base(generic)[0] == "google_vertex_openai"
    with pytest.raises(ConfigError, match="project_id"):
        vertex()
    with pytest.raises(ConfigError, match="project_id"):
        vertex(project_id="p/../q")
    assert base(vertex(api_key=str(account)))[1].endswith("/projects/p-file/locations/global")  # the file's own
    for project, region in (("PROJECT_ID", "REGION"), ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION")):
        with monkeypatch.context() as patch:
            patch.setenv(project, "p-1")
            patch.setenv(region, "europe-west1")
            assert base(open_engine("google_vertex:gemini-x")) == native


@pytest.mark.parametrize(
    ("region", "host"),
    [
        (None, "aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
    ],
)
def test_hosts(region: str | None, host: str) -> None:
    where = "global" if region is None else region
    found = base(vertex(project_id="p", region=region))[1]
    assert found == f"https://{host}/v1beta1/projects/p/locations/{where}"
    assert base(vertex(project_id="p", region=region, api_url=GUIDE))[1] == found + "/endpoints/openapi"


async def test_express_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    with CannedServer(stream(*said("x"))) as server:
        assert (await vertex(api_url=server.origin, api_key="AIzaKey").generate("hi")).text == "x"
    request = server.requests[0]
    assert request.target == "/v1beta1/publishers/google/models/gemini-x:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == "AIzaKey"
    assert base(vertex(api_key="AIzaKey"))[:2] == (
        "google_vertex_express",
        "https://aiplatform.googleapis.com/v1beta1",
    )


async def test_an_access_token() -> None:
    with CannedServer(stream(*said("x"))) as server:
        engine = vertex(api_url=server.origin, api_key="ya29.token", project_id="p", region="r")
        await engine.generate("hi")
    assert server.requests[0].headers["authorization"] == "Bearer ya29.token"
    assert server.requests[0].target.startswith("/v1beta1/projects/p/locations/r/publishers/google/models/gemini-x:")


@pytest.mark.parametrize("ending", ["", "/models", "/models/claude-x:rawPredict"])
async def test_claude_on_vertex(ending: str) -> None:
    events = [
        {"type": "message_start", "message": {"id": "m1", "model": "claude-x", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    body = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)
    place = "/v1/projects/p/locations/r/publishers/anthropic"
    with CannedServer(stream(body)) as server:
        engine = vertex(
            ModelParams(model_name="anthropic/claude-sonnet-4-5@20250929"),
            api_url=server.origin + "/v1/projects/{project_id}/locations/{region}/publishers/anthropic" + ending,
            project_id="p",
            region="r",
            api_key="ya29.x",
        )
        assert (await engine.generate("hi")).text == "Hello"
    request = server.requests[0]
    sent = json.loads(request.body)
    assert request.target == place + "/models/claude-sonnet-4-5@20250929:streamRawPredict"
    assert (sent["anthropic_version"], sent["stream"], "model" in sent) == ("vertex-2023-10-16", True, False)
    assert request.headers["authorization"] == "Bearer ya29.x"


CLAUDE = "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1"


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("claude-sonnet-4-5@20250929", ("google_vertex_anthropic", CLAUDE, "anthropic_raw_predict")),
        ("anthropic/claude-opus-4-6", ("google_vertex_anthropic", CLAUDE, "anthropic_raw_predict")),
        (
            "publishers/anthropic/models/claude-opus-4-6",
            ("google_vertex_anthropic", CLAUDE, "anthropic_raw_predict"),
        ),
        (
            "meta/llama-3.3-70b-instruct-maas",
            ("google_vertex_openai", CLAUDE.replace("/v1/", "/v1beta1/") + "/endpoints/openapi", "openai_chat"),
        ),
        ("gemini-2.5-flash", ("google_vertex", CLAUDE.replace("/v1/", "/v1beta1/"), "gemini")),
        ("google/gemini-2.5-flash", ("google_vertex", CLAUDE.replace("/v1/", "/v1beta1/"), "gemini")),
        ("tuned-claude-like", ("google_vertex", CLAUDE.replace("/v1/", "/v1beta1/"), "gemini")),
    ],
)
def test_the_models_name_chooses_the_format(model: str, found: tuple[str, str, str]) -> None:
    assert base(vertex(ModelParams(model_name=model), project_id="p", region="europe-west1")) == found


def test_an_address_without_a_path_serves_every_family_of_models() -> None:
    place = "http://localhost:1/{}/projects/p/locations/r"
    asked = {"project_id": "p", "region": "r", "api_url": "http://localhost:1", "api_key": "ya29.token"}
    for model, path in (
        ("gemini-x", place.format("v1beta1")),
        ("claude-x", place.format("v1")),
        ("meta/llama-x", place.format("v1beta1") + "/endpoints/openapi"),
    ):
        assert base(vertex(ModelParams(model_name=model), **asked))[1] == path


def test_an_address_that_ends_at_the_place_serves_every_family_of_models() -> None:
    for version in ("v1", "v1beta1"):
        place = f"http://localhost:1/{version}/projects/p/locations/r"
        for ending in ("", "/"):
            asked = {"project_id": "p", "region": "r", "api_url": place + ending, "api_key": "ya29.token"}
            for model, more in (("gemini-x", ""), ("claude-x", ""), ("meta/llama-x", "/endpoints/openapi")):
                assert base(vertex(ModelParams(model_name=model), **asked))[1] == place + more
    own = {"project_id": "p", "region": "r", "api_key": "ya29.token"}
    for whole in ("/v1/projects/p/locations/r/endpoints/openapi", "/v1/projects/p/locations/r/endpoints/7", "/proxy"):
        url = "http://localhost:1" + whole
        assert base(vertex(ModelParams(model_name="meta/llama-x"), api_url=url, **own))[1] == url


def test_a_path_that_names_a_format_goes_before_the_models_name() -> None:
    model = ModelParams(model_name="anthropic/claude-x")
    assert base(vertex(model, project_id="p", region="r", api_url=GUIDE))[0] == "google_vertex_openai"
    assert base(vertex(model, project_id="p", api_key="AIzaKey"))[0] == "google_vertex_anthropic"
    with pytest.raises(ConfigError, match="project_id"):  # express mode has Gemini only
        vertex(model, api_key="AIzaKey")


async def test_claude_and_gemini_from_one_engine() -> None:
    claude = [
        {"type": "message_start", "message": {"id": "m1", "model": "claude-x", "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Claude"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    body = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in claude)

    def reply(request: Request) -> Any:
        return stream(body) if "anthropic" in request.target else stream(*said("Gemini"))

    with CannedServer(reply) as server:
        engine = vertex(api_url=server.origin, api_key="ya29.x", project_id="p", region="r")
        other = InferenceConfig(model=ModelParams(model_name="claude-sonnet-4-5"))
        assert (await engine.generate("hi")).text == "Gemini"
        assert (await engine.generate("hi", inference_config=other)).text == "Claude"
        assert (await engine.generate("hi")).text == "Gemini"
        await engine.aclose()
    assert [request.target.partition("/locations/r")[2] for request in server.requests] == [
        "/publishers/google/models/gemini-x:streamGenerateContent?alt=sse",
        "/publishers/anthropic/models/claude-sonnet-4-5:streamRawPredict",
        "/publishers/google/models/gemini-x:streamGenerateContent?alt=sse",
    ]
    assert server.requests[1].target.startswith("/v1/projects/p/")


@pytest.mark.parametrize(("model", "publisher"), [("gemini-x", "google"), ("claude-x", "anthropic")])
async def test_the_models_of_a_publisher(model: str, publisher: str) -> None:
    def page(*names: str, **more: Any) -> bytes:
        rows = [{"name": f"publishers/{publisher}/models/{name}", "versionId": "default"} for name in names]
        return json.dumps({"publisherModels": rows, **more}).encode()

    answers = [answer(page("a", "imagen-4", nextPageToken="t")), answer(page("b"))]
    with CannedServer(*answers) as server:
        engine = vertex(
            ModelParams(model_name=model), api_url=server.origin, api_key="ya29.x", project_id="p", region="r"
        )
        kept = ["a", "b"] if publisher == "google" else ["a", "imagen-4", "b"]
        assert await engine.list_models(chat_only=True) == kept
        await engine.aclose()
    root = f"/v1beta1/publishers/{publisher}/models"
    assert [request.target for request in server.requests] == [root, root + "?pageToken=t"]
    assert server.requests[0].headers["authorization"] == "Bearer ya29.x"
    found = vertex(ModelParams(model_name=model), project_id="p", region="eu")
    assert found._default_plan is not None
    urls = found.endpoint(found._default_plan.template).urls
    assert urls.models == f"https://aiplatform.eu.rep.googleapis.com{root}"


# -- tokens ------------------------------------------------------------------------------------------------------------


class TokenServer(CannedServer):
    """Google's token endpoint: checks the signed assertion and hands out numbered tokens."""

    def __init__(self, key: rsa.RSAPublicKey) -> None:
        pem = serialization.PublicFormat.SubjectPublicKeyInfo
        self.public = key.public_bytes(serialization.Encoding.PEM, pem)
        self.lifetime = 3600
        self.fails: list[tuple[int, dict[str, Any]]] = []
        self.grants: list[dict[str, Any]] = []
        super().__init__(self.grant)

    def grant(self, request: Request) -> Any:
        form = parse_qs(request.body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        claims = jwt.decode(form["assertion"][0], certs=self.public, audience="https://oauth2.googleapis.com/token")
        self.grants.append(dict(claims))
        if self.fails:
            status, body = self.fails.pop(0)
            return answer(json.dumps(body).encode(), status)
        token = {"access_token": f"t{len(self.grants)}", "expires_in": self.lifetime, "token_type": "Bearer"}
        return [0.05, *answer(json.dumps(token).encode())]

    @property
    def uri(self) -> str:
        return self.origin + "/token"


@pytest.fixture(scope="module")
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def tokens(private: rsa.RSAPrivateKey) -> Iterator[TokenServer]:
    with TokenServer(private.public_key()) as server:
        yield server


@pytest.fixture
def account(tokens: TokenServer, private: rsa.RSAPrivateKey, tmp_path: Path) -> Path:
    """A service account's file, with a key of its own."""
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "account.json"
    info = {
        "type": "service_account",
        "project_id": "p-file",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "me@p-file.iam.gserviceaccount.com",
        "token_uri": tokens.uri,
    }
    path.write_text(json.dumps(info), encoding="utf-8")
    return path


class Clock:
    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


async def test_a_service_account_signs_in(tokens: TokenServer, account: Path) -> None:
    with CannedServer(stream(*said("x"))) as server:
        engine = vertex(api_url=server.origin, api_key=str(account), region="r")
        for _ in range(3):
            assert (await engine.generate("hi")).text == "x"
        shown = f"{engine!r} {engine.remote_params!r}"
    assert "PRIVATE" not in shown
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer t1"] * 3
    assert server.requests[0].target.startswith("/v1beta1/projects/p-file/locations/r/publishers/")
    (claims,) = tokens.grants
    assert claims["iss"] == "me@p-file.iam.gserviceaccount.com"
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"


async def test_defaults_of_the_machine(tokens: TokenServer, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
    assert project_of(None) == "p-file"
    with CannedServer(stream(*said("x"))) as server:
        assert (await vertex(api_url=server.origin).generate("hi")).text == "x"
    assert server.requests[0].headers["authorization"] == "Bearer t1"


async def test_fifty_first_calls_fetch_one_token(tokens: TokenServer, account: Path) -> None:
    with CannedServer(stream(*said("x"))) as server:
        many = [vertex(api_url=server.origin, api_key=str(account)) for _ in range(2)]  # engines share it too

        async with anyio.create_task_group() as group:
            for at in range(50):
                group.start_soon(many[at % 2].generate, "hi")
    assert len(server.requests) == 50
    assert len(tokens.grants) == 1


async def test_the_loop_runs_on_while_a_token_is_fetched(tokens: TokenServer, account: Path) -> None:
    gate = Gate()
    tokens.answers = [lambda _: [gate, *answer(b'{"access_token":"t","expires_in":3600}')]]
    credential = GoogleCredential(str(account))
    got: list[Any] = []

    async def ask() -> None:
        got.append(await credential.headers())

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        with anyio.fail_after(10):
            while not gate.reached:
                await anyio.sleep(0.001)  # the loop turns
        assert not got
        gate.open()
    assert got == [{"authorization": "Bearer t"}]


async def test_a_cancelled_first_call_harms_nobody(tokens: TokenServer, account: Path) -> None:
    gate = Gate()
    tokens.answers = [lambda _: [gate, *answer(b'{"access_token":"t","expires_in":3600}')]]
    credential = GoogleCredential(str(account))
    got: list[Any] = []

    async def ask() -> None:
        got.append(await credential.headers())

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as inner:
                inner.start_soon(credential.headers)
                while not gate.reached:
                    await anyio.sleep(0.001)
                first.cancel()
        group.start_soon(ask)
        await anyio.lowlevel.checkpoint()
        gate.open()
    assert got == [{"authorization": "Bearer t"}]
    assert len(tokens.requests) == 1


async def until(condition: Any) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


async def test_a_token_is_renewed_before_its_end(tokens: TokenServer, account: Path) -> None:
    clock = Clock()
    credential = GoogleCredential(str(account), now=clock)
    assert await credential.headers() == {"authorization": "Bearer t1"}
    clock.offset = 3600 - 240.0
    assert await credential.headers() == {"authorization": "Bearer t1"}
    assert len(tokens.grants) == 1
    clock.offset = 3600 - 120.0  # still good: used while the next one is fetched behind it
    assert await credential.headers() == {"authorization": "Bearer t1"}
    await until(lambda: len(tokens.grants) == 2 and credential._flight is None)
    clock.offset = 0.0
    assert await credential.headers() == {"authorization": "Bearer t2"}
    clock.offset = 4000.0  # over: waited for
    assert await credential.headers() == {"authorization": "Bearer t3"}


async def test_another_loop_uses_the_same_token(tokens: TokenServer, account: Path) -> None:
    credential = GoogleCredential(str(account))
    found: list[Any] = []

    def elsewhere() -> None:
        found.append(anyio.run(credential.headers))

    threads = [threading.Thread(target=elsewhere) for _ in range(4)]
    for thread in threads:
        thread.start()
    found.append(await credential.headers())
    await anyio.to_thread.run_sync(lambda: [thread.join() for thread in threads])
    assert found == [{"authorization": "Bearer t1"}] * 5
    assert len(tokens.grants) == 1


async def test_a_refused_token_is_replaced_once(tokens: TokenServer, account: Path) -> None:
    refusal = answer(b'{"error":{"code":401,"message":"expired","status":"UNAUTHENTICATED"}}', 401)
    with CannedServer(refusal, stream(*said("x"))) as server:
        engine = vertex(api_url=server.origin, api_key=str(account))
        assert (await engine.generate("hi")).text == "x"
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer t1", "Bearer t2"]
    with CannedServer(refusal) as server:
        engine = vertex(api_url=server.origin, api_key=str(account))
        with pytest.raises(AuthenticationError, match="expired"):
            await engine.generate("hi")
    assert len(server.requests) == 1  # t2 was a replacement already
    assert len(tokens.grants) == 2


async def test_refused_credentials(tokens: TokenServer, account: Path) -> None:
    tokens.fails = [(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})]
    engine = vertex(api_url="http://127.0.0.1:9", api_key=str(account))
    with pytest.raises(AuthenticationError, match="invalid_grant") as caught:
        await engine.generate("hi")
    assert not caught.value.retryable


async def test_a_token_service_that_is_away(account: Path) -> None:
    info = {**json.loads(account.read_text(encoding="utf-8")), "token_uri": "http://127.0.0.1:9/token"}
    engine = vertex(api_url="http://127.0.0.1:9", api_key=json.dumps(info), max_retries=0)
    with pytest.raises(TransportError, match="token service"):
        await engine.generate("hi")


async def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        await vertex(api_key=str(tmp_path / "nowhere.json"), project_id="p").generate("hi")
    path = tmp_path / "bad.json"
    path.write_text("secret words", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.json is not") as caught:
        await vertex(api_key=str(path), project_id="p").generate("hi")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError):
        await vertex(api_key='{"type": "service_account"}', project_id="p").generate("hi")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(ConfigError, match="gcloud auth"):
        await vertex(project_id="p").generate("hi")


def test_what_a_key_is() -> None:
    assert google_auth("AIzaX") == ("x-goog-api-key", None)
    assert google_auth("ya29.x") == ("bearer", None)
    scheme, credential = google_auth("/a/b.json")
    assert scheme == "none"
    assert google_auth("/a/b.json")[1] is credential
    assert google_auth("/a/c.json")[1] is not credential


async def test_parameters_reach_the_wire() -> None:
    with CannedServer(stream(*said("x"))) as server:
        engine = gemini(server)
        await engine.generate(
            Conversation.from_dict({"messages": [{"role": "user", "content": "hi"}]}),
            generation=GenerationParams(temperature=0.5, top_k=3),
        )
    assert json.loads(server.requests[0].body)["generationConfig"] == {"temperature": 0.5, "topK": 3}
