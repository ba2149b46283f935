"""What meets in one engine: adapters beside each other, parsers that do not fit, another kind of loop."""

from __future__ import annotations

import anyio
import pytest

from asyncinfer import FinishReason, InferenceConfig, ModelParams
from tests.embedded import WEATHER, params

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def called(**fields):
    """Model parameters of one call."""
    return {"inference_config": InferenceConfig(model=ModelParams(**fields))}


@pytest.mark.anyio
async def test_two_adapters_and_the_model_itself_answer_side_by_side(engine):
    how = params(max_new_tokens=24)
    names = [None, "first", "second"]
    alone = {}
    for name in names:
        alone[name] = (await engine.generate("Count from 1 to 20.", generation=how, **called(adapter_model=name))).text
    assert len(set(alone.values())) == 3
    heard = []

    async def ask(name):
        text = ""
        call = called(adapter_model=name)
        async for token in engine.stream("Count from 1 to 20.", generation=how, **call):
            text += token
        heard.append((name, text))

    async with anyio.create_task_group() as group:
        for at in range(64):
            group.start_soon(ask, names[at % 3])
    assert len(heard) == 64
    assert [pair for pair in heard if pair[1] != alone[pair[0]]] == []


@pytest.mark.anyio
async def test_what_a_parser_of_another_markup_swallows_comes_out_as_text(engine):
    asked = {"tools": [WEATHER], "generation": params(max_new_tokens=100)}
    prompt = "What is the weather in Paris?"
    understood = await engine.generate(prompt, **asked)
    (call,) = understood.message.tool_calls
    answer = await engine.generate(prompt, **asked, **called(tool_call_parser="qwen3_coder"))
    assert not answer.message.tool_calls
    assert answer.finish_reason is FinishReason.STOP
    assert "<tool_call>" in answer.text and f'"{call.function.name}"' in answer.text


def test_a_loop_of_another_kind(engine):
    run = anyio.run
    answer = run(engine.generate, "What is 3 + 4?", backend_options={"use_uvloop": True})
    assert answer.text == "3 + 4 = 7."
