"""The llama.cpp engine on the embedded model, through the public face: each binding, on asyncio and on trio."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from asyncinfer import (
    Conversation,
    FinishReason,
    GuidedDecodingParams,
    LlamaCppInferenceEngine,
    Message,
    ModelParams,
    Role,
    TextDelta,
)
from asyncinfer.errors import (
    BadRequestError,
    ConfigError,
    ContextLengthError,
    EngineError,
    UnsupportedParameterError,
)
from asyncinfer.events import Finish, Start
from tests.embedded import (  # noqa: F401 -- the tests among them run here
    COUNT,
    COUNTED,
    LONG,
    SUM,
    WEATHER,
    events_of,
    params,
    test_a_dropped_engine_stops_its_threads,
    test_a_schema_as_values_or_as_text_shapes_an_answer_that_wants_to_be_another,
    test_a_tool_is_called_and_its_result_is_read,
    test_a_tool_that_must_be_called,
    test_an_early_exit_reports_the_prompt_it_paid_for,
    test_an_engine_that_was_cancelled_while_loading_can_be_used_later,
    test_an_image_is_refused_not_dropped,
    test_close_ends_running_and_waiting_calls_joins_the_threads_and_opens_again,
    test_logprobs_of_every_token,
    test_one_engine_in_several_loops_of_several_threads,
    test_only_the_best_at_any_temperature,
    test_the_events_of_an_answer,
    test_the_stop_string_that_matched_is_named,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def how():
    """One way to find calls in the text: the engine's own."""
    return {}


# -- answers -----------------------------------------------------------------------------------------------------------


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
    assert (await engine.generate(COUNT)).text == COUNTED


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
    assert (await engine.generate(COUNT, generation=cold)).text == COUNTED
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
    assert longer.text.startswith("Hello! How can I help you today?")
    strange = least.model_copy(update={"stop_token_ids": [10**6, -3]})
    assert (await engine.generate("Hello", generation=strange)).text == longer.text
    shown = params(skip_special_tokens=False, logit_bias={1: 100}, max_new_tokens=2)  # 1 begins a message
    assert (await engine.generate("Hello", generation=shown)).text == "<|im_start|>" * 2
    hidden = params(logit_bias={1: 100}, max_new_tokens=2)
    assert (await engine.generate("Hello", generation=hidden)).text == ""


# -- tools -------------------------------------------------------------------------------------------------------------


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


async def test_half_a_character_in_a_prompt_harms_nobody_else(engine):
    with pytest.raises(ConfigError, match="surrogate"):
        await engine.generate("Repeat after me: \ud83d")
    assert (await engine.generate(COUNT)).text == COUNTED


async def test_a_template_that_refuses_a_conversation_says_why(make):
    template = (
        "{% if messages[0].content == 'forbidden' %}{{ raise_exception('not this one') }}{% endif %}"
        "{{ '<|im_start|>user\\n' + messages[0].content + '<|im_end|>\\n<|im_start|>assistant\\n' }}"
    )
    async with make(params={"chat_template": template}) as engine:
        with pytest.raises(BadRequestError, match="not this one"):
            await engine.generate("forbidden")
        assert (await engine.generate(COUNT)).text == COUNTED


async def test_a_forced_shape_is_no_thought(make):
    """The template opens a thought, and a shape leaves no room to close it."""
    template = (
        "{{ '<|im_start|>user\\n' + messages[0].content + '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n' }}"
        "{# which ends with </think> #}"
    )
    async with make(params={"chat_template": template}) as engine:
        yes = params(guided_decoding=GuidedDecodingParams(choice=["yes", "no"]))
        completion = await engine.generate("Is it?", generation=yes)
        called = await engine.generate(SUM, tools=[WEATHER], generation=params(tool_choice="required"))
    assert completion.text in ("yes", "no")
    assert not completion.message.reasoning_content
    assert called.message.tool_calls[0].function.name == "get_weather"
    assert not called.message.reasoning_content


# -- leaving early -----------------------------------------------------------------------------------------------------


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


# -- opening and closing -----------------------------------------------------------------------------------------------


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
        assert (await engine.generate(COUNT)).text == COUNTED
    assert "torch_dtype" in caplog.text and "device_map" not in caplog.text and "low_vram" not in caplog.text
