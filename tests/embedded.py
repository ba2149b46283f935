"""What every engine that loads the embedded model is asked beyond the conformance suite; each room imports its cases.

The rooms give the fixtures: ``engine``, which is shared, and ``make`` for engines of a test's own.
"""

from __future__ import annotations

import json
import math
import threading

import anyio
import pytest

from asyncinfer import (
    ContentItem,
    Conversation,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    Message,
    Role,
    StreamInterrupted,
    TextDelta,
    Type,
)
from asyncinfer.errors import ConfigError, EngineClosedError
from asyncinfer.events import Finish, Start, UsageUpdate

COUNT = "Count from 1 to 20."
COUNTED = " ".join(map(str, range(1, 21)))
SUM, SUMMED = "What is 3 + 4?", "3 + 4 = 7."
NOISE = "Repeat after me: x"
LONG = GenerationParams(max_new_tokens=1500, logit_bias={2: -100})  # 2 ends an answer: it never will by itself
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def params(**fields):
    return GenerationParams(**fields)


async def events_of(engine, prompt, **kwargs):
    async with engine.stream(prompt, **kwargs) as stream:
        return [event async for event in stream.events()]


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_the_events_of_an_answer(engine):
    events = await events_of(engine, "What is the capital of France?")
    assert type(events[0]) is Start and events[0].id and events[0].model == "asyncinfer-tiny"
    assert "".join(event.text for event in events if type(event) is TextDelta) == "The capital of France is Paris."
    assert sum(type(event) is TextDelta for event in events) > 3
    (finish,) = [event for event in events if type(event) is Finish]
    assert finish.reason is FinishReason.STOP
    usage = [event for event in events if type(event) is UsageUpdate][-1].usage
    assert (usage.input_tokens, usage.output_tokens, usage.source) == (18, 8, "exact")


async def test_a_short_answer_joins_a_long_one_and_is_done_first(engine):
    """Continuous batching: nobody waits for the batch before; and the first token is there before the last is made."""
    begun, ended = anyio.Event(), []

    async def long():
        async with engine.stream(COUNT, generation=params(max_new_tokens=1000, logit_bias={2: -100})) as stream:
            async for _ in stream:
                begun.set()
        ended.append("long")

    async def short():
        await begun.wait()
        assert (await engine.generate(SUM)).text == SUMMED
        ended.append("short")

    async with anyio.create_task_group() as group:
        group.start_soon(long)
        group.start_soon(short)
    assert ended == ["short", "long"]


@pytest.mark.parametrize(
    ("stops", "text", "matched"),
    [
        ([" 5"], "1 2 3 4", " 5"),
        (["1 2"], "", "1 2"),
        (["4 5 6", "zebra"], "1 2 3 ", "4 5 6"),
        (["8 9 1x", "12"], "1 2 3 4 5 6 7 8 9 10 11 ", "12"),
        (["5", "4 5"], "1 2 3 ", "4 5"),
        (["never"], COUNTED, None),
    ],
)
async def test_the_stop_string_that_matched_is_named(engine, stops, text, matched):
    completion = await engine.generate(COUNT, generation=params(stop_strings=stops))
    assert (completion.text, completion.finish_reason) == (text, FinishReason.STOP)
    assert completion.choices[0].matched == matched


async def test_only_the_best_at_any_temperature(engine):
    for only_the_best in (
        params(temperature=2.0, top_k=1),
        params(temperature=2.0, top_p=0.0),
        params(temperature=2.0, min_p=1.0),
        params(temperature=0.0, top_p=0.0),
    ):
        assert (await engine.generate(COUNT, generation=only_the_best)).text == COUNTED


async def test_stop_tokens_end_the_answer_and_are_not_shown(engine):
    completion = await engine.generate(COUNT, generation=params(stop_token_ids=[20, 900]))  # "2"
    assert (completion.text, completion.choices[0].matched) == ("1 ", 20)
    assert completion.finish_reason is FinishReason.STOP
    assert completion.choices[0].logprobs is None


async def test_least_tokens(engine):
    completion = await engine.generate(SUM, generation=params(min_new_tokens=30, max_new_tokens=40))
    assert 30 <= completion.usage.output_tokens <= 40
    assert completion.text.startswith(SUMMED)


async def test_sampled_answers_are_kept_apart_and_repeat_together(engine):
    noise = params(n=3, temperature=1.5, seed=1, max_new_tokens=20)
    completion, again = [await engine.generate(NOISE, generation=noise) for _ in range(2)]
    assert [choice.text for choice in completion.choices] == [choice.text for choice in again.choices]
    assert len({choice.text for choice in completion.choices}) > 1
    assert all(choice.finish_reason is not None for choice in completion.choices)


@pytest.mark.parametrize("top", [3, 30])
async def test_logprobs_of_every_token(engine, top):
    completion = await engine.generate(COUNT, generation=params(logprobs=True, top_logprobs=top, max_new_tokens=9))
    entries = completion.choices[0].logprobs
    assert "".join(entry["token"] for entry in entries) == completion.text == "1 2 3 4 5"
    for entry in entries:
        assert -1 < entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode() == entry["token"]
        others = [other["logprob"] for other in entry["top_logprobs"]]
        assert len(others) == top
        assert others == sorted(others, reverse=True)
        assert math.isclose(others[0], entry["logprob"], abs_tol=1e-4)


