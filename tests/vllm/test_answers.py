"""The vLLM engine on the embedded model, through the public face, on asyncio and on trio."""

from __future__ import annotations

import json
import math
import re
import threading
import time

import anyio
import pytest
from pydantic import BaseModel

from asyncinfer import (
    ContentItem,
    Conversation,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    InferenceConfig,
    Message,
    ModelParams,
    Prompt,
    ReasoningDelta,
    Role,
    StreamInterrupted,
    TextDelta,
    ToolCallDelta,
    Type,
)
from asyncinfer.errors import BadRequestError, ConfigError, ContextLengthError
from asyncinfer.events import Finish, Start, UsageUpdate

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]

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
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def params(**fields):
    return GenerationParams(**fields)


def called(**fields):
    """Model parameters of one call."""
    return {"inference_config": InferenceConfig(model=ModelParams(**fields))}


async def events_of(engine, prompt, **kwargs):
    async with engine.stream(prompt, **kwargs) as stream:
        return [event async for event in stream.events()]


def unfinished(engine):
    """Requests that vLLM still works on."""
    return engine._life.worker._llm.get_num_unfinished_requests()


async def freed(engine):
    with anyio.fail_after(5):
        while unfinished(engine):
            await anyio.sleep(0.002)


# -- answers -----------------------------------------------------------------------------------------------------------


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


async def test_the_events_of_an_answer(engine):
    events = await events_of(engine, "What is the capital of France?")
    assert type(events[0]) is Start and events[0].id and events[0].model == "asyncinfer-tiny"
    assert "".join(event.text for event in events if type(event) is TextDelta) == "The capital of France is Paris."
    assert sum(type(event) is TextDelta for event in events) > 3
    (finish,) = [event for event in events if type(event) is Finish]
    assert finish.reason is FinishReason.STOP
    usage = [event for event in events if type(event) is UsageUpdate][-1].usage
    assert (usage.input_tokens, usage.output_tokens, usage.source) == (18, 8, "exact")


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


async def test_the_loop_is_not_held_up_while_it_decodes(engine, capsys):
    """The p99 stall of a loop that only ticks, while 16 streams decode."""
    stalls = []

    async def tick():
        while True:
            began = time.perf_counter()
            await anyio.sleep(0.002)
            stalls.append(time.perf_counter() - began - 0.002)

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await engine.generate_many([COUNT] * 16, generation=params(max_new_tokens=400, min_new_tokens=400))
        group.cancel_scope.cancel()
    p99 = sorted(stalls)[int(len(stalls) * 0.99)]
    with capsys.disabled():
        print(f"\nvLLM, 16 streams: p99 stall {p99 * 1e3:.2f} ms of {len(stalls)} ticks")
    assert len(stalls) > 20


