"""Several engines as one: who answers, who is spared, who is cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from asyncinfer import (
    AuthenticationError,
    BadRequestError,
    ConfigError,
    FallbackEngine,
    GenerationParams,
    ModelParams,
    OverloadedError,
    QuotaExceededError,
    RemoteInferenceEngine,
    RemoteParams,
    ServerError,
    StreamInterrupted,
    TextDelta,
    Timeouts,
    open_engine,
)
from tests.servers.provider import Fail, FakeProvider

from .scripted import PAUSE, ScriptedEngine, answer

pytestmark = pytest.mark.anyio


def failing(error: Exception) -> ScriptedEngine:
    return ScriptedEngine(error, remote_params=RemoteParams(max_retries=0))


@pytest.mark.parametrize(
    "error",
    [
        ServerError("down", status=500),
        OverloadedError("busy", status=529),
        QuotaExceededError("no credit", status=402),
        AuthenticationError("revoked", status=401),
    ],
)
async def test_the_next_engine_answers(error: Exception) -> None:
    first, second, third = failing(error), ScriptedEngine(answer("two")), ScriptedEngine(answer("three"))
    engine = FallbackEngine([first, second, third])
    async with engine.stream("hi") as stream:
        assert [token async for token in stream] == ["two"]
        completion = await stream.completion()
    assert completion.usage.output_tokens == 1
    assert (len(first.requests), len(second.requests), len(third.requests)) == (1, 1, 0)


async def test_a_bad_request_is_nobody_elses() -> None:
    second = ScriptedEngine(answer("two"))
    with pytest.raises(BadRequestError):
        await FallbackEngine([failing(BadRequestError("bad", status=400)), second]).generate("hi")
    assert not second.requests


async def test_after_the_first_event_an_answer_is_one_engines_own() -> None:
    second = ScriptedEngine(answer("two"))
    first = ScriptedEngine([TextDelta("a"), ServerError("boom", status=500)])
    with pytest.raises(StreamInterrupted) as caught:
        await FallbackEngine([first, second]).generate("hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"
    assert not second.requests


async def test_all_down_raises_the_last_and_keeps_the_others() -> None:
    engine = FallbackEngine([failing(ServerError("one", status=500)), failing(OverloadedError("two", status=529))])
    with pytest.raises(OverloadedError, match="two") as caught:
        await engine.generate("hi")
    assert isinstance(caught.value.__cause__, ServerError)


async def test_too_slow_to_the_first_token() -> None:
    slow = ScriptedEngine([PAUSE], remote_params=RemoteParams(max_retries=0))
    engine = FallbackEngine([slow, ScriptedEngine(answer("two"))], first_token=0.05)
    assert (await engine.generate("hi")).text == "two"
    assert slow.aborts == 1
    slow = ScriptedEngine([PAUSE], remote_params=RemoteParams(max_retries=0))
    engine = FallbackEngine([slow, ScriptedEngine(answer("two"))])
    assert (await engine.generate("hi", timeouts=Timeouts(first_token=0.05))).text == "two"


async def test_the_hedge_is_asked_late_and_the_loser_is_cancelled() -> None:
    slow, quick = ScriptedEngine([PAUSE]), ScriptedEngine(answer("quick"))
    engine = FallbackEngine([slow, quick], hedge_after=0.05)
    assert (await engine.generate("hi")).text == "quick"
    assert (slow.aborts, slow.open_now) == (1, 0)
    first, spare = ScriptedEngine(answer("first")), ScriptedEngine(answer("spare"))
    engine = FallbackEngine([first, spare], hedge_after=5.0)
    assert (await engine.generate("hi")).text == "first"
    assert not spare.requests


async def test_a_failure_brings_the_hedge_forward() -> None:
    engine = FallbackEngine([failing(ServerError("x", status=500)), ScriptedEngine(answer("b"))], hedge_after=30.0)
    with anyio.fail_after(5):
        assert (await engine.generate("hi")).text == "b"
    engine = FallbackEngine(
        [failing(ServerError("x", status=500)), failing(ServerError("y", status=500))], hedge_after=30
    )
    with anyio.fail_after(5), pytest.raises(ServerError, match="y"):
        await engine.generate("hi")


async def test_leaving_early_reaches_the_engine_that_answers() -> None:
    inner = ScriptedEngine([TextDelta("a"), PAUSE])
    async with FallbackEngine([inner]).stream("hi") as stream:
        async for _ in stream:
            break
    assert inner.open_now == 0
    assert inner._own_limiter is not None
    assert inner._own_limiter.snapshot().in_flight == 0


async def test_each_engine_keeps_its_own_parameters_under_the_calls() -> None:
    def model(name: str, **sampling: Any) -> ScriptedEngine:
        return ScriptedEngine(
            ServerError("x", status=500) if name == "a" else answer("ok"),
            model_params=ModelParams(model_name=name),
            generation_params=GenerationParams(**sampling),
            remote_params=RemoteParams(max_retries=0),
        )

    first, second = model("a", temperature=0.1), model("b", temperature=0.2, top_p=0.5)
    completion = await FallbackEngine([first, second]).generate("hi", generation=GenerationParams(max_new_tokens=5))
    assert completion.text == "ok"
    asked = second.requests[0]
    assert (asked.model.model_name, asked.generation.temperature, asked.generation.top_p) == ("b", 0.2, 0.5)
    assert asked.generation.max_new_tokens == 5


@pytest.fixture
def providers() -> Iterator[tuple[FakeProvider, FakeProvider]]:
    with FakeProvider() as one, FakeProvider() as two:
        yield one, two


async def test_over_http(providers: tuple[FakeProvider, FakeProvider]) -> None:
    one, two = providers
    one.fail = [Fail(status=503, match=lambda body: "odd" in body["messages"][-1]["content"])]
    engines = [
        RemoteInferenceEngine(
            ModelParams(model_name="m"), remote_params=RemoteParams(api_url=provider.url, max_retries=0)
        )
        for provider in providers
    ]
    engine = open_engine(engines)
    assert isinstance(engine, FallbackEngine)
    rows = [f"row {number} {'odd' if number % 2 else 'even'}" for number in range(40)]
    results = await engine.generate_many(rows)
    assert [result.text for result in results] == rows
    assert two.stats.completed == 20
    await engine.aclose()


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        FallbackEngine([])
    with pytest.raises(ConfigError, match="hedge_after"):
        FallbackEngine([ScriptedEngine(answer())], hedge_after=0)
