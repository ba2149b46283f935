"""Checks of prescribed shapes: JSON schema, choice, regular expression, tools."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from pydantic import BaseModel

from .. import Conversation, FinishReason, Message, Role, ToolCallDelta
from .verdict import ConformanceError, claim, show

if TYPE_CHECKING:
    from .subject import Reading, Subject

_CHOICES = ["certainly not", "maybe 7"]
_PATTERN = r"[a-c]{3}-[0-9]{2}"


class Verdict(BaseModel):
    """An object that no question of the suite asks for."""

    ok: bool


_SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


async def a_json_schema_is_followed(subject: Subject) -> None:
    """The answer is JSON of the schema, also where the model would say something else; a class is parsed into."""
    subject.needs_guided("json")
    prompt = subject.expect.prompts[0]
    text = (await subject.generate(prompt, subject.guided(json=_SCHEMA))).text
    try:
        found = json.loads(text)
    except ValueError:
        raise ConformanceError(f"the answer is no JSON: {show(text)}") from None
    claim(
        isinstance(found, dict) and set(found) == {"ok"} and isinstance(found["ok"], bool),
        f"the answer does not follow the schema: {show(text)}",
    )
    completion = await subject.generate(prompt, subject.params(**subject.room), response_model=Verdict)
    claim(
        isinstance(completion.parsed, Verdict),
        f"response_model gave {show(completion.parsed)} from {show(completion.text)}",
    )


async def a_choice_is_followed(subject: Subject) -> None:
    """The answer is one of the choices, whole."""
    subject.needs_guided("choice")
    reading = await subject.read(subject.expect.prompts[0], subject.guided(choice=_CHOICES))
    claim(reading.completion.text in _CHOICES, f"of {_CHOICES} the answer is {show(reading.completion.text)}")
    claim(
        reading.completion.finish_reason is FinishReason.STOP, f"a choice ended by {reading.completion.finish_reason}"
    )


async def a_regular_expression_is_followed(subject: Subject) -> None:
    """The whole answer matches."""
    subject.needs_guided("regex")
    text = (await subject.generate(subject.expect.prompts[0], subject.guided(regex=_PATTERN))).text
    claim(re.fullmatch(_PATTERN, text), f"{show(text)} does not match {_PATTERN}")


def get_weather(city: str) -> str:
    """The weather in a city."""
    return json.dumps({"weather": "sunny", "temp": 21, "city": city})


async def tools_are_called(subject: Subject) -> None:
    """A call comes whole, as events and in the message; its result is read on the next turn."""
    subject.needs("tool_choice")
    question = Conversation(messages=[Message(role=Role.USER, content=subject.expect.tool_prompt)])
    reading = await subject.read(question, subject.params(tool_choice="required", **subject.room), tools=[get_weather])
    completion = reading.completion
    calls = completion.message.tool_calls or []
    claim(calls, f"tool_choice is required, and no tool was called: {show(completion.text)}")
    claim(completion.finish_reason is FinishReason.TOOL_CALLS, f"a call ended by {completion.finish_reason}")
    _folded(reading)
    for call in calls:
        claim(call.function.name == "get_weather", f"{show(call.function.name)} was called, which is not offered")
        claim(call.id, "a call has no id")
    try:
        arguments = calls[0].get_arguments_dict()
    except ValueError:
        raise ConformanceError(f"the arguments are no JSON object: {show(calls[0].function.arguments)}") from None
    claim(isinstance(arguments.get("city"), str), f"the call lacks its argument city: {show(arguments)}")
    results = [
        Message(role=Role.TOOL, content=get_weather(**call.get_arguments_dict()), tool_call_id=call.id)
        for call in calls
    ]
    following = completion.conversation
    for result in results:
        following = following.with_message(result)
    final = await subject.generate(following, subject.params(**subject.room), tools=[get_weather])
    claim(final.text, "the result of a call was answered with nothing")
    none = await subject.generate(question, subject.params(tool_choice="none", **subject.room), tools=[get_weather])
    claim(not none.message.tool_calls, "tool_choice is none, and a tool was called")


def _folded(reading: Reading) -> None:
    calls: dict[int, tuple[str, str]] = {}
    for event in reading.events:
        if type(event) is ToolCallDelta:
            name, arguments = calls.get(event.call, ("", ""))
            calls[event.call] = (name + (event.name or ""), arguments + event.arguments)
    found = [(call.function.name, call.function.arguments) for call in reading.completion.message.tool_calls or []]
    told = [calls[number] for number in sorted(calls)]
    claim(len(told) == len(found), f"the events have {len(told)} calls, the message {len(found)}")
    for (name, arguments), (other, others) in zip(told, found, strict=True):
        same = name == other and json.loads(arguments or "{}") == json.loads(others or "{}")
        claim(same, f"the events call {name}({arguments}), the message {other}({others})")