async def test_the_prompt_and_special_tokens_are_shown_where_asked_for(engine):
    plain = (await engine.generate(SUM, generation=params(exclude_prompt_from_response=False))).text
    assert SUM in plain and plain.endswith(SUMMED) and "<|im_start|>" not in plain
    whole = params(exclude_prompt_from_response=False, skip_special_tokens=False)
    text = (await engine.generate(SUM, generation=whole)).text
    assert text.startswith("<|im_start|>user\nWhat") and text.endswith(SUMMED)


# -- shapes and tools --------------------------------------------------------------------------------------------------


async def test_a_schema_as_values_or_as_text_shapes_an_answer_that_wants_to_be_another(engine):
    schema = {
        "type": "object",
        "properties": {
            "ok": {"type": "boolean"},
            "some": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        },
        "required": ["ok", "some"],
        "additionalProperties": False,
    }
    for given in (schema, json.dumps(schema)):
        guided = params(guided_decoding=GuidedDecodingParams(json=given), max_new_tokens=200)
        answer = json.loads((await engine.generate(COUNT, generation=guided)).text)
        assert type(answer["ok"]) is bool
        assert len(answer["some"]) <= 2 and set(answer["some"]) <= {"a", "b"}


async def test_a_tool_is_called_and_its_result_is_read(engine, how):
    """``how``: the call's own keywords, of each way of the engine to find calls in the text."""
    question = Conversation(messages=[Message(role=Role.USER, content="What is the weather in Paris?")])
    completion = await engine.generate(question, tools=[WEATHER], **how)
    assert completion.finish_reason is FinishReason.TOOL_CALLS
    (call,) = completion.message.tool_calls
    assert call.function.name == "get_weather" and call.id
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert not completion.text.strip()
    result = Message(role=Role.TOOL, content='{"weather": "sunny", "temp": 21}', tool_call_id=call.id)
    final = await engine.generate(completion.conversation.with_message(result), tools=[WEATHER], **how)
    assert (final.text, final.finish_reason) == ("It is sunny in Paris and 21 degrees.", FinishReason.STOP)


async def test_a_tool_that_must_be_called(engine, how):
    city = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
    tools = [
        {"type": "function", "function": {"name": name, "description": "x", "parameters": city}}
        for name in ("one", "other")
    ]
    for offered in (tools[:1], tools):
        forced = await engine.generate(COUNT, tools=offered, generation=params(tool_choice="required"), **how)
        (call, *_) = forced.message.tool_calls
        assert call.function.name in {"one", "other"}
        assert json.loads(call.function.arguments)["city"] in {"Oslo", "Rome"}
        assert forced.finish_reason is FinishReason.TOOL_CALLS
    assert (await engine.generate(COUNT, tools=tools, generation=params(tool_choice="none"))).text == COUNTED


@pytest.mark.parametrize(
    "picture",
    [
        ContentItem(type=Type.IMAGE_BINARY, binary=b"\x89PNG"),
        ContentItem(type=Type.IMAGE_URL, content="http://127.0.0.1/x.png"),
    ],
    ids=["bytes", "address"],
)
async def test_an_image_is_refused_not_dropped(engine, picture):
    with pytest.raises(ConfigError, match="text only"):
        await engine.generate(Conversation(messages=[Message(role=Role.USER, content=[picture])]))


# -- leaving, closing --------------------------------------------------------------------------------------------------


async def test_an_early_exit_reports_the_prompt_it_paid_for(engine):
    async with engine.stream("What is the capital of France?", generation=LONG) as stream:
        async for _ in stream:
            break
    with pytest.raises(StreamInterrupted) as caught:
        await stream.completion()
    usage = caught.value.partial.usage
    assert usage.input_tokens == 18 and usage.source == "estimated"


def test_one_engine_in_several_loops_of_several_threads(engine):
    answers = []

    def run(backend):
        async def main():
            completions = await engine.generate_many([COUNT] * 4)
            answers.extend(completion.text for completion in completions)

        anyio.run(main, backend=backend)

    threads = [threading.Thread(target=run, args=(backend,)) for backend in ("asyncio", "trio", "asyncio")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [COUNTED] * 12


def threads_of(engine):
    return {one for one in threading.enumerate() if one.name.startswith(f"asyncinfer-{engine.name}")}


async def test_close_ends_running_and_waiting_calls_joins_the_threads_and_opens_again(make):
    engine = make(n_parallel=2)
    before = threads_of(engine)
    errors = []

    async def read():
        try:
            async for _ in engine.stream(COUNT, generation=LONG):
                pass
        except (EngineClosedError, StreamInterrupted) as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(read)
        await engine.ready()
        await anyio.sleep(0.1)
        await engine.aclose()
    assert len(errors) == 5
    assert threads_of(engine) <= before
    assert (await engine.generate(SUM)).text == SUMMED
    await engine.aclose()
    await engine.aclose()
    assert threads_of(engine) <= before


async def test_a_dropped_engine_stops_its_threads(make):
    engine = make()
    before = threads_of(engine)
    await engine.generate(SUM)
    mine = threads_of(engine) - before
    assert mine
    del engine
    with anyio.fail_after(20):
        while any(thread.is_alive() for thread in mine):
            await anyio.sleep(0.01)


async def test_an_engine_that_was_cancelled_while_loading_can_be_used_later(make):
    engine = make()
    for patience in (0, 0.01):
        with anyio.move_on_after(patience):
            await engine.ready()
    assert (await engine.generate(SUM)).text == SUMMED
    await engine.aclose()
