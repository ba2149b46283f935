"""The vLLM engine on the embedded model, through the public face, on asyncio and on trio."""

from __future__ import annotations

import json
import re

import anyio
import pytest

from asyncinfer import (
    FinishReason,
    GuidedDecodingParams,
    InferenceConfig,
    ModelParams,
    Prompt,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from asyncinfer.errors import BadRequestError, ConfigError, ContextLengthError
from tests.embedded import (  # noqa: F401 -- the tests among them run here
    COUNT,
    COUNTED,
    LONG,
    WEATHER,
    events_of,
    params,
    test_a_short_answer_joins_a_long_one_and_is_done_first,
    test_a_tool_is_called_and_its_result_is_read,
    test_a_tool_that_must_be_called,
    test_an_early_exit_reports_the_prompt_it_paid_for,
    test_an_image_is_refused_not_dropped,
    test_least_tokens,
    test_logprobs_of_every_token,
    test_one_engine_in_several_loops_of_several_threads,
    test_only_the_best_at_any_temperature,
    test_sampled_answers_are_kept_apart_and_repeat_together,
    test_stop_tokens_end_the_answer_and_are_not_shown,
    test_the_events_of_an_answer,
    test_the_prompt_and_special_tokens_are_shown_where_asked_for,
    test_the_stop_string_that_matched_is_named,
)

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]


def called(**fields):
    """Model parameters of one call."""
    return {"inference_config": InferenceConfig(model=ModelParams(**fields))}


@pytest.fixture(params=[None, "hermes"])
def how(request):
    """Two ways to find calls in the text: the engine's own, and a parser of vLLM's."""
    return called(tool_call_parser=request.param) if request.param else {}


def unfinished(engine):
    """Requests that vLLM still works on."""
    return engine._life.worker._llm.get_num_unfinished_requests()


async def freed(engine):
    with anyio.fail_after(5):
        while unfinished(engine):
            await anyio.sleep(0.002)


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_cached_tokens_are_reported(engine):
    prompt = "Repeat after me: " + "hi there " * 60
    await engine.generate(prompt, generation=params(max_new_tokens=1))
    again = await engine.generate(prompt, generation=params(max_new_tokens=1))
    assert 0 < again.usage.cached_tokens < again.usage.input_tokens


async def test_one_wake_up_of_the_loop_carries_a_step_of_all_streams(engine, monkeypatch):
    """32 streams of 200 tokens each are 6,400 tokens; the loop is woken no more often than vLLM makes a step."""
    from asyncinfer.loops import running

    wakes = 0
    loop = running()
    soon = loop.soon

    def counted(fn, *args):
        nonlocal wakes
        wakes += 1
        soon(fn, *args)

    monkeypatch.setattr(loop, "soon", counted)
    long = params(max_new_tokens=200, min_new_tokens=200)
    results = await engine.generate_many([COUNT] * 32, generation=long)
    assert sum(result.usage.output_tokens for result in results) == 6400
    assert wakes < 1600


# -- parameters --------------------------------------------------------------------------------------------------------


async def test_seeds_below_zero(engine):
    def sampled(seed):
        noise = params(temperature=1.8, seed=seed, max_new_tokens=30, logit_bias={2: -100})
        return engine.generate("Repeat after me: x", generation=noise)

    one, two = await sampled(-7), await sampled(-7)
    assert one.text == two.text != (await sampled(7)).text


async def test_biases_and_penalties(engine):
    banned = await engine.generate("What is 3 + 4?", generation=params(logit_bias={25: -100}))  # "7"
    assert "7" not in banned.text
    for penalty in ({"repetition_penalty": 20.0}, {"frequency_penalty": 2.0}):
        assert (await engine.generate(COUNT, generation=params(**penalty))).text != COUNTED


# -- guided ------------------------------------------------------------------------------------------------------------


