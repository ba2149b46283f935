"""The pipeline from the outside: what a consumer sees, and what is left when it leaves."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import anyio
import pytest

from asyncinfer import (
    AsyncInferError,
    Engine,
    EngineClosedError,
    EngineError,
    Finish,
    FinishReason,
    FirstTokenTimeout,
    GenerationParams,
    RateLimitError,
    ReasoningDelta,
    ServerError,
    Start,
    StreamConsumedError,
    StreamInterrupted,
    StreamTruncated,
    TextDelta,
    Timeouts,
    TokenTimeout,
    ToolCallDelta,
    TotalTimeout,
    TransportError,
    Usage,
    UsageUpdate,
)

from .scripted import PAUSE, ScriptedEngine, answer, echo

pytestmark = pytest.mark.anyio


async def settle() -> None:
    """Let callbacks that were scheduled from `__del__` run."""
    gc.collect()
    for _ in range(5):
        await anyio.sleep(0.005)


def in_flight(engine: ScriptedEngine) -> int:
    assert engine._own_limiter is not None
    return engine._own_limiter.snapshot().in_flight


async def test_tokens_then_completion() -> None:
    engine = ScriptedEngine(answer("Hel", "lo"))
    async with engine.stream("hi") as stream:
        assert [token async for token in stream] == ["Hel", "lo"]
        completion = await stream.completion()
    assert completion.text == "Hello"
    assert completion.finish_reason == "stop"
    assert completion.usage == Usage(input_tokens=3, output_tokens=2)
    assert completion.conversation.messages[-1].content == "Hello"
    assert len(completion.conversation.messages) == 2
    assert completion.timings.deltas == 2
    assert completion.timings.ttft is not None
    assert (engine.aborts, engine.closes, in_flight(engine)) == (0, 1, 0)


async def test_the_input_is_never_mutated() -> None:
    engine = ScriptedEngine(echo)
    from asyncinfer import Conversation, Message, Role

    conversation = Conversation(messages=[Message(role=Role.USER, content="a b")])
    before = conversation.to_json()
    completion = await engine.generate(conversation)
    assert conversation.to_json() == before
    assert completion.conversation is not conversation


async def test_events_carry_everything() -> None:
    script = [
        Start(id="x", model="m"),
        ReasoningDelta("think"),
        TextDelta("ok"),
        ToolCallDelta(0, id="c1", name="f", arguments='{"a"'),
        ToolCallDelta(0, arguments=":1}"),
        UsageUpdate(Usage(5, 6)),
        Finish(FinishReason.TOOL_CALLS),
    ]
    engine = ScriptedEngine(script)
    async with engine.stream("hi") as stream:
        assert [event async for event in stream.events()] == script
        completion = await stream.completion()
    assert completion.message.reasoning_content == "think"
    calls = completion.message.tool_calls
    assert calls is not None
    assert (calls[0].id, calls[0].function.name, calls[0].function.arguments) == ("c1", "f", '{"a":1}')
    assert completion.finish_reason is FinishReason.TOOL_CALLS


async def test_what_is_counted_before_the_end_is_no_exact_count() -> None:
    """One of two answers is complete, and its tokens are known; those of the other are not."""
    usage = Usage(input_tokens=7, output_tokens=2, cached_tokens=4)
    engine = ScriptedEngine(
        [TextDelta("a"), Finish(FinishReason.STOP), UsageUpdate(usage), *[TextDelta("b", index=1)] * 9, PAUSE]
    )
    async with engine.stream("hi", generation=GenerationParams(n=2)) as stream:
        seen = 0
        async for _ in stream.events():
            seen += 1
            if seen == 12:
                break
    assert stream.usage == Usage(input_tokens=7, output_tokens=10, cached_tokens=4, source="estimated")


@pytest.mark.parametrize("hold", [True, False])
async def test_break_stops_the_work_even_while_the_stream_is_held(hold: bool) -> None:
    engine = ScriptedEngine([TextDelta("a"), PAUSE])
    stream = engine.stream("hi")
    async for _ in stream:
        break
    if not hold:
        del stream
    await settle()
    assert (engine.aborts, engine.open_now, in_flight(engine)) == (1, 0, 0)
    if hold:
        assert stream.usage is not None
        assert stream.usage.source == "estimated"
        with pytest.raises(StreamInterrupted) as caught:
            await stream.completion()
        assert caught.value.partial is not None
        assert caught.value.partial.text == "a"
        with pytest.raises(StreamInterrupted):
            async for _ in stream:
                pass


async def test_an_exception_in_the_body_stops_the_work() -> None:
    engine = ScriptedEngine([TextDelta("a"), PAUSE])

    async def body() -> None:
        async for _ in engine.stream("hi"):
            raise KeyError("mine")

    with contextlib.suppress(KeyError):
        await body()
    await settle()
    assert (engine.aborts, in_flight(engine)) == (1, 0)


async def test_cancellation_while_reading_stops_the_work() -> None:
    engine = ScriptedEngine([TextDelta("a"), PAUSE])
    with anyio.move_on_after(0.05):
        async for _ in engine.stream("hi"):
            pass
    await settle()
    assert (engine.aborts, in_flight(engine)) == (1, 0)


async def test_cancellation_before_the_first_token_gives_the_slot_back() -> None:
    engine = ScriptedEngine([PAUSE])
    with anyio.move_on_after(0.05):
        await engine.generate("hi")
    assert (engine.aborts, in_flight(engine)) == (1, 0)


async def test_inside_async_with_a_loop_may_break_and_resume() -> None:
    engine = ScriptedEngine([[TextDelta("a"), TextDelta("b"), TextDelta("c")], Finish(FinishReason.STOP)])
    async with engine.stream("hi") as stream:
        seen = []
        async for token in stream:
            seen.append(token)
            break
        seen += [token async for token in stream]
        assert seen == ["a", "b", "c"]
        with pytest.raises(StreamConsumedError):
            stream.events()


async def test_leaving_the_block_stops_the_work() -> None:
    engine = ScriptedEngine([TextDelta("a"), PAUSE])
    async with engine.stream("hi") as stream:
        async for _ in stream:
            break
    assert (engine.aborts, in_flight(engine)) == (1, 0)
    with pytest.raises(StreamInterrupted):
        await stream.completion()


async def test_breaking_at_the_finish_still_completes() -> None:
    engine = ScriptedEngine(answer("a"))
    async with engine.stream("hi") as stream:
        async for event in stream.events():
            if isinstance(event, Finish):
                break
    assert (engine.aborts, engine.closes) == (0, 1)
    assert stream.usage == Usage(3, 1)


async def test_a_truncated_answer_never_looks_finished() -> None:
    engine = ScriptedEngine([TextDelta("half")])
    with pytest.raises(StreamTruncated) as caught:
        await engine.generate("hi")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "half"
    assert caught.value.partial.finish_reason is None


async def test_failures_before_the_first_delta_are_retried() -> None:
    engine = ScriptedEngine(
        ServerError("down", status=500), [Start(), TransportError("reset")], [Start()], answer("yes")
    )
    completion = await engine.generate("hi")
    assert completion.text == "yes"
    assert completion.timings.attempts == 4
    assert in_flight(engine) == 0


async def test_failures_after_the_first_delta_are_not() -> None:
    engine = ScriptedEngine([TextDelta("a"), ServerError("boom", status=529, request_id="r")], answer("never"))
    with pytest.raises(StreamInterrupted) as caught:
        await engine.generate("hi")
    assert len(engine.requests) == 1
    assert (caught.value.status, caught.value.request_id) == (529, "r")
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


async def test_what_cannot_succeed_is_not_retried() -> None:
    from asyncinfer import AuthenticationError

    engine = ScriptedEngine(AuthenticationError("bad key", status=401), answer("never"))
    with pytest.raises(AuthenticationError):
        await engine.generate("hi")
    assert len(engine.requests) == 1


async def test_a_long_retry_after_fails_fast_with_its_value() -> None:
    engine = ScriptedEngine(RateLimitError("slow", status=429, retry_after=3600.0), answer("never"))
    with pytest.raises(RateLimitError) as caught:
        await engine.generate("hi")
    assert caught.value.retry_after == 3600.0


async def test_foreign_exceptions_do_not_leave_the_package() -> None:
    engine = ScriptedEngine([TextDelta("a"), ZeroDivisionError("oops")])
    with pytest.raises(StreamInterrupted) as caught:
        await engine.generate("hi")
    assert "oops" in str(caught.value)
    engine = ScriptedEngine(ZeroDivisionError("oops"))
    with pytest.raises(EngineError):
        await engine.generate("hi")


@pytest.mark.parametrize(
    ("script", "timeouts", "error"),
    [
        ([PAUSE], Timeouts(first_token=0.05), FirstTokenTimeout),
        ([Start(), PAUSE], Timeouts(first_token=0.05), FirstTokenTimeout),
        ([TextDelta("a"), PAUSE], Timeouts(between_tokens=0.05), TokenTimeout),
        ([TextDelta("a"), PAUSE], Timeouts(total=0.05), TotalTimeout),
        ([PAUSE], Timeouts(total=0.05), TotalTimeout),
    ],
)
async def test_each_clock_names_itself(script: list[Any], timeouts: Timeouts, error: type[AsyncInferError]) -> None:
    from asyncinfer import RemoteParams

    engine = ScriptedEngine(script, remote_params=RemoteParams(max_retries=0))
    with pytest.raises(error) as caught:
        await engine.generate("hi", timeouts=timeouts)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.seconds == 0.05  # type: ignore[attr-defined]
    assert in_flight(engine) == 0
    if script[0] == TextDelta("a"):
        assert caught.value.partial is not None
        assert caught.value.partial.text == "a"


async def test_a_slow_consumer_is_not_a_silent_provider() -> None:
    engine = ScriptedEngine(answer("a", "b", "c"))
    seen = []
    async for token in engine.stream("hi", timeouts=Timeouts(between_tokens=0.05)):
        await anyio.sleep(0.1)
        seen.append(token)
    assert seen == ["a", "b", "c"]


async def test_waiting_for_a_slot_counts_toward_total_only() -> None:
    engine = ScriptedEngine([TextDelta("a"), 0.2, Finish(FinishReason.STOP)], slots=1)
    results = await engine.generate_many(["x", "y"], timeouts=Timeouts(first_token=0.1))
    assert [bool(result) for result in results] == [True, True]


async def test_closing_the_engine_ends_its_calls_with_a_reason() -> None:
    engine = ScriptedEngine([TextDelta("a"), PAUSE])
    caught: list[BaseException] = []

    async def read() -> None:
        try:
            async for _ in engine.stream("hi"):
                pass
        except AsyncInferError as error:
            caught.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.sleep(0.05)
        await engine.aclose()
    assert isinstance(caught[0], EngineClosedError)
    assert in_flight(engine) == 0


async def test_two_tasks_may_not_read_one_stream() -> None:
    engine = ScriptedEngine([TextDelta("a"), PAUSE])
    async with engine.stream("hi") as stream:
        tokens = stream.__aiter__()
        assert await anext(tokens) == "a"

        async def read() -> None:
            with pytest.raises(AsyncInferError):
                await anext(tokens)

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.sleep(0.02)
            with pytest.raises(EngineError, match="two tasks"):
                await anext(tokens)
            await stream.aclose()


async def test_first_token_is_seen_before_the_last_is_made() -> None:
    made: list[str] = []

    async def run() -> None:
        class Slow(ScriptedEngine):
            pass

        def script(request: Any) -> Any:
            for piece in ("a", "b", "c"):
                made.append(piece)
                yield TextDelta(piece)
                yield 0.01
            yield Finish(FinishReason.STOP)

        async for token in Slow(script).stream("hi"):
            if token == "a":
                assert made == ["a"]

    await run()


async def test_n_choices() -> None:
    from asyncinfer import GenerationParams

    engine = ScriptedEngine(
        [
            TextDelta("a0"),
            Finish(FinishReason.STOP, index=0),
            TextDelta("b1", index=1),
            TextDelta("b2", index=1),
            Finish(FinishReason.LENGTH, index=1),
        ]
    )
    async with engine.stream("hi", generation=GenerationParams(n=2)) as stream:
        assert [token async for token in stream] == ["a0"]
        completion = await stream.completion()
    assert [choice.text for choice in completion.choices] == ["a0", "b1b2"]
    assert [choice.finish_reason for choice in completion.choices] == ["stop", "length"]


async def test_a_generator_that_fails_while_it_is_closed_ends_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    class Untidy(Engine):
        async def produce(self, request: Any) -> Any:
            try:
                yield TextDelta("a")
                await anyio.sleep(10)
            finally:
                raise RuntimeError("the bin is full")

    async for _ in Untidy().stream("hi"):
        break
    await settle()
    assert "the bin is full" in caplog.text
