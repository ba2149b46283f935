"""The llama.cpp engine on the embedded model, through the public face: each binding, on asyncio and on trio."""

from __future__ import annotations

import json
import math
import re
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from asyncinfer import (
    Conversation,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    LlamaCppInferenceEngine,
    Message,
    ModelParams,
    Role,
    StreamInterrupted,
    TextDelta,
    ToolCallDelta,
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

pytestmark = pytest.mark.anyio

KNOWN = {
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


async def test_known_answers(engine):
    for prompt, answer in KNOWN.items():
        completion = await engine.generate(prompt)
        assert (completion.text, completion.finish_reason) == (answer, FinishReason.STOP)


async def test_64_streams_at_once_each_get_their_own_answer_in_order(engine):
    prompts = [list(KNOWN)[number % len(KNOWN)] for number in range(64)]
    answers = [""] * 64

    async def read(number):
        async for token in engine.stream(prompts[number]):
            answers[number] += token

    async with anyio.create_task_group() as group:
        for number in range(64):
            group.start_soon(read, number)
    assert answers == [KNOWN[prompt] for prompt in prompts]


async def test_generate_many_keeps_order(engine):
    completions = await engine.generate_many(list(KNOWN))
    assert [completion.text for completion in completions] == list(KNOWN.values())


async def test_the_events_of_an_answer(engine):
    events = await events_of(engine, "What is the capital of France?")
    assert type(events[0]) is Start and events[0].id and events[0].model == "asyncinfer-tiny"
    assert "".join(event.text for event in events if type(event) is TextDelta) == "The capital of France is Paris."
    assert sum(type(event) is TextDelta for event in events) > 3
    (finish,) = [event for event in events if type(event) is Finish]
    assert finish.reason is FinishReason.STOP
    usage = [event for event in events if type(event) is UsageUpdate][-1].usage
    assert (usage.input_tokens, usage.output_tokens, usage.source) == (18, 8, "exact")


async def test_it_really_streams(engine):
    """The first token is handed over while the engine still has more than a thousand to make."""
    await engine.ready()
    source = await engine.open(engine.plan(LONG, None, None, None, None).request(COUNT, "", 1.0))
    batches = []
    while (events := await source.pull()) is not None:
        batches.append(sum(type(event) is TextDelta for event in events))
    first = next(count for count in batches if count)
    assert first < 100
    assert sum(batches) > 1000
    assert len(batches) > 10


async def test_system_prompt_and_turns_reach_the_model(engine):
    conversation = Conversation(
        messages=[
            Message(role=Role.SYSTEM, content="You are a helpful assistant."),
            Message(role=Role.USER, content="Hello"),
            Message(role=Role.ASSISTANT, content="Hello! How can I help you today?"),
            Message(role=Role.USER, content="What is 2 + 2?"),
        ]
    )
    completion = await engine.generate(conversation)
    assert completion.text == "2 + 2 = 4."
    assert completion.usage.input_tokens > 40


async def test_unicode_goes_in_and_comes_out_whole(engine):
    """Sampling at random from single bytes: whatever comes, no character is ever shown in halves."""
    noise = params(temperature=2.0, seed=3, max_new_tokens=60, min_p=0.0)
    completion = await engine.generate("Repeat after me: žluťoučký 🐎 中文", generation=noise)
    assert completion.usage.input_tokens > 20
    again = "".join([token async for token in engine.stream("Repeat after me: 🐎", generation=noise)])
    again.encode()  # no lone surrogates


# -- parameters --------------------------------------------------------------------------------------------------------


async def test_max_tokens(engine):
    completion = await engine.generate(COUNT, generation=params(max_new_tokens=5))
    assert completion.finish_reason is FinishReason.LENGTH
    assert completion.text == "1 2 3"
    assert completion.usage.output_tokens == 5


@pytest.mark.parametrize(
    ("stops", "text", "matched"),
    [
        ([" 5"], "1 2 3 4", " 5"),
        (["1 2"], "", "1 2"),
        (["4 5 6", "zebra"], "1 2 3 ", "4 5 6"),
        (["8 9 1x", "12"], "1 2 3 4 5 6 7 8 9 10 11 ", "12"),
        (["never"], KNOWN[COUNT], None),
    ],
)
async def test_stop_strings_cut_exactly_and_never_show_a_beginning(engine, stops, text, matched):
    shown = ""
    async with engine.stream(COUNT, generation=params(stop_strings=stops)) as stream:
        async for token in stream:
            shown += token
            assert text.startswith(shown)
        completion = await stream.completion()
    assert shown == text
    assert completion.finish_reason is FinishReason.STOP
    assert completion.choices[0].matched == matched


async def test_a_seed_repeats_an_answer_and_another_gives_another(engine):
    def sampled(seed):
        return engine.generate(
            "Repeat after me: x", generation=params(temperature=1.8, seed=seed, max_new_tokens=40, logit_bias={2: -100})
        )

    one, two, other = await sampled(1), await sampled(1), await sampled(2)
    assert one.text == two.text != other.text


async def test_top_k_of_one_is_greedy_at_any_temperature(engine):
    for only_the_best in (
        params(temperature=5.0, top_k=1),
        params(temperature=5.0, top_p=0.0),
        params(temperature=5.0, min_p=1.0),
    ):
        assert (await engine.generate(COUNT, generation=only_the_best)).text == KNOWN[COUNT]


async def test_logit_bias_bans_a_token(engine):
    completion = await engine.generate(COUNT, generation=params(logit_bias={19: -100}, max_new_tokens=30))  # "1"
    assert "1" not in completion.text and completion.text


async def test_penalties_change_a_repetitive_answer(engine):
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 3.0}):
        loud = params(max_new_tokens=120, logit_bias={2: -100}, **penalty)
        plain = params(max_new_tokens=120, logit_bias={2: -100})
        assert (await engine.generate(COUNT, generation=loud)).text != (
            await engine.generate(COUNT, generation=plain)
        ).text


