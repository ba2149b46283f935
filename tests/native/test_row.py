"""What rows say after one step: no library is needed for this."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from asyncinfer.engines.local.ask import Ask
from asyncinfer.engines.local.several import Several
from asyncinfer.engines.native import row as rows
from asyncinfer.engines.worker import Feed
from asyncinfer.events import Start, TextDelta, Usage, UsageUpdate

pytestmark = pytest.mark.anyio


def row(listener, text, *, ended=False):
    events = [Start(), TextDelta(text), UsageUpdate(Usage(input_tokens=2, output_tokens=1))]
    return SimpleNamespace(listener=listener, ended=ended, chooser=None, take=lambda _: events)


async def test_all_answers_of_a_step_are_posted_before_a_loop_is_woken(monkeypatch):
    feeds = [Feed() for _ in range(3)]
    loop, bridge = feeds[0].loop, feeds[0].bridge
    woken = []
    soon = loop.soon
    monkeypatch.setattr(loop, "soon", lambda fn, *args: (woken.append(len(bridge._mail)), soon(fn, *args)))
    monkeypatch.setattr(rows, "choose", lambda choosers, _: [object()] * len(choosers))
    voices = [voice for _, voice in Several(feeds[2], 2).asks(Ask(messages=[], n=2))]
    step = [row(feeds[0], "a"), row(feeds[1], "b", ended=True), row(voices[0], "c"), row(voices[1], "d", ended=True)]
    rows.advance(step, None)
    assert woken == [4]
    assert [event.text for event in await feeds[0].pull() if type(event) is TextDelta] == ["a"]
    assert (await feeds[1].pull(), await feeds[1].pull())[1] is None
    both = await feeds[2].pull()
    assert [(event.index, event.text) for event in both if type(event) is TextDelta] == [(0, "c"), (1, "d")]
    assert sum(type(event) is Start for event in both) == 1
    assert both[-1] == UsageUpdate(Usage(input_tokens=2, output_tokens=2))
    step[2].ended = True
    rows.advance(step[2:3], None)
    assert await feeds[2].pull()
    assert await feeds[2].pull() is None
