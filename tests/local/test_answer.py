"""Binding b: bytes of tokens to events."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.engines.local.answer import Answer
from asyncinfer.events import ReasoningDelta, TextDelta, ToolCallDelta


def run(text, size=3, stops=(), *, tools=False, thinks=False, thinking=False):
    answer = Answer(stops, tools=tools, thinks=thinks, thinking=thinking)
    data = text.encode()
    events = []
    for at in range(0, len(data), size):
        events += answer.feed(data[at : at + size])
    return answer, events + answer.close()


def text_of(events, kind=TextDelta):
    return "".join(event.text for event in events if type(event) is kind)


CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Pariś"}}\n</tool_call>'


@given(st.integers(1, 40))
def test_a_tool_call_is_taken_out_of_the_text(size):
    answer, events = run(f"One moment.\n{CALL}\n{CALL}", size, tools=True)
    calls = [event for event in events if type(event) is ToolCallDelta]
    assert [(call.call, call.name, json.loads(call.arguments)) for call in calls] == [
        (0, "get_weather", {"city": "Pariś"}),
        (1, "get_weather", {"city": "Pariś"}),
    ]
    assert len({call.id for call in calls}) == 2
    assert text_of(events).strip() == "One moment."
    assert answer.calls == 2


def test_without_tools_the_markup_is_text():
    _, events = run(CALL)
    assert text_of(events) == CALL


def test_markup_around_something_else_stays_text():
    _, events = run("<tool_call>nonsense</tool_call>", tools=True)
    assert text_of(events) == "<tool_call>nonsense</tool_call>"
    _, events = run("<tool_call>cut off", tools=True)
    assert text_of(events) == "<tool_call>cut off"
    _, events = run("<tool_call>[1]</tool_call>", tools=True)
    assert text_of(events) == "<tool_call>[1]</tool_call>"


def test_a_call_whose_closing_tag_is_missing_counts():
    answer, _ = run('<tool_call>{"name": "f", "arguments": {}}', tools=True)
    assert answer.calls == 1


@given(st.integers(1, 40))
def test_thoughts_are_reasoning(size):
    _, events = run("<think>\nwell é\n</think>\n\nyes", size, thinks=True)
    assert text_of(events, ReasoningDelta) == "\nwell é\n"
    assert text_of(events) == "yes"
    _, events = run("well</think>yes", size, thinks=True, thinking=True)
    assert (text_of(events, ReasoningDelta), text_of(events)) == ("well", "yes")


def test_logprobs_travel_with_the_text_they_belong_to():
    answer = Answer(["xy"], tools=False, thinks=False, thinking=False)
    assert answer.feed(b"ab", {"token": "ab"}) == [TextDelta("ab", logprobs=[{"token": "ab"}])]
    assert answer.feed(b"x", {"token": "x"}) == []
    assert answer.feed(b"z", {"token": "z"}) == [TextDelta("xz", logprobs=[{"token": "x"}, {"token": "z"}])]
    assert answer.close() == []


def test_a_stop_string_ends_everything():
    answer, events = run("one two three", 1, ["two"])
    assert text_of(events) == "one "
    assert answer.matched == "two"