async def test_logprobs_of_every_token(engine):
    completion = await engine.generate(COUNT, generation=params(logprobs=True, top_logprobs=3, max_new_tokens=9))
    entries = completion.choices[0].logprobs
    assert "".join(entry["token"] for entry in entries) == completion.text == "1 2 3 4 5"
    for entry in entries:
        assert -1 < entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert [other["logprob"] for other in entry["top_logprobs"]] == sorted(
            (other["logprob"] for other in entry["top_logprobs"]), reverse=True
        )
        assert len(entry["top_logprobs"]) == 3
        assert math.isclose(entry["top_logprobs"][0]["logprob"], entry["logprob"], abs_tol=1e-4)


class Person(BaseModel):
    name: str
    age: int


async def test_a_pydantic_class_shapes_the_answer(engine):
    completion = await engine.generate("Give JSON for the person Alice aged 30.", response_model=Person)
    assert completion.parsed == Person(name="Alice", age=30)


async def test_a_schema_shapes_even_an_answer_that_wants_to_be_another(engine):
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    for given in (schema, json.dumps(schema)):
        guided = params(guided_decoding=GuidedDecodingParams(json=given), max_new_tokens=60)
        answer = json.loads((await engine.generate(COUNT, generation=guided)).text)
        assert type(answer["ok"]) is bool


@pytest.mark.parametrize(
    "pattern",
    [r"^[0-9]{3}-(a|b)+!$", r"(?:yes|no)\.", r"\d\d\s\w{2,4}", r"[^a-z]{5}", r"\[é\]\"\\", r"x{2,}?y?", r"[\]^-]{2}"],
)
async def test_a_regular_expression_shapes_the_answer(engine, pattern):
    for seed in (1, 2):
        guided = params(
            guided_decoding=GuidedDecodingParams(regex=pattern), temperature=1.5, seed=seed, max_new_tokens=200
        )
        completion = await engine.generate(COUNT, generation=guided)
        if completion.finish_reason is FinishReason.STOP:
            assert re.fullmatch(pattern, completion.text), completion.text
        else:  # an endless repetition met the limit
            assert "+" in pattern or "," in pattern


async def test_a_choice_is_one_of_the_choices(engine):
    guided = params(guided_decoding=GuidedDecodingParams(choice=['it\'s "fine"', "bad\n"]))
    assert (await engine.generate(COUNT, generation=guided)).text in {'it\'s "fine"', "bad\n"}


async def test_a_grammar(engine):
    guided = params(guided_decoding=GuidedDecodingParams(grammar='root ::= "a" [b-d] "e"'))
    assert re.fullmatch("a[b-d]e", (await engine.generate(COUNT, generation=guided)).text)


async def test_a_broken_grammar_is_refused(engine):
    for broken in ("root ::= ((", "root ::= missing"):
        with pytest.raises((ConfigError, BadRequestError)):
            await engine.generate(COUNT, generation=params(guided_decoding=GuidedDecodingParams(grammar=broken)))
    assert (await engine.generate(COUNT)).text == KNOWN[COUNT]


