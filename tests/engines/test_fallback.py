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
    ConnectError,
    ConnectTimeout,
    FallbackEngine,
    GenerationParams,
    ModelParams,
    OverloadedError,
    QuotaExceededError,
    RateLimitError,
    RemoteInferenceEngine,
    RemoteParams,
    RetryKind,
    ServerError,
    StreamInterrupted,
    TextDelta,
    Timeouts,
    open_engine,
)
from asyncinfer.limits import Limits
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


async def test_a_silent_engine_is_asked_once_and_the_last_keeps_its_retries() -> None:
    silent, spare = ScriptedEngine([PAUSE]), ScriptedEngine(answer("two"))
    assert (await FallbackEngine([silent, spare], first_token=0.05).generate("hi")).text == "two"
    assert len(silent.requests) == silent.aborts == 1
    last = ScriptedEngine([PAUSE], answer("late"))
    assert (await FallbackEngine([silent, last], first_token=0.05).generate("hi")).text == "late"
    assert (len(silent.requests), len(last.requests)) == (2, 2)


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("refused"),
        ConnectTimeout("no answer", seconds=1),
        RateLimitError("later", status=429, retry=RetryKind.THROTTLED, retry_after=30.0),
        OverloadedError("later", status=503, retry=RetryKind.OVERLOADED, retry_after=30.0),
        QuotaExceededError("no credit", status=402),
    ],
)
@pytest.mark.parametrize("retries", [None, 5])
async def test_no_retry_is_burnt_where_another_engine_stands_by(error: Exception, retries: int | None) -> None:
    remote = None if retries is None else RemoteParams(max_retries=retries)
    first, second = ScriptedEngine(error, remote_params=remote), ScriptedEngine(answer("two"))
    with anyio.fail_after(5):
        assert (await FallbackEngine([first, second]).generate("hi")).text == "two"
    assert len(first.requests) == 1


class Quick(ScriptedEngine):
    """Waits next to nothing between attempts; ``retries``: what its user has set."""

    retries: int | None = None

    def limits(self) -> Limits:
        return Limits(max_retries=self.retries, backoff_first=0.001, backoff_most=0.002)


@pytest.mark.parametrize(("retries", "asked"), [(None, 2), (0, 1), (3, 4)])
async def test_other_faults_have_a_second_chance_or_as_many_as_the_user_says(retries: int | None, asked: int) -> None:
    first = Quick(ServerError("x", status=500))
    first.retries = retries
    assert (await FallbackEngine([first, ScriptedEngine(answer("two"))]).generate("hi")).text == "two"
    assert len(first.requests) == asked


async def test_a_hiccup_changes_no_engine_and_the_last_has_all_its_attempts() -> None:
    hiccup, second = Quick(ServerError("x", status=500), answer("one")), ScriptedEngine(answer("two"))
    assert (await FallbackEngine([hiccup, second]).generate("hi")).text == "one"
    assert not second.requests
    last = Quick(ServerError("x", status=500))
    with pytest.raises(ServerError) as caught:
        await FallbackEngine([ScriptedEngine(ConnectError("refused")), last]).generate("hi")
    assert len(last.requests) == 8
    assert isinstance(caught.value.__cause__, ConnectError)


async def test_nobody_queues_behind_an_engine_that_asked_for_silence() -> None:
    later = RateLimitError("later", status=429, retry=RetryKind.THROTTLED, retry_after=30.0)
    first = ScriptedEngine(later, answer("a"))
    engine = FallbackEngine([first, ScriptedEngine(answer("two"))])
    with anyio.fail_after(5):
        for _ in range(3):
            assert (await engine.generate("hi")).text == "two"
    assert len(first.requests) == 1


async def test_the_queue_counts_towards_the_first_token_while_another_engine_stands_by() -> None:
    busy = ScriptedEngine([TextDelta("a"), PAUSE], slots=1)
    engine = FallbackEngine([busy, ScriptedEngine(answer("two"))], first_token=0.05)
    async with engine.stream("hi") as stream:
        async for _ in stream:
            break
        with anyio.fail_after(5):
            assert (await engine.generate("hi")).text == "two"
    assert len(busy.requests) == 1
    state = busy.limiter(busy.requests[0]).snapshot()
    assert (state.waiting, state.in_flight) == (0, 0)


async def test_a_hedged_engine_is_not_asked_twice_either() -> None:
    first = ScriptedEngine(ConnectError("refused"))
    engine = FallbackEngine([first, ScriptedEngine(answer("b"))], hedge_after=30.0)
    with anyio.fail_after(5):
        assert (await engine.generate("hi")).text == "b"
    assert len(first.requests) == 1


async def test_a_refused_connection_over_http() -> None:
    with FakeProvider() as gone:
        dead = gone.url
    with FakeProvider() as alive:
        one, two = (
            RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=RemoteParams(api_url=url))
            for url in (dead, alive.url)
        )
        async with FallbackEngine([one, two]) as engine:
            with anyio.fail_after(10):
                completion = await engine.generate("hello")
        assert completion.text == "hello"
        assert one.limiter(one.plan(None, None, None, None, None).request("x", "", 1.0)).snapshot().sent == 1


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
