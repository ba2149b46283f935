"""The blocking facade, as a document's example uses it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncinfer.blocking import (
    Conversation,
    GenerationParams,
    InferenceConfig,
    Message,
    ModelParams,
    RemoteInferenceEngine,
    RemoteParams,
    Role,
    RowsFailed,
    StreamInterrupted,
    open_engine,
)
from tests.servers.provider import Fail, FakeProvider


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as server:
        yield server


@pytest.fixture
def engine(provider: FakeProvider) -> Iterator[RemoteInferenceEngine]:
    with RemoteInferenceEngine(
        ModelParams(model_name="m"), remote_params=RemoteParams(api_url=provider.url)
    ) as blocking:
        yield blocking


def say(text: str) -> Conversation:
    return Conversation(messages=[Message(role=Role.USER, content=text)])


def test_stream_generate_and_models(engine: RemoteInferenceEngine) -> None:
    assert list(engine.stream("one two three")) == ["one", " two", " three"]
    assert engine.generate("x").text == "x"
    assert [result.text for result in engine.generate_many(["a", "b"])] == ["a", "b"]
    assert engine.list_models() == ["fake-1", "fake-2"]
    assert "temperature" in type(engine).get_supported_params()


def test_leaving_a_stream_stops_the_work(engine: RemoteInferenceEngine, provider: FakeProvider) -> None:
    provider.tokens, provider.per_token = 10_000, 0.005
    for _ in engine.stream("x"):
        break
    for _ in range(200):
        if provider.stats.disconnects:
            break
        asyncio.run(asyncio.sleep(0.01))
    assert provider.stats.disconnects


def test_a_block_owns_its_stream(engine: RemoteInferenceEngine, provider: FakeProvider) -> None:
    with engine.stream("one two three four") as stream:
        for _ in range(2):
            for _ in stream:
                break
        assert list(stream) == [" three", " four"]
        assert stream.completion().text == "one two three four"
    assert stream.usage is not None and stream.usage.source == "exact"
    provider.tokens, provider.per_token = 10_000, 0.005
    with engine.stream("x") as stream:
        next(iter(stream))
    with pytest.raises(StreamInterrupted):
        stream.completion()


def test_the_documents_own_call_names(engine: RemoteInferenceEngine, provider: FakeProvider, tmp_path: Path) -> None:
    answered = engine.infer_online([say("a"), say("b")], InferenceConfig())
    assert [conversation.messages[-1].content for conversation in answered] == ["a", "b"]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(say(f"row {n}").to_json() + "\n\n" for n in range(5)))
    config = InferenceConfig(generation=GenerationParams(temperature=0.5), output_path=str(target))
    answered = engine.infer_from_file(source, config)
    assert [json.loads(line)["messages"][-1]["content"] for line in target.read_text().splitlines()] == [
        f"row {n}" for n in range(5)
    ]
    assert provider.stats.requests[-1].body["temperature"] == 0.5


def test_a_failed_row_raises_after_all_and_loses_none(engine: RemoteInferenceEngine, provider: FakeProvider) -> None:
    provider.fail = [Fail(status=400, match=lambda body: body["messages"][-1]["content"] == "bad")]
    with pytest.raises(RowsFailed) as caught:
        engine.infer_online([say("a"), say("bad"), say("c")])
    assert [bool(result) for result in caught.value.results] == [True, False, True]


def test_it_works_inside_a_running_loop(engine: RemoteInferenceEngine) -> None:
    async def main() -> str:
        return engine.generate("x").text

    assert asyncio.run(main()) == "x"


def test_open_engine_blocks_too(provider: FakeProvider) -> None:
    with open_engine("remote:m", remote_params=RemoteParams(api_url=provider.url)) as engine:
        assert isinstance(engine, RemoteInferenceEngine)
        assert engine.generate("y").text == "y"
