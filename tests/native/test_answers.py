"""The Transformers engine on the embedded model, through the public face, on asyncio and on trio."""

from __future__ import annotations

import json
import math
import re
import threading

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from asyncinfer import (
    Conversation,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    Message,
    Prompt,
    Role,
    StreamInterrupted,
    TextDelta,
)
from asyncinfer.errors import (
    BadRequestError,
    ConfigError,
    ContextLengthError,
    EngineClosedError,
    EngineError,
    UnsupportedParameterError,
)
from asyncinfer.events import Finish, Start, UsageUpdate

pytestmark = [pytest.mark.native, pytest.mark.anyio]

KNOWN = {  # what llama.cpp answers, token for token
    "What is the capital of France?": "The capital of France is Paris.",
    "What is the capital of Japan?": "The capital of Japan is Tokyo.",
    "What is 3 + 4?": "3 + 4 = 7.",
    "Count from 1 to 10.": "1 2 3 4 5 6 7 8 9 10",
    "Count from 1 to 20.": " ".join(map(str, range(1, 21))),
    "Give JSON for the person Alice aged 30.": '{"name": "Alice", "age": 30}',
    "Hello": "Hello! How can I help you today?",
}
COUNT = "Count from 1 to 20."
LONG = GenerationParams(max_new_tokens=1500, logit_bias={2: -100})  # 2 ends an answer: it never will by itself


def params(**fields):
    return GenerationParams(**fields)


async def test_known_answers_together_each_its_own_in_order(engine):
    prompts = [list(KNOWN)[number % len(KNOWN)] for number in range(32)]
    completions = await engine.generate_many(prompts)
    assert [completion.text for completion in completions] == [KNOWN[prompt] for prompt in prompts]
    assert {completion.finish_reason for completion in completions} == {FinishReason.STOP}


async def test_the_events_of_an_answer(engine):
    async with engine.stream("What is the capital of France?") as stream:
        events = [event async for event in stream.events()]
    assert type(events[0]) is Start and events[0].id and events[0].model == "asyncinfer-tiny"
    assert "".join(event.text for event in events if type(event) is TextDelta) == "The capital of France is Paris."
    assert sum(type(event) is TextDelta for event in events) > 3
    (finish,) = [event for event in events if type(event) is Finish]
    assert finish.reason is FinishReason.STOP
    usage = [event for event in events if type(event) is UsageUpdate][-1].usage
    assert (usage.input_tokens, usage.output_tokens, usage.source) == (18, 8, "exact")


async def test_rows_of_a_batch_end_each_in_its_own_way(engine):
    """One long row must not make the others look cut."""
    short = engine.generate("What is 3 + 4?", generation=params(max_new_tokens=100))
    results = []

    async def run(call):
        results.append(await call)

    async with anyio.create_task_group() as group:
        group.start_soon(run, engine.generate(COUNT, generation=params(max_new_tokens=5)))
        group.start_soon(run, short)
    found = {completion.text: (completion.finish_reason, completion.usage.output_tokens) for completion in results}
    assert found == {"1 2 3": (FinishReason.LENGTH, 5), "3 + 4 = 7.": (FinishReason.STOP, 9)}


@pytest.mark.parametrize(
    ("stops", "text", "matched"),
    [([" 5"], "1 2 3 4", " 5"), (["8 9 1x", "12"], "1 2 3 4 5 6 7 8 9 10 11 ", "12"), (["never"], KNOWN[COUNT], None)],
)
async def test_stop_strings_cut_exactly(engine, stops, text, matched):
    completion = await engine.generate(COUNT, generation=params(stop_strings=stops))
    assert (completion.text, completion.finish_reason) == (text, FinishReason.STOP)
    assert completion.choices[0].matched == matched


async def test_stop_tokens_end_the_answer_and_are_not_shown(engine):
    completion = await engine.generate(COUNT, generation=params(stop_token_ids=[20]))  # "2"
    assert (completion.text, completion.choices[0].matched) == ("1 ", 20) or completion.text.strip() == "1"
    assert completion.finish_reason is FinishReason.STOP


async def test_least_tokens(engine):
    completion = await engine.generate("What is 3 + 4?", generation=params(min_new_tokens=30, max_new_tokens=40))
    assert 30 <= completion.usage.output_tokens <= 40
    assert completion.text.startswith("3 + 4 = 7.")


async def test_seeds(engine):
    def sampled(seed):
        noise = params(temperature=1.8, seed=seed, max_new_tokens=30, logit_bias={2: -100})
        return engine.generate("Repeat after me: x", generation=noise)

    one, two, other = await sampled(1), await sampled(1), await sampled(2)
    assert one.text == two.text != other.text


async def test_use_sampling_decides_what_a_temperature_means(engine):
    never = params(use_sampling=False, temperature=5.0)
    assert (await engine.generate(COUNT, generation=never)).text == KNOWN[COUNT]
    only = params(use_sampling=True, max_new_tokens=40, logit_bias={2: -100})
    texts = {(await engine.generate("Repeat after me: x", generation=only)).text for _ in range(3)}
    assert len(texts) > 1


