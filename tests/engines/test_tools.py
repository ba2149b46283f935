"""Tool loops and objects that are still being written."""

from __future__ import annotations

import copy
import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from asyncinfer import (
    ConfigError,
    Finish,
    FinishReason,
    Role,
    StructuredOutputError,
    TextDelta,
    ToolCallDelta,
    ToolLoopError,
)
from asyncinfer.request import Request

from .scripted import ScriptedEngine, answer

pytestmark = pytest.mark.anyio


def calling(*calls: tuple[str, Any]) -> list[Any]:
    return [
        *(
            ToolCallDelta(position, id=f"c{position}", name=name, arguments=json.dumps(arguments))
            for position, (name, arguments) in enumerate(calls)
        ),
        Finish(FinishReason.TOOL_CALLS),
    ]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def look_up(city: str) -> dict[str, str]:
    """Find a city."""
    await anyio.lowlevel.checkpoint()
    return {"city": city, "country": "Norway"}


def tool_texts(request: Request) -> list[str]:
    return [str(message.content) for message in request.conversation.messages if message.role is Role.TOOL]


async def test_sync_and_async_tools_in_one_turn() -> None:
    engine = ScriptedEngine(calling(("add", {"a": 2, "b": "3"}), ("look_up", {"city": "Oslo"})), answer("done"))
    completion = await engine.run_tools("go", [add, look_up])
    assert completion.text == "done"
    assert tool_texts(engine.requests[1]) == ["5", '{"city":"Oslo","country":"Norway"}']
    roles = [message.role for message in completion.conversation.messages]
    assert roles == ["user", "assistant", "tool", "tool", "assistant"]
    assert [message.tool_call_id for message in completion.conversation.messages[2:4]] == ["c0", "c1"]
    assert [message.get("is_error") for message in completion.conversation.messages[2:4]] == [None, None]
    assert [tool.function.name for tool in engine.requests[0].tools or []] == ["add", "look_up"]


async def test_problems_are_told_to_the_model() -> None:
    def broken() -> str:
        raise ZeroDivisionError("oops")

    async def slow() -> str:
        await anyio.sleep(30)
        return "never"

    engine = ScriptedEngine(
        calling(("broken", {}), ("slow", {}), ("nowhere", {}), ("add", {"a": "x", "b": 1})), answer("sorry")
    )
    completion = await engine.run_tools("go", [broken, slow, add], tool_timeout=0.05)
    assert completion.text == "sorry"
    told = [json.loads(text)["error"] for text in tool_texts(engine.requests[1])]
    assert "ZeroDivisionError: oops" in told[0]
    assert "longer than 0.05 s" in told[1]
    assert "there is no tool 'nowhere'" in told[2]
    assert "ValidationError" in told[3]
    results = [message for message in completion.conversation.messages if message.role == "tool"]
    assert [message.get("is_error") for message in results] == [True] * 4


async def test_or_raised() -> None:
    def broken() -> str:
        raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError):
        await ScriptedEngine(calling(("broken", {}))).run_tools("go", [broken], on_error="raise")


async def test_a_limit_that_loses_nothing() -> None:
    engine = ScriptedEngine(calling(("add", {"a": 1, "b": 1})))
    with pytest.raises(ToolLoopError, match="3 rounds") as caught:
        await engine.run_tools("go", [add], max_rounds=3)
    assert len(engine.requests) == 3
    assert [message.role for message in caught.value.conversation.messages] == ["user", *["assistant", "tool"] * 3]
    with pytest.raises(ConfigError, match="max_rounds"):
        await engine.run_tools("go", [add], max_rounds=0)


class Person(BaseModel):
    name: str
    age: int


async def test_objects_grow_and_end_validated() -> None:
    engine = ScriptedEngine(answer('{"name": "A', 'da", "a', 'ge": 3', "6}"))
    async with engine.stream("who?", response_model=Person) as stream:
        states = [copy.deepcopy(state) async for state in stream.objects()]
        completion = await stream.completion()
    assert states == [{"name": "A"}, {"name": "Ada"}, {"name": "Ada", "age": 36}]
    assert completion.parsed == Person(name="Ada", age=36)


@pytest.mark.parametrize("finish", [FinishReason.LENGTH, FinishReason.STOP])
async def test_a_cut_object_is_never_final(finish: FinishReason) -> None:
    engine = ScriptedEngine([TextDelta('{"name": "Ada", "age": 3'), Finish(finish)])
    with pytest.raises(StructuredOutputError) as caught:
        await engine.generate("who?", response_model=Person)
    assert caught.value.partial is not None
    assert caught.value.partial.parsed is None
    assert caught.value.partial.text.startswith('{"name"')


async def test_an_answer_that_does_not_fit_says_where() -> None:
    engine = ScriptedEngine(answer('{"name": "Ada", "age": "old"}'))
    with pytest.raises(StructuredOutputError, match="age"):
        await engine.generate("who?", response_model=Person)