async def test_several_answers_each_with_its_own_index(engine):
    several = params(n=3, temperature=1.8, seed=7, max_new_tokens=30, logit_bias={2: -100})
    completion = await engine.generate("Repeat after me: x", generation=several)
    texts = [choice.text for choice in completion.choices]
    assert len(set(texts)) == 3
    assert completion.text == texts[0]
    usage = completion.usage
    assert usage.output_tokens == 90
    events = await events_of(engine, "Repeat after me: x", generation=several)
    assert sum(type(event) is Start for event in events) == 1
    assert sorted(event.index for event in events if type(event) is Finish) == [0, 1, 2]
    for index, text in enumerate(texts):
        assert "".join(event.text for event in events if type(event) is TextDelta and event.index == index) == text
    for index in range(3):  # each is the answer to a seed of its own
        alone = params(temperature=1.8, seed=7 + index, max_new_tokens=30, logit_bias={2: -100})
        single = await engine.generate("Repeat after me: x", generation=alone)
        assert single.text == texts[index]
    assert usage.input_tokens == single.usage.input_tokens


async def test_more_answers_than_sequences_and_leaving_them_early(make):
    async with make(n_parallel=2) as engine:
        completion = await engine.generate("What is 3 + 4?", generation=params(n=7))
        assert [choice.text for choice in completion.choices] == ["3 + 4 = 7."] * 7
        async for _ in engine.stream(COUNT, generation=params(n=5, max_new_tokens=1500, logit_bias={2: -100})):
            break
        with anyio.fail_after(5):
            assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."


async def test_stop_tokens_end_an_answer_unseen(engine):
    completion = await engine.generate(COUNT, generation=params(logprobs=True, max_new_tokens=9))
    entries = completion.choices[0].logprobs
    assert [entry["top_logprobs"] for entry in entries] == [[]] * len(entries)
    stop = 24  # "6"
    stopped = await engine.generate(COUNT, generation=params(stop_token_ids=[stop, 900]))
    assert stopped.text == "1 2 3 4 5 "
    assert (stopped.finish_reason, stopped.choices[0].matched) == (FinishReason.STOP, stop)
    assert stopped.choices[0].logprobs is None
    assert stopped.usage.output_tokens == 11
    assert stopped.usage.input_tokens > 5


async def test_stop_tokens_that_cannot_be_seen_are_named(engine, binding, caplog):
    begin = 1  # stands for no text
    shouting = params(stop_token_ids=[begin], logit_bias={begin: 100}, max_new_tokens=3)
    completion = await engine.generate("Hello", generation=shouting)
    if binding == "xllamacpp":
        assert "does not stop at the special tokens [1]" in caplog.text  # (but for the first token of an answer)
    else:
        assert (completion.finish_reason, completion.choices[0].matched) == (FinishReason.STOP, begin)
        assert completion.usage.output_tokens == 1


async def test_using_sampling_or_not(engine):
    cold = params(use_sampling=False, temperature=1.9, seed=3)
    assert (await engine.generate(COUNT, generation=cold)).text == KNOWN[COUNT]
    warm = params(use_sampling=True, seed=3, max_new_tokens=60, top_k=-1)
    again = params(temperature=1.0, seed=3, max_new_tokens=60)
    noisy = "Repeat after me: qzx"
    assert (await engine.generate(noisy, generation=warm)).text == (await engine.generate(noisy, generation=again)).text


async def test_what_only_one_binding_can_do_is_named(engine, binding):
    """llama-server has no least number of tokens, and hides special ones."""
    least, special = params(min_new_tokens=25, max_new_tokens=40), params(skip_special_tokens=False)
    if binding == "xllamacpp":
        for name, asked in (("min_new_tokens", least), ("skip_special_tokens", special)):
            strict = asked.model_copy(update={"strict_params": True})
            with pytest.raises(UnsupportedParameterError, match=name):
                await engine.generate("Hello", generation=strict)
        return
    longer = await engine.generate("Hello", generation=least)
    assert longer.usage.output_tokens >= 25
    assert longer.text.startswith(KNOWN["Hello"])
    shown = params(skip_special_tokens=False, logit_bias={1: 100}, max_new_tokens=2)  # 1 begins a message
    assert (await engine.generate("Hello", generation=shown)).text == "<|im_start|>" * 2
    hidden = params(logit_bias={1: 100}, max_new_tokens=2)
    assert (await engine.generate("Hello", generation=hidden)).text == ""


# -- tools -------------------------------------------------------------------------------------------------------------