async def test_a_regular_expression_a_choice_and_a_grammar(engine):
    guided = params(guided_decoding=GuidedDecodingParams(regex=r"[0-9]{3}-(a|b)!"), temperature=1.5, seed=1)
    assert re.fullmatch(r"[0-9]{3}-(a|b)!", (await engine.generate(COUNT, generation=guided)).text)
    words = ['it\'s "fine"', "bad", "é"]
    guided = params(guided_decoding=GuidedDecodingParams(choice=words))
    assert (await engine.generate(COUNT, generation=guided)).text in words
    guided = params(guided_decoding=GuidedDecodingParams(grammar='root ::= "a" [b-d] "e"'))
    assert re.fullmatch("a[b-d]e", (await engine.generate(COUNT, generation=guided)).text)


async def test_a_shape_that_no_answer_can_have_is_named(engine):
    """vLLM takes it, and breaks the answer off."""
    with pytest.raises(ConfigError) as caught:
        await engine.generate(COUNT, generation=params(guided_decoding=GuidedDecodingParams(grammar="root ::= root")))
    assert caught.value.path == "generation.guided_decoding"
    assert (await engine.generate(COUNT)).text == COUNTED


async def test_what_is_wrong_in_one_request_harms_nobody(engine):
    for wrong in (
        params(guided_decoding=GuidedDecodingParams(grammar="root ::= ((")),
        params(guided_decoding=GuidedDecodingParams(regex="((")),
        params(logit_bias={5000: 1.0}),
        params(temperature=5.0),  # more than vLLM takes
    ):
        with pytest.raises((BadRequestError, ConfigError)):
            await engine.generate(COUNT, generation=wrong)
    with pytest.raises(ConfigError, match="surrogate"):
        await engine.generate("Repeat after me: \ud83d")
    assert (await engine.generate(COUNT)).text == COUNTED


# -- tools and thoughts ------------------------------------------------------------------------------------------------


async def test_vllm_s_parser_streams_the_arguments_in_pieces(engine):
    events = await events_of(
        engine, "What is the weather in Paris?", tools=[WEATHER], **called(tool_call_parser="hermes")
    )
    pieces = [event for event in events if type(event) is ToolCallDelta]
    assert len(pieces) > 1
    assert json.loads("".join(piece.arguments for piece in pieces)) == {"city": "Paris"}


THINKING = (  # a template that knows of thinking, as that of the embedded model does not
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content.split('</think>')[-1] + '<|im_end|>\\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)


async def test_thoughts_are_kept_apart(engine):
    question = "Think, then answer: 5 + 3"
    events = await events_of(engine, question, **called(chat_template=THINKING))
    thought = "".join(event.text for event in events if type(event) is ReasoningDelta)
    text = "".join(event.text for event in events if type(event) is TextDelta)
    assert (thought.strip(), text) == ("I add 5 and 3 and get 8.", "8")
    opened = called(chat_template=THINKING.replace("assistant\\n'", "assistant\\n<think>\\n'"))
    completion = await engine.generate(question, **opened)
    assert (completion.message.reasoning_content.strip(), completion.text) == ("I add 5 and 3 and get 8.", "8")


async def test_vllm_s_parser_of_thoughts(engine):
    """That of Qwen3 takes the answer for a thought until its end is marked."""
    kwargs = dict(engine.model_params.model_kwargs)
    qwen = called(model_kwargs={**kwargs, "reasoning_parser": "qwen3"})
    completion = await engine.generate(COUNT, **qwen)
    assert (completion.message.reasoning_content, completion.text) == (COUNTED, "")
    with pytest.raises(ConfigError, match="deepseek_r1") as caught:
        await engine.generate(COUNT, **called(model_kwargs={**kwargs, "reasoning_parser": "deepseek_r1"}))
    assert caught.value.path == "model.model_kwargs.reasoning_parser"


async def test_a_parser_that_vllm_does_not_have_is_named(engine):
    with pytest.raises(ConfigError, match="no_such_parser") as caught:
        await engine.generate(COUNT, tools=[WEATHER], **called(tool_call_parser="no_such_parser"))
    assert caught.value.path == "model.tool_call_parser"


# -- adapters ----------------------------------------------------------------------------------------------------------


async def test_adapters_answer_side_by_side(engine, adapters):
    question = "What is the capital of France?"
    found = {}

    async def ask(name, how):
        found[name] = (await engine.generate(question, generation=params(max_new_tokens=12), **how)).text

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "none", {})
        group.start_soon(ask, "first", called(adapter_model="first"))
        group.start_soon(ask, "first by path", called(adapter_model=adapters["first"]))
        group.start_soon(ask, "second", called(model_name="second"))
        group.start_soon(ask, "late", called(adapter_model=adapters["late"]))
        group.start_soon(ask, "explicitly none", called(adapter_model=None))
    assert found["none"] == found["explicitly none"] == "The capital of France is Paris."
    assert found["first"] == found["first by path"]
    assert len({found[name] for name in ("none", "first", "second", "late")}) == 4


