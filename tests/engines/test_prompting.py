"""SGLang's own format and OpenAI Responses over real HTTP."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncinfer import (
    ConfigError,
    Conversation,
    FinishReason,
    GenerationParams,
    MissingDependencyError,
    ModelParams,
    OpenAIInferenceEngine,
    OverloadedError,
    RemoteInferenceEngine,
    RemoteParams,
    ServerError,
    SGLangInferenceEngine,
    StreamInterrupted,
    StreamTruncated,
    UnsupportedParameterError,
)
from tests.servers.canned import CannedServer, Gate, answer, stream
from tests.wire.openai_responses.answers import CREATED, end, message
from tests.wire.openai_responses.answers import sse as responses_sse
from tests.wire.sglang.answers import abort, part, sse, stop

pytestmark = pytest.mark.anyio

TOKENS = answer(b'{"tokens":[1,2,3],"count":3,"max_model_len":4096}')
ANSWER = stream(sse(part(" Par", [1]), done=False), sse(part(" Paris.", [1, 2, 3], stop(128009))))
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{{ mood }}{% endif %}"
)


class Sglang(CannedServer):
    """``/tokenize`` and ``/generate``, each with its own answers."""

    def __init__(self, tokenize: Any = TOKENS, *generate: Any) -> None:
        self.prompts = list(generate or [ANSWER])
        super().__init__(lambda request: tokenize if request.target == "/tokenize" else self._generate())

    def _generate(self) -> Any:
        return self.prompts.pop(0) if len(self.prompts) > 1 else self.prompts[0]

    @property
    def generated(self) -> list[dict[str, Any]]:
        return [request.json for request in self.requests if request.target == "/generate"]


@pytest.fixture
def server() -> Iterator[Sglang]:
    with Sglang() as found:
        yield found


def engine_for(server: CannedServer, *, path: str = "/generate", generation: Any = None, **model: Any) -> Any:
    return SGLangInferenceEngine(
        ModelParams(model_name="m", **model),
        generation_params=generation,
        remote_params=RemoteParams(api_url=server.url + path, api_key="secret-key", max_retries=0),
    )


async def test_the_servers_own_template_makes_the_prompt(server: Sglang) -> None:
    async with engine_for(server) as engine:
        assert [token async for token in engine.stream("Capital of France?")] == [" Par", "is."]
        completion = await engine.generate("Capital of France?")
    assert completion.text == " Paris."
    assert completion.finish_reason is FinishReason.STOP
    assert completion.choices[0].matched == 128009
    assert (completion.usage.input_tokens, completion.usage.output_tokens, completion.usage.cached_tokens) == (5, 3, 2)
    asked = server.requests[0]
    assert (asked.target, asked.headers["authorization"]) == ("/tokenize", "Bearer secret-key")
    assert asked.json["messages"] == [{"role": "user", "content": "Capital of France?"}]
    assert server.generated[0] == {"sampling_params": {"max_new_tokens": None}, "stream": True, "input_ids": [1, 2, 3]}
    assert server.connections == 1


async def test_the_first_text_is_there_before_the_last_is_made() -> None:
    gate = Gate()
    held = stream(sse(part(" Par", [1]), done=False), gate, sse(part(" Paris.", [1, 2], stop())))
    with Sglang(TOKENS, held) as server:
        async with engine_for(server) as engine, engine.stream("hi") as tokens:
            # The server sends nothing more before the gate opens.
            assert await anext(aiter(tokens)) == " Par"
            gate.open()
            assert (await tokens.completion()).text == " Paris."


async def test_a_template_of_ones_own(server: Sglang, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}}))
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    for given in (TEMPLATE, str(tmp_path / "template.jinja")):
        engine = engine_for(
            server, chat_template=given, tokenizer_name=str(tmp_path), chat_template_kwargs={"mood": "kind"}
        )
        await engine.generate(Conversation.from_dict({"messages": [{"role": "user", "content": "hi"}]}))
    assert [body["text"] for body in server.generated] == ["<s><user>hi<assistant>kind"] * 2
    assert {request.target for request in server.requests} == {"/generate"}


async def test_templates_see_images_and_calls_as_their_authors_expect(server: Sglang) -> None:
    template = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% elif m.content %}{% for p in m.content %}"
        "{{ p.type }}{% if p.type == 'text' %}={{ p.text }}{% endif %};{% endfor %}{% endif %}"
        "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{{ c.function.arguments|tojson }}{% endfor %}"
        "{% endfor %}"
    )
    call = {"id": "a", "type": "function", "function": {"name": "wx", "arguments": '{"city":"<Oslo>"}'}}
    image = {"type": "image_url", "content": "https://x/y.png"}
    await engine_for(server, chat_template=template).generate(
        {
            "messages": [
                {"role": "user", "content": [image, {"type": "text", "content": "?"}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
            ]
        }
    )
    body = server.generated[0]
    assert body["text"] == 'image;text=?;<Oslo>{"city": "<Oslo>"}'
    assert body["image_data"] == "https://x/y.png"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for %}", "no Jinja template"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "cannot write this conversation"),
        ("chatml", "neither a Jinja template nor the name of a file"),
    ],
)
async def test_a_template_that_cannot_be_applied(server: Sglang, template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        await engine_for(server, chat_template=template).generate("hi")
    assert server.requests == []


async def test_a_prompt_of_ones_own(server: Sglang) -> None:
    generation = GenerationParams(extra_body={"text": "Once upon"}, max_new_tokens=4)
    await engine_for(server, generation=generation).generate("ignored")
    assert server.generated == [{"sampling_params": {"max_new_tokens": 4}, "stream": True, "text": "Once upon"}]
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_server_that_applies_no_template(status: int) -> None:
    refusal = answer(b'{"error":{"message":"prompt: Field required"}}', status=status)
    with Sglang(refusal) as server:
        with pytest.raises(ConfigError, match=r"v1/chat/completions.*chat_template") as caught:
            await engine_for(server).generate("hi")
        assert "Field required" in str(caught.value)
        assert len(server.requests) == 1  # asking again would not help


async def test_then_the_template_of_the_tokenizers_folder_is_applied(tmp_path: Path) -> None:
    config = tmp_path / "tokenizer_config.json"
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        config.write_text(json.dumps({"bos_token": "<s>", "chat_template": TEMPLATE}))
        (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
        if name == "chat_template.jinja":
            (tmp_path / name).write_text(TEMPLATE)
            config.write_text(json.dumps({"bos_token": "<s>"}))
        with Sglang(answer(b'{"detail":"Not Found"}', status=404)) as server:
            await engine_for(server, tokenizer_name=str(tmp_path)).generate("hi")
            assert server.generated[0]["text"] == "<s><user>hi<assistant>"


async def test_the_embedded_models_own_template(server: Sglang) -> None:
    import asyncinfer.models

    folder = Path(asyncinfer.models.__file__).parent / "files" / "hf"
    await engine_for(server, chat_template=str(folder / "chat_template.jinja"), tokenizer_name=str(folder)).generate(
        "hi"
    )
    assert "hi" in server.generated[0]["text"]


async def test_without_jinja_the_error_has_the_command(server: Sglang, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match="pip install jinja2"):
        await engine_for(server, chat_template="{{ 'never seen before' }}").generate("hi")


async def test_other_failures_of_the_server_are_what_they_are() -> None:
    with Sglang(answer(b'{"error":"busy"}', status=500)) as server, pytest.raises(ServerError) as caught:
        await engine_for(server).generate("hi")
    assert "secret-key" not in str(caught.value)


async def test_errors_and_ends_of_the_answer() -> None:
    cut = stream(sse(part("x", [1]), done=False))
    full = stream(sse(part("x", [1], abort(503, "queue is full"))))
    early = stream(sse({"error": {"message": "queue is full", "code": 503, "type": "overloaded"}}))
    with Sglang(TOKENS, cut, full, early) as server:
        engine = engine_for(server)
        with pytest.raises(StreamTruncated) as caught:
            await engine.generate("hi")
        assert caught.value.partial.text == "x"
        with pytest.raises(StreamInterrupted, match="queue is full") as broken:
            await engine.generate("hi")
        assert (broken.value.status, broken.value.partial.text) == (503, "x")
        with pytest.raises(OverloadedError, match="queue is full"):
            await engine.generate("hi")


async def test_several_answers_and_lora() -> None:
    two = stream(sse(part("a", [1], stop(), index=0), part("b", [2], stop(), index=1)))
    with Sglang(TOKENS, two) as server:
        engine = engine_for(server, generation=GenerationParams(n=2), adapter_model="my-lora")
        completion = await engine.generate("hi")
        assert [choice.text for choice in completion.choices] == ["a", "b"]
        assert server.generated[0]["lora_path"] == "my-lora"


async def test_models_are_listed_beside_the_native_endpoint() -> None:
    with CannedServer(answer(b'{"object":"list","data":[{"id":"m"}]}')) as server:
        assert await engine_for(server).list_models() == ["m"]
        assert server.requests[0].target == "/v1/models"


async def test_any_other_url_is_the_compatible_endpoint() -> None:
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
    with CannedServer(stream(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode())) as server:
        assert (await engine_for(server, path="").generate("hi")).text == "x"
        assert server.requests[0].target == "/v1/chat/completions"


# -- Responses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OpenAIInferenceEngine, RemoteInferenceEngine, SGLangInferenceEngine])
async def test_responses_by_its_url(kind: type[RemoteInferenceEngine]) -> None:
    with CannedServer(stream(responses_sse(CREATED, *message("Hel", "lo"), end()))) as server:
        engine = kind(
            ModelParams(model_name="gpt-5"),
            remote_params=RemoteParams(api_url=server.url + "/v1/responses", api_key="secret-key"),
        )
        assert [token async for token in engine.stream("hi")] == ["Hel", "lo"]
        completion = await engine.generate("hi")
        assert (completion.text, completion.usage.reasoning_tokens) == ("Hello", 5)
        assert server.requests[0].target == "/v1/responses"
        assert server.requests[0].headers["authorization"] == "Bearer secret-key"
        assert server.requests[0].json["store"] is False


async def test_responses_whole_cut_and_asked_for_what_it_lacks() -> None:
    with CannedServer(stream(responses_sse(CREATED, *message("Hel")))) as server:
        remote = RemoteParams(api_url=server.url + "/v1/responses", api_key="k", max_retries=0)
        engine = OpenAIInferenceEngine(ModelParams(model_name="gpt-5"), remote_params=remote)
        with pytest.raises(StreamTruncated) as caught:
            await engine.generate("hi")
        assert caught.value.partial.text == "Hel"
        with pytest.raises(UnsupportedParameterError, match="cannot honour n"):
            await engine.generate("hi", generation=GenerationParams(n=2, strict_params=True))


async def test_answers_that_cannot_be_asked_for_are_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with CannedServer(stream(responses_sse(CREATED, *message("Hello"), end()))) as server:
        remote = RemoteParams(api_url=server.url + "/v1/responses", api_key="k", max_retries=0)
        engine = OpenAIInferenceEngine(ModelParams(model_name="gpt-5"), remote_params=remote)
        for generation in (GenerationParams(n=2), GenerationParams(n=2, max_new_tokens=9)):
            completion = await engine.generate("hi", generation=generation)
            assert [choice.text for choice in completion.choices] == ["Hello"]
        assert caplog.text.count("does not support n; ignored") == 1