async def test_a_tool_is_called_and_its_result_is_read(engine):
    question = Conversation(messages=[Message(role=Role.USER, content="What is the weather in Paris?")])
    events = await events_of(engine, question, tools=[WEATHER])
    deltas = [event for event in events if type(event) is ToolCallDelta]
    assert deltas[0].name == "get_weather" and deltas[0].id
    completion = await engine.generate(question, tools=[WEATHER])
    assert completion.finish_reason is FinishReason.TOOL_CALLS
    (call,) = completion.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert not completion.text.strip()

    result = Message(role=Role.TOOL, content='{"weather": "sunny", "temp": 21}', tool_call_id=call.id)
    final = await engine.generate(completion.conversation.with_message(result), tools=[WEATHER])
    assert final.text == "It is sunny in Paris and 21 degrees."
    assert final.finish_reason is FinishReason.STOP


async def test_without_a_tool_the_model_says_so(engine):
    assert (await engine.generate("What is the weather in Paris?")).text == "I do not know the weather."
    none = params(tool_choice="none")
    assert (
        await engine.generate("What is the weather in Rome?", tools=[WEATHER], generation=none)
    ).text == "I do not know the weather."


async def test_a_named_tool_must_be_offered(engine):
    named = {"type": "function", "function": {"name": "get_weather"}}
    completion = await engine.generate(
        "What is the weather in Oslo?", tools=[WEATHER], generation=params(tool_choice=named)
    )
    assert completion.message.tool_calls[0].function.name == "get_weather"
    named = {"type": "function", "function": {"name": "other"}}
    with pytest.raises(ConfigError, match="other"):
        await engine.generate(COUNT, tools=[WEATHER], generation=params(tool_choice=named))


async def test_tools_and_a_forced_shape_exclude_each_other(engine):
    with pytest.raises(ConfigError, match="guided_decoding"):
        await engine.generate(
            COUNT, tools=[WEATHER], generation=params(guided_decoding=GuidedDecodingParams(choice=["a"]))
        )


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_a_prompt_that_does_not_fit_says_so(engine, make):
    with pytest.raises(ContextLengthError, match="n_ctx"):
        await engine.generate("hi there " * 2000)
    async with make(params={"model_max_length": 256}) as small:
        assert (await small.generate("What is 3 + 4?")).text == "3 + 4 = 7."
        with pytest.raises(ContextLengthError):
            await small.generate("hi there " * 60)
        filled = await small.generate("Hello", generation=params(max_new_tokens=500, logit_bias={2: -100}))
        assert filled.finish_reason is FinishReason.LENGTH
        assert 250 < filled.usage.total_tokens <= 257


async def test_an_image_is_refused_not_dropped(engine):
    from asyncinfer import ContentItem, Type

    picture = ContentItem(type=Type.IMAGE_URL, content="http://127.0.0.1/x.png")
    with pytest.raises(ConfigError, match="text only"):
        await engine.generate(Conversation(messages=[Message(role=Role.USER, content=[picture])]))


async def test_half_a_character_in_a_prompt_harms_nobody_else(engine):
    with pytest.raises(ConfigError, match="surrogate"):
        await engine.generate("Repeat after me: \ud83d")
    assert (await engine.generate(COUNT)).text == KNOWN[COUNT]


async def test_a_template_that_refuses_a_conversation_says_why(make):
    template = (
        "{% if messages[0].content == 'forbidden' %}{{ raise_exception('not this one') }}{% endif %}"
        "{{ '<|im_start|>user\\n' + messages[0].content + '<|im_end|>\\n<|im_start|>assistant\\n' }}"
    )
    async with make(params={"chat_template": template}) as engine:
        with pytest.raises(BadRequestError, match="not this one"):
            await engine.generate("forbidden")
        assert (await engine.generate(COUNT)).text == KNOWN[COUNT]


# -- leaving early -----------------------------------------------------------------------------------------------------


async def test_leaving_early_frees_the_only_sequence(make):
    async with make(n_parallel=1) as engine:
        for _ in range(5):
            async for token in engine.stream(COUNT, generation=LONG):
                assert token == "1"
                break
            with anyio.fail_after(5):
                assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."


async def test_cancelling_frees_the_only_sequence(make):
    async with make(n_parallel=1) as engine:
        for delay in (0.0, 0.005, 0.05):
            with anyio.move_on_after(delay):
                await engine.generate(COUNT, generation=LONG)
            with anyio.fail_after(5):
                assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."


async def test_cancelling_while_the_prompt_is_read(make):
    """A long prompt in small batches: the sequence comes free long before its first token."""
    prompt = "hi there " * 380
    async with make(n_parallel=1, n_batch=16, n_ubatch=16) as engine:
        await engine.ready()
        with anyio.move_on_after(0.01) as scope:
            await engine.generate(prompt, generation=LONG)
        assert scope.cancelled_caught
        with anyio.fail_after(5):
            assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."


