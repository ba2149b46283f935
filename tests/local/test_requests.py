"""What a request may say and may not: the same on every binding, and an error that names the field."""

from __future__ import annotations

import pytest

from asyncinfer import ConfigError, Conversation, FinishReason, GenerationParams, Message, Prompt, Role

pytestmark = pytest.mark.anyio

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.parametrize(
    "choice", [{"type": "function", "function": "f"}, {}, {"function": {"name": 7}}, {"name": None}]
)
async def test_a_tool_choice_that_names_nothing(engine, choice):
    with pytest.raises(ConfigError, match="names a function like this") as caught:
        await engine.generate("Hello", tools=[TOOL], generation=GenerationParams(tool_choice=choice))
    assert caught.value.path == "generation.tool_choice"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
async def test_a_call_is_not_required_where_there_are_no_tools(engine, choice):
    with pytest.raises(ConfigError, match="no tools are offered") as caught:
        await engine.generate("Hello", generation=GenerationParams(tool_choice=choice))
    assert caught.value.path == "generation.tool_choice"


async def test_an_empty_stop_string_stops_nothing(engine):
    answer = await engine.generate("Hello", generation=GenerationParams(stop_strings=["", "today"]))
    assert answer.text == "Hello! How can I help you "


async def test_half_a_surrogate_pair_is_no_text(engine):
    with pytest.raises(ConfigError, match="surrogate") as caught:
        await engine.generate("Hello", generation=GenerationParams(stop_strings=["\ud800"]))
    assert caught.value.path == "generation.stop_strings"
    with pytest.raises(ConfigError, match="surrogate"):
        await engine.generate(Prompt("\ud800"))


async def test_more_tokens_than_a_library_can_count(engine):
    answer = await engine.generate("Hello", generation=GenerationParams(max_new_tokens=2**40))
    assert (answer.text, answer.finish_reason) == ("Hello! How can I help you today?", FinishReason.STOP)


async def test_an_answer_to_an_answer_is_a_message_of_its_own(engine):
    """Nothing is put behind the last message's own words; every engine sees as many tokens."""
    said = [Message(role=Role.USER, content="Count from 1 to 9."), Message(role=Role.ASSISTANT, content="1 2 3")]
    answer = await engine.generate(Conversation(messages=said), generation=GenerationParams(max_new_tokens=4))
    assert answer.usage.input_tokens == 31


async def test_an_image_in_a_bare_prompt_is_said_to_be_there(engine):
    with pytest.raises(ConfigError, match=r"^prompt has an item of type image") as caught:
        await engine.generate(Prompt("What is this?", images=[b"\x89PNG"]))
    assert caught.value.path == "prompt"