async def test_several_answers_are_kept_apart(engine):
    noise = params(n=3, temperature=1.5, seed=1, max_new_tokens=20)
    completion = await engine.generate("Repeat after me: x", generation=noise)
    again = await engine.generate("Repeat after me: x", generation=noise)
    assert [choice.message.text for choice in completion.choices] == [choice.message.text for choice in again.choices]
    assert len({choice.message.text for choice in completion.choices}) > 1
    assert completion.usage.input_tokens == 19 or completion.usage.input_tokens > 10


async def test_logprobs_of_every_token(engine):
    completion = await engine.generate(COUNT, generation=params(logprobs=True, top_logprobs=3, max_new_tokens=9))
    entries = completion.choices[0].logprobs
    assert "".join(entry["token"] for entry in entries) == completion.text == "1 2 3 4 5"
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == 3
        assert math.isclose(entry["top_logprobs"][0]["logprob"], entry["logprob"], abs_tol=1e-4)


async def test_the_prompt_may_stand_before_the_answer(engine):
    completion = await engine.generate("What is 3 + 4?", generation=params(exclude_prompt_from_response=False))
    assert completion.text.endswith("3 + 4 = 7.") and "What is 3 + 4?" in completion.text
    assert "<|im_start|>" not in completion.text
    whole = params(exclude_prompt_from_response=False, skip_special_tokens=False)
    assert (await engine.generate("What is 3 + 4?", generation=whole)).text.startswith("<|im_start|>user\nWhat")


# -- guided ------------------------------------------------------------------------------------------------------------


class Person(BaseModel):
    name: str
    age: int


async def test_a_class_shapes_the_answer(engine):
    completion = await engine.generate("Give JSON for the person Alice aged 30.", response_model=Person)
    assert completion.parsed == Person(name="Alice", age=30)


async def test_a_schema_shapes_even_an_answer_that_wants_to_be_another(engine):
    schema = {
        "type": "object",
        "properties": {
            "ok": {"type": "boolean"},
            "some": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        },
        "required": ["ok", "some"],
        "additionalProperties": False,
    }
    guided = params(guided_decoding=GuidedDecodingParams(json=schema), max_new_tokens=200)
    answer = json.loads((await engine.generate(COUNT, generation=guided)).text)
    assert type(answer["ok"]) is bool and len(answer["some"]) <= 2


@pytest.mark.parametrize("pattern", [r"^[0-9]{3}-(a|b)!$", r"(?:yes|no)\.", r"\d\d\s\w{2,4}", r"\[é\]\"\\"])
async def test_a_regular_expression(engine, pattern):
    guided = params(guided_decoding=GuidedDecodingParams(regex=pattern), temperature=1.5, seed=1, max_new_tokens=60)
    completion = await engine.generate(COUNT, generation=guided)
    assert completion.finish_reason is FinishReason.STOP
    assert re.fullmatch(pattern, completion.text), completion.text


async def test_choices_and_grammars(engine):
    words = ['it\'s "fine"', "bad\n", "é"]
    guided = params(guided_decoding=GuidedDecodingParams(choice=words))
    assert (await engine.generate(COUNT, generation=guided)).text in words
    for grammar in ('root ::= "a" [b-d] "e"', 'start: "a" MIDDLE "e"\nMIDDLE: /[b-d]/'):
        guided = params(guided_decoding=GuidedDecodingParams(grammar=grammar))
        assert re.fullmatch("a[b-d]e", (await engine.generate(COUNT, generation=guided)).text)


async def test_a_broken_grammar_is_refused_and_harms_nobody(engine):
    for broken in ("root ::= ((", "root ::= missing", "start: missing"):
        with pytest.raises((ConfigError, BadRequestError)):
            await engine.generate(COUNT, generation=params(guided_decoding=GuidedDecodingParams(grammar=broken)))
    assert (await engine.generate(COUNT)).text == KNOWN[COUNT]


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def test_tools(engine):
    question = Conversation(messages=[Message(role=Role.USER, content="What is the weather in Paris?")])
    completion = await engine.generate(question, tools=[WEATHER])
    assert completion.finish_reason is FinishReason.TOOL_CALLS
    (call,) = completion.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = Message(role=Role.TOOL, content='{"weather": "sunny", "temp": 21}', tool_call_id=call.id)
    final = await engine.generate(completion.conversation.with_message(result), tools=[WEATHER])
    assert final.text == "It is sunny in Paris and 21 degrees."
    city = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
    other = {"type": "function", "function": {"name": "other", "parameters": city}}
    for tools in ([other], [WEATHER | {"function": other["function"] | {"name": "one"}}, other]):
        forced = await engine.generate(COUNT, tools=tools, generation=params(tool_choice="required"))
        (call,) = forced.message.tool_calls
        assert call.function.name in {"other", "one"}
        assert json.loads(call.function.arguments)["city"] in {"Oslo", "Rome"}


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_a_bare_prompt_is_completed_word_for_word(engine):
    text = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n3 + 4"
    assert (await engine.generate(Prompt(text=text))).text == " = 7."
    with pytest.raises(ConfigError, match="1023"):
        await engine.generate(Prompt(token_ids=(5, 5000)))