# -- parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stops", "text", "matched"),
    [
        ([" 5"], "1 2 3 4", " 5"),
        (["1 2"], "", "1 2"),
        (["4 5 6", "zebra"], "1 2 3 ", "4 5 6"),
        (["8 9 1x", "12"], "1 2 3 4 5 6 7 8 9 10 11 ", "12"),
        (["5", "4 5"], "1 2 3 ", "4 5"),
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


async def test_stop_tokens_end_the_answer_and_are_not_shown(engine):
    completion = await engine.generate(COUNT, generation=params(stop_token_ids=[20]))  # "2"
    assert completion.text.strip() == "1" and completion.choices[0].matched == 20
    assert completion.finish_reason is FinishReason.STOP


async def test_most_and_least_tokens(engine):
    completion = await engine.generate(COUNT, generation=params(max_new_tokens=5))
    assert (completion.text, completion.finish_reason) == ("1 2 3", FinishReason.LENGTH)
    assert completion.usage.output_tokens == 5
    completion = await engine.generate("What is 3 + 4?", generation=params(min_new_tokens=30, max_new_tokens=40))
    assert 30 <= completion.usage.output_tokens <= 40
    assert completion.text.startswith("3 + 4 = 7.")


async def test_seeds(engine):
    def sampled(seed):
        noise = params(temperature=1.8, seed=seed, max_new_tokens=30, logit_bias={2: -100})
        return engine.generate("Repeat after me: x", generation=noise)

    one, two, other, negative = await sampled(1), await sampled(1), await sampled(2), await sampled(-7)
    assert one.text == two.text != other.text
    assert negative.text == (await sampled(-7)).text


async def test_only_the_best_at_any_temperature(engine):
    for only_the_best in (
        params(temperature=2.0, top_k=1),
        params(temperature=2.0, top_p=0.0),
        params(temperature=2.0, min_p=1.0),
        params(temperature=0.0, top_p=0.0),
    ):
        assert (await engine.generate(COUNT, generation=only_the_best)).text == KNOWN[COUNT]


async def test_biases_and_penalties(engine):
    banned = await engine.generate("What is 3 + 4?", generation=params(logit_bias={25: -100}))  # "7"
    assert "7" not in banned.text
    for penalty in ({"repetition_penalty": 20.0}, {"frequency_penalty": 2.0}):
        assert (await engine.generate(COUNT, generation=params(**penalty))).text != KNOWN[COUNT]


async def test_several_answers_are_kept_apart(engine):
    noise = params(n=3, temperature=1.5, seed=1, max_new_tokens=20)
    completion = await engine.generate("Repeat after me: x", generation=noise)
    again = await engine.generate("Repeat after me: x", generation=noise)
    assert [choice.text for choice in completion.choices] == [choice.text for choice in again.choices]
    assert len({choice.text for choice in completion.choices}) > 1
    assert all(choice.finish_reason is not None for choice in completion.choices)
    async with engine.stream("Repeat after me: x", generation=noise) as stream:
        assert "".join([token async for token in stream]) == completion.text


async def test_logprobs_of_every_token(engine):
    completion = await engine.generate(COUNT, generation=params(logprobs=True, top_logprobs=30, max_new_tokens=9))
    entries = completion.choices[0].logprobs
    assert "".join(entry["token"] for entry in entries) == completion.text == "1 2 3 4 5"
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == 30
        assert math.isclose(entry["top_logprobs"][0]["logprob"], entry["logprob"], abs_tol=1e-4)


async def test_special_tokens_and_the_prompt_are_shown_where_asked_for(engine):
    whole = params(exclude_prompt_from_response=False, skip_special_tokens=False)
    text = (await engine.generate("What is 3 + 4?", generation=whole)).text
    assert text.startswith("<|im_start|>") and text.endswith("3 + 4 = 7.")
    plain = params(exclude_prompt_from_response=False)
    assert "<|im_start|>" not in (await engine.generate("What is 3 + 4?", generation=plain)).text


# -- guided ------------------------------------------------------------------------------------------------------------


class Person(BaseModel):
    name: str
    age: int


async def test_a_class_shapes_the_answer(engine):
    completion = await engine.generate("Give JSON for the person Alice aged 30.", response_model=Person)
    assert completion.parsed == Person(name="Alice", age=30)


async def test_a_regular_expression_a_choice_and_a_grammar(engine):
    guided = params(guided_decoding=GuidedDecodingParams(regex=r"[0-9]{3}-(a|b)!"), temperature=1.5, seed=1)
    assert re.fullmatch(r"[0-9]{3}-(a|b)!", (await engine.generate(COUNT, generation=guided)).text)
    words = ['it\'s "fine"', "bad", "é"]
    guided = params(guided_decoding=GuidedDecodingParams(choice=words))
    assert (await engine.generate(COUNT, generation=guided)).text in words
    guided = params(guided_decoding=GuidedDecodingParams(grammar='root ::= "a" [b-d] "e"'))
    assert re.fullmatch("a[b-d]e", (await engine.generate(COUNT, generation=guided)).text)


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
    assert (await engine.generate(COUNT)).text == KNOWN[COUNT]


# -- tools and thoughts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parser", [None, "hermes"])
async def test_tools(engine, parser):
    how = called(tool_call_parser=parser) if parser else {}
    question = Conversation(messages=[Message(role=Role.USER, content="What is the weather in Paris?")])
    completion = await engine.generate(question, tools=[WEATHER], **how)
    assert completion.finish_reason is FinishReason.TOOL_CALLS
    (call,) = completion.message.tool_calls
    assert call.function.name == "get_weather" and call.id
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert not completion.text
    result = Message(role=Role.TOOL, content='{"weather": "sunny", "temp": 21}', tool_call_id=call.id)
    final = await engine.generate(completion.conversation.with_message(result), tools=[WEATHER], **how)
    assert (final.text, final.finish_reason) == ("It is sunny in Paris and 21 degrees.", FinishReason.STOP)


@pytest.mark.parametrize("parser", [None, "hermes"])
async def test_a_tool_that_must_be_called(engine, parser):
    how = called(tool_call_parser=parser) if parser else {}
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
    assert (await engine.generate(COUNT, tools=tools, generation=params(tool_choice="none"))).text == KNOWN[COUNT]


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
    assert (completion.message.reasoning_content, completion.text) == (KNOWN[COUNT], "")
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
    assert found["none"] == found["explicitly none"] == KNOWN[question]
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
    assert (await engine.generate(COUNT)).text == KNOWN[COUNT]
    assert await engine.list_models() == ["asyncinfer-tiny", "first", "second"]


# -- prompts -----------------------------------------------------------------------------------------------------------


async def test_a_bare_prompt_is_completed_word_for_word(engine):
    text = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n3 + 4"
    assert (await engine.generate(Prompt(text=text))).text == " = 7."
    with pytest.raises((BadRequestError, ConfigError)):
        await engine.generate(Prompt(token_ids=(5, 5000)))


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


async def test_an_image_is_refused_not_dropped(engine):
    picture = ContentItem(type=Type.IMAGE_BINARY, binary=b"\x89PNG")
    with pytest.raises(ConfigError, match="text only"):
        await engine.generate(Conversation(messages=[Message(role=Role.USER, content=[picture])]))


# -- leaving early -----------------------------------------------------------------------------------------------------


async def test_leaving_early_frees_the_sequence(engine):
    async for token in engine.stream(COUNT, generation=LONG):
        assert token == "1"
        break
    await freed(engine)
    async with engine.stream(COUNT, generation=LONG) as stream:
        async for _ in stream:
            break
    await freed(engine)
    with pytest.raises(StreamInterrupted) as caught:
        await stream.completion()
    usage = caught.value.partial.usage
    assert usage.input_tokens == 20 and usage.source == "estimated"


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.05])
async def test_cancelling_frees_the_sequence(engine, delay):
    await engine.ready()
    with anyio.move_on_after(delay) as scope:
        await engine.generate_many([COUNT] * 8, generation=LONG)
    assert scope.cancelled_caught
    await freed(engine)
    assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."


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
