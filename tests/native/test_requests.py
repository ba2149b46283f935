"""What a request may say, and what becomes of it: grammars, tools, tokens that there are not."""

from __future__ import annotations

import json

import pytest

from asyncinfer import (
    GenerationParams,
    GuidedDecodingParams,
    ModelParams,
    NativeTextInferenceEngine,
)

pytestmark = [pytest.mark.native, pytest.mark.anyio]

POINT = {
    "$defs": {
        "Point": {
            "type": "object",
            "properties": {"x": {"enum": [1, 2]}},
            "required": ["x"],
            "additionalProperties": False,
        }
    },
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/Point"}},
    "required": ["at"],
}


def named(name):
    return GenerationParams(tool_choice={"type": "function", "function": {"name": name}}, max_new_tokens=200)


async def test_a_tool_whose_arguments_are_described_elsewhere(engine):
    """What a schema refers to stands in the schema itself, not in the grammar around it."""
    tool = {"type": "function", "function": {"name": "paint", "parameters": POINT}}
    (call,) = (await engine.generate("Paint.", tools=[tool], generation=named("paint"))).message.tool_calls
    assert json.loads(call.function.arguments)["at"]["x"] in (1, 2)


async def test_a_tool_without_arguments_gets_none(engine):
    tool = {"type": "function", "function": {"name": "ping"}}
    (call,) = (await engine.generate("Ping.", tools=[tool], generation=named("ping"))).message.tool_calls
    assert json.loads(call.function.arguments) == {}


async def test_thousands_of_choices_of_any_letters(engine):
    choice = [*(f"option {number}" for number in range(5000)), 'a"b\\c\n[.*]-é😀']
    for words in (choice, choice[-1:]):
        how = GenerationParams(guided_decoding=GuidedDecodingParams(choice=words))
        assert (await engine.generate("Which?", generation=how)).text in words


async def test_the_template_may_be_told_not_to_begin_the_answer(make):
    async with make({"chat_template_kwargs": {"add_generation_prompt": False}}) as engine:
        without = await engine.generate("Hello", generation=GenerationParams(max_new_tokens=1))
    async with make() as engine:
        usual = await engine.generate("Hello", generation=GenerationParams(max_new_tokens=1))
    assert without.usage.input_tokens < usual.usage.input_tokens


async def test_a_stop_token_that_the_model_does_not_have(engine):
    how = GenerationParams(max_new_tokens=4, min_new_tokens=2, stop_token_ids=[10**7, -3])
    assert (await engine.generate("Hello", generation=how)).usage.output_tokens == 4


async def test_a_prescribed_shape_is_no_thought():
    """Where the template begins a thought, the answer would be all reasoning, and its shape in vain."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n<think>\n{# </think> #}"
    )
    async with NativeTextInferenceEngine(ModelParams(chat_template=template)) as thinker:
        how = GenerationParams(guided_decoding=GuidedDecodingParams(choice=["yes", "no"]))
        assert (await thinker.generate("Well?", generation=how)).text in ("yes", "no")