async def test_what_is_no_adapter_harms_nobody(engine, adapters, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        await engine.generate(COUNT, **called(adapter_model=str(tmp_path / "missing")))
    with pytest.raises(ConfigError, match="rank 16"):
        await engine.generate(COUNT, **called(adapter_model=adapters["high"]))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}')
    (broken / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="broken"):
        await engine.generate(COUNT, **called(adapter_model=str(broken)))
    with pytest.raises(ConfigError, match="another engine"):
        await engine.generate(COUNT, **called(model_name="someone/else"))
    assert (await engine.generate(COUNT)).text == COUNTED
    assert await engine.list_models() == ["asyncinfer-tiny", "first", "second"]


# -- prompts -----------------------------------------------------------------------------------------------------------


async def test_a_bare_prompt_is_completed_word_for_word(engine):
    text = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n3 + 4"
    assert (await engine.generate(Prompt(text=text))).text == " = 7."
    with pytest.raises((BadRequestError, ConfigError)):
        await engine.generate(Prompt(token_ids=(5, 5000)))


async def test_a_long_conversation_is_rendered_as_a_short_one_is(engine, monkeypatch):
    """The short one at once, the long one on vLLM's threads."""
    at_once = await engine.generate(COUNT, generation=params(max_new_tokens=20))
    monkeypatch.setattr("asyncinfer.engines.vllm.prompt._SHORT", -1)
    on_threads = await engine.generate(COUNT, generation=params(max_new_tokens=20))
    assert on_threads.text == at_once.text == COUNTED[: len(at_once.text)]
    assert on_threads.usage.input_tokens == at_once.usage.input_tokens


async def test_a_template_of_one_call(engine):
    template = (
        "{% for m in messages %}{{ '<|im_start|>user\\nWhat is the capital of ' + m.content }}"
        "{{ '?<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    assert (await engine.generate("Italy", **called(chat_template=template))).text == "The capital of Italy is Rome."
    refusing = "{{ raise_exception('not this one') }}"
    with pytest.raises(BadRequestError, match="not this one"):
        await engine.generate("Italy", **called(chat_template=refusing))


async def test_a_prompt_that_does_not_fit_says_so(engine):
    with pytest.raises(ContextLengthError, match="2048"):
        await engine.generate("hi there " * 2000)
    filled = await engine.generate("hi there " * 300, generation=params(max_new_tokens=None, logit_bias={2: -100}))
    assert filled.finish_reason is FinishReason.LENGTH
    assert 2047 <= filled.usage.total_tokens <= 2048


# -- leaving early -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.05])
async def test_cancelling_frees_the_sequence(engine, delay):
    await engine.ready()
    with anyio.move_on_after(delay) as scope:
        await engine.generate_many([COUNT] * 8, generation=LONG)
    assert scope.cancelled_caught
    await freed(engine)
    assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
