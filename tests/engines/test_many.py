"""``generate_many``: order, isolation, bounds, and every way of leaving it."""

from __future__ import annotations

import gc
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from asyncinfer import (
    ConfigError,
    Conversation,
    Failure,
    Finish,
    FinishReason,
    StreamConsumedError,
    TextDelta,
    Timeouts,
    TotalTimeout,
)

from .scripted import PAUSE, ScriptedEngine, answer, echo

pytestmark = pytest.mark.anyio


def moody(request: Any) -> list[Any]:
    """Rows of the form ``row N``: every seventh fails, every third is slow."""
    number = int(str(request.conversation.messages[-1].content).split()[1])
    if number % 7 == 0:
        return [_fatal()]
    return [0.002 * (number % 3), *echo(request)]


def _fatal() -> Exception:
    from asyncinfer import BadRequestError

    return BadRequestError("bad row", status=400)


def rows(count: int) -> Iterator[str]:
    return (f"row {number}" for number in range(count))


async def arows(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"row {number}"


@pytest.mark.parametrize("source", [rows, arows])
async def test_a_list_in_input_order_with_failures_in_place(source: Any) -> None:
    engine = ScriptedEngine(moody, slots=8)
    results = await engine.generate_many(source(50))
    assert [result.index for result in results] == list(range(50))
    for number, result in enumerate(results):
        if number % 7 == 0:
            assert isinstance(result, Failure)
            assert result.error.status == 400
        else:
            assert result
            assert result.text == f"row{number}"
    assert engine.peak <= 8
    assert engine.open_now == 0


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("source", [rows, arows])
async def test_iteration(ordered: bool, source: Any) -> None:
    engine = ScriptedEngine(moody, slots=4)
    seen = [result.index async for result in engine.generate_many(source(40), ordered=ordered)]
    assert sorted(seen) == list(range(40))
    if ordered:
        assert seen == sorted(seen)


async def test_an_endless_source_and_one_stuck_row_stay_within_the_window() -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield f"row {number}"

    def script(request: Any) -> list[Any]:
        stuck = request.conversation.messages[-1].content == "row 3"
        return [PAUSE] if stuck else echo(request)

    engine = ScriptedEngine(script)
    with anyio.move_on_after(0.3):
        async for _ in engine.generate_many(endless(), window=16):
            pass
    assert taken <= 3 + 16
    await anyio.sleep(0.02)
    assert engine.open_now == 0

    taken = 0
    engine = ScriptedEngine(script)
    count = 0
    async for _ in engine.generate_many(endless(), window=16, ordered=False):
        count += 1
        if count == 500:
            break
    assert taken <= 500 + 16


async def test_a_slow_consumer_holds_back_the_source() -> None:
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield f"row {number}"

    engine = ScriptedEngine(echo)
    async with engine.generate_many(source(), window=8) as results:
        await anext(results)
        await anyio.sleep(0.05)
        assert taken <= 1 + 8


@pytest.mark.parametrize("hold", [True, False])
async def test_leaving_early_stops_every_row(hold: bool) -> None:
    def script(request: Any) -> list[Any]:
        first = request.conversation.messages[-1].content == "row 0"
        return echo(request) if first else [TextDelta("x"), PAUSE]

    engine = ScriptedEngine(script, slots=8)
    many = engine.generate_many(rows(100))
    async for _ in many:
        await anyio.sleep(0.02)
        assert engine.open_now > 0
        break
    if not hold:
        del many
    gc.collect()
    for _ in range(10):
        await anyio.sleep(0.005)
    assert engine.open_now == 0


async def test_cancelling_the_await_returns_after_the_workers_are_gone() -> None:
    engine = ScriptedEngine([TextDelta("x"), PAUSE], slots=8)
    with anyio.move_on_after(0.05):
        await engine.generate_many(rows(100))
    assert engine.open_now == 0


async def test_on_error_raise() -> None:
    engine = ScriptedEngine(moody)
    with pytest.raises(Exception, match="bad row"):
        await engine.generate_many(rows(20), on_error="raise")
    assert engine.open_now == 0


async def test_a_source_that_breaks_loses_no_finished_row() -> None:
    def source() -> Iterator[str]:
        yield "row 1"
        yield "row 2"
        raise KeyError("source")

    async def asource() -> AsyncIterator[str]:
        for row in source():
            yield row

    for broken in (source(), asource()):
        engine = ScriptedEngine(echo)
        seen = []
        with pytest.raises(KeyError, match="source"):
            async for result in engine.generate_many(broken):
                seen.append(result.index)  # noqa: PERF401 -- a comprehension would lose what came before the error
        assert seen == [0, 1]


async def test_an_async_source_is_closed_by_the_task_that_pulled_it() -> None:
    closed = []

    async def source() -> AsyncIterator[str]:
        # A scope that is open across yields: it breaks if two tasks touch the generator.
        with anyio.CancelScope():
            try:
                for number in itertools.count():
                    yield f"row {number}"
            finally:
                closed.append(True)

    engine = ScriptedEngine(echo)
    async with engine.generate_many(source(), window=4) as results:
        for _ in range(5):
            await anext(results)
    assert closed == [True]


async def test_rows_that_are_no_conversations_fail_alone() -> None:
    engine = ScriptedEngine(echo)
    results = await engine.generate_many(["a", 3, [], {"messages": [{"role": "user", "content": "b"}]}])
    assert [bool(result) for result in results] == [True, False, False, True]
    assert isinstance(results[1].error, ConfigError)


async def test_it_runs_once() -> None:
    many = ScriptedEngine(echo).generate_many(rows(2))
    await many
    with pytest.raises(StreamConsumedError):
        await many


async def test_empty_and_short_sources() -> None:
    engine = ScriptedEngine(echo)
    assert await engine.generate_many([]) == []
    assert [result.text for result in await engine.generate_many(["one"])] == ["one"]


async def test_one_slow_row_does_not_hold_back_unordered_ones() -> None:
    def script(request: Any) -> list[Any]:
        slow = request.conversation.messages[-1].content == "row 0"
        return [0.2 if slow else 0, TextDelta("x"), Finish(FinishReason.STOP)]

    engine = ScriptedEngine(script, slots=4)
    seen = [result.index async for result in engine.generate_many(rows(30), ordered=False)]
    assert seen[-1] == 0


def test_a_second_loop_may_use_the_same_engine() -> None:
    engine = ScriptedEngine(lambda request: answer("x"))

    async def run() -> list[Any]:
        return list(await engine.generate_many(rows(5)))

    for backend in ("asyncio", "trio", "asyncio"):
        assert len(anyio.run(run, backend=backend)) == 5


async def test_the_total_clock_of_a_row_starts_when_it_is_sent() -> None:
    engine = ScriptedEngine([TextDelta("first"), PAUSE], echo, slots=1)
    async with engine.stream("holds the only slot") as stream, anyio.create_task_group() as group:
        await anext(stream.events())
        results: list[Any] = []

        async def ask() -> None:
            results.extend(await engine.generate_many(rows(1), timeouts=Timeouts(total=0.3)))

        group.start_soon(ask)
        await anyio.sleep(0.5)
        assert not results
        await stream.aclose()
    assert results[0], results[0].error
    slow = ScriptedEngine([PAUSE])
    (result,) = await slow.generate_many(rows(1), timeouts=Timeouts(total=0.05))
    assert isinstance(result.error, TotalTimeout)


async def test_a_run_that_is_left_takes_no_more_rows() -> None:
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        for taken in itertools.count(1):
            yield f"row {taken}"

    engine = ScriptedEngine(lambda request: echo(request) if taken < 3 else [PAUSE], slots=2)
    async with engine.generate_many(source(), ordered=False) as results:
        async for _ in results:
            break
        await anyio.sleep(0.02)  # all slots are taken now, and one row waits for the next
        before = taken
    assert taken == before
    assert engine.open_now == 0


@pytest.mark.parametrize("source", ["a prompt", b"bytes", {"messages": []}, Conversation(messages=[]), 5, None])
async def test_what_is_not_many_rows_is_refused(source: Any) -> None:
    with pytest.raises(ConfigError, match="iterable of conversations"):
        ScriptedEngine(echo).generate_many(source)


@pytest.mark.parametrize(
    "wrong", [{"timeouts": 5}, {"generation": {"temperature": 0.5}}, {"inference_config": {}}, {"on_error": "ignore"}]
)
async def test_a_wrong_argument_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ScriptedEngine(echo).generate_many(["a"], **wrong)
    assert caught.value.path == next(iter(wrong))