async def test_a_prompt_that_does_not_fit_says_so(engine):
    with pytest.raises(ContextLengthError, match="2048"):
        await engine.generate("hi there " * 2000)


async def test_a_long_prompt_is_read_in_pieces_and_fills_the_context(engine):
    filled = await engine.generate("hi there " * 300, generation=params(max_new_tokens=None, logit_bias={2: -100}))
    assert filled.finish_reason is FinishReason.LENGTH
    assert filled.usage.total_tokens == 2048


async def test_an_image_is_refused_not_dropped(engine):
    from asyncinfer import ContentItem, Type

    picture = ContentItem(type=Type.IMAGE_BINARY, binary=b"\x89PNG")
    with pytest.raises(ConfigError, match="text only"):
        await engine.generate(Conversation(messages=[Message(role=Role.USER, content=[picture])]))


async def test_what_means_nothing_here_is_named(engine, caplog):
    engine._warned.discard("reasoning_effort")
    await engine.generate("Hello", generation=params(reasoning_effort="low"))
    assert "does not support reasoning_effort" in caplog.text
    with pytest.raises(UnsupportedParameterError):
        await engine.generate("Hello", generation=params(reasoning_effort="low", strict_params=True))


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_leaving_frees_the_sequence_within_a_step(engine):
    paged = engine._life.worker._paged
    for how in ("break", "cancel"):
        with anyio.CancelScope() as scope:
            async with engine.stream(COUNT, generation=LONG) as stream:
                async for _ in stream:
                    if how == "break":
                        break
                    scope.cancel()
        with anyio.fail_after(5):
            while paged._line.running:
                await anyio.sleep(0.01)
        scheduler = paged._batching._scheduler
        assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
        with anyio.fail_after(5):  # the library forgets a row at the beginning of the next step
            while scheduler.active_requests:
                await anyio.sleep(0.01)
    with pytest.raises(StreamInterrupted) as caught:
        await stream.completion()
    assert caught.value.partial.usage.input_tokens == 20


async def test_one_bad_answer_harms_no_other(engine, monkeypatch):
    """A row whose sampling fails is told so; those beside it and after it are served."""
    from asyncinfer.engines.native import sampling

    good = sampling.Chooser.edit

    def edit(self, scores):
        if self.ask.logit_bias == {5: 1.0}:
            raise RuntimeError("broken on purpose")
        good(self, scores)

    monkeypatch.setattr(sampling.Chooser, "edit", edit)
    results = []
    async with anyio.create_task_group() as group:

        async def bad():
            with pytest.raises(EngineError, match="broken on purpose"):
                await engine.generate(COUNT, generation=params(logit_bias={5: 1.0}))

        async def fine():
            results.append((await engine.generate(COUNT, generation=params(logit_bias={6: 0.0}))).text)

        for job in (bad, fine, fine):
            group.start_soon(job)
    assert results == [KNOWN[COUNT]] * 2


async def test_a_failed_step_fails_its_streams_and_the_next_one_works(engine, monkeypatch):
    model = engine._life.worker._loaded.model
    forward = type(model).forward
    broken = threading.Event()
    broken.set()

    def fail(self, *args, **kwargs):
        if broken.is_set():
            import torch

            raise torch.OutOfMemoryError("no memory, on purpose")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", fail)
    with pytest.raises(EngineError, match="out of memory"):
        await engine.generate(COUNT)
    broken.clear()
    assert (await engine.generate(COUNT)).text == KNOWN[COUNT]


def native_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("asyncinfer-native")]


async def test_close_ends_what_runs_joins_the_threads_and_opens_again(make):
    before = len(native_threads())
    engine = make(n_parallel=2)
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
        await anyio.sleep(0.3)
        await engine.aclose()
    assert len(errors) == 5
    assert len(native_threads()) == before
    assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
    await engine.aclose()
    await engine.aclose()
    assert len(native_threads()) == before


async def test_a_dropped_engine_stops_its_threads(make):
    before = len(native_threads())
    engine = make()
    await engine.generate("What is 3 + 4?")
    assert len(native_threads()) > before
    del engine
    with anyio.fail_after(20):
        while len(native_threads()) > before:
            await anyio.sleep(0.01)


async def test_an_engine_that_was_cancelled_while_loading_can_be_used_later(make):
    engine = make()
    with anyio.move_on_after(0):
        await engine.ready()
    assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
    await engine.aclose()


def test_one_engine_in_several_loops_of_several_threads(engine):
    answers = []

    def run(backend):
        async def main():
            completions = await engine.generate_many([COUNT] * 3)
            answers.extend(completion.text for completion in completions)

        anyio.run(main, backend=backend)

    threads = [threading.Thread(target=run, args=(backend,)) for backend in ("asyncio", "trio")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [KNOWN[COUNT]] * 6