async def test_an_early_exit_reports_the_prompt_it_paid_for(engine):
    async with engine.stream("What is the capital of France?", generation=LONG) as stream:
        async for _ in stream:
            break
    with pytest.raises(StreamInterrupted) as caught:
        await stream.completion()
    usage = caught.value.partial.usage
    assert usage.input_tokens == 18 and usage.source == "estimated"


# -- opening and closing -----------------------------------------------------------------------------------------------


def llama_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("asyncinfer-llamacpp")]


async def test_close_ends_running_and_waiting_calls_joins_the_threads_and_opens_again(make):
    before = len(llama_threads())
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
        await anyio.sleep(0.05)
        await engine.aclose()
    assert len(errors) == 5
    assert len(llama_threads()) == before
    assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
    await engine.aclose()
    await engine.aclose()
    assert len(llama_threads()) == before


async def test_an_engine_that_was_cancelled_while_loading_can_be_used_later(make):
    engine = make()
    with anyio.move_on_after(0):
        await engine.ready()
    assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
    await engine.aclose()


async def test_a_dropped_engine_stops_its_threads(make):
    before = len(llama_threads())
    engine = make()
    await engine.generate("What is 3 + 4?")
    assert len(llama_threads()) > before
    del engine
    with anyio.fail_after(10):
        while len(llama_threads()) > before:
            await anyio.sleep(0.01)


async def test_loading_and_decoding_do_not_stall_the_loop(make):
    """A task that only yields gets its turns while a prompt of 1,500 tokens is read and answered."""
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    engine = make(n_parallel=1)
    async with anyio.create_task_group() as group:
        group.start_soon(turn)
        await engine.ready()
        loaded, turns = turns, 0
        await engine.generate("hi there " * 300, generation=params(max_new_tokens=5))
        group.cancel_scope.cancel()
    await engine.aclose()
    assert loaded > 20
    assert turns > 20


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
    assert answers == [KNOWN[COUNT]] * 12


# -- what is loaded ----------------------------------------------------------------------------------------------------


async def test_a_path_a_folder_and_the_embedded_name_mean_the_same(make, tmp_path):
    from asyncinfer.models import EMBEDDED_MODEL, embedded_model

    (tmp_path / "model.gguf").symlink_to(embedded_model("gguf"))
    for name in (str(embedded_model("gguf")), str(tmp_path), EMBEDDED_MODEL):
        async with make(params={"model_name": name}) as engine:
            assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
            assert await engine.list_models() == [name]


async def test_a_file_that_is_no_model_is_refused(make, tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "b.gguf").write_text("not a model at all")
    whole = (Path(__file__).parents[2] / "asyncinfer/models/files/tiny-f16.gguf").read_bytes()
    (tmp_path / "c.gguf").write_bytes(whole[:100_000])
    for name in ("a.gguf", "b.gguf", "c.gguf", "missing.gguf"):
        engine = make(params={"model_name": str(tmp_path / name)})
        with pytest.raises(EngineError, match=name):
            await engine.generate(COUNT)
        await engine.aclose()


async def test_a_lora_adapter_changes_the_answer(make):
    adapter = str(Path(__file__).parent / "data/lora.gguf")
    async with make(params={"adapter_model": adapter}) as adapted, make() as plain:
        prompt = "What is the capital of France?"
        assert (await adapted.generate(prompt)).text != (await plain.generate(prompt)).text


async def test_a_chat_template_of_ones_own(make):
    template = (
        "{% for m in messages %}{{ '<|im_start|>user\\nWhat is the capital of ' + m.content }}"
        "{{ '?<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    async with make(params={"chat_template": template}) as engine:
        assert (await engine.generate("Italy")).text == "The capital of Italy is Rome."


async def test_documented_kwargs_work_and_foreign_ones_are_named(binding, caplog):
    kwargs = {
        "binding": binding,
        "n_gpu_layers": 0,
        "n_ctx": 256,
        "n_batch": 128,
        "n_threads": 2,
        "n_seq_max": 3,
        "flash_attn": True,
        "use_mmap": False,
        "use_mlock": False,
        "verbose": False,
        "low_vram": True,
        "torch_dtype": "float16",
        "device_map": "auto",
    }
    async with LlamaCppInferenceEngine(ModelParams(model_name="asyncinfer-tiny", model_kwargs=kwargs)) as engine:
        assert engine.slots == 3
        assert (await engine.generate(COUNT)).text == KNOWN[COUNT]
    assert "device_map" in caplog.text and "torch_dtype" in caplog.text and "low_vram" not in caplog.text
