"""When a loop is woken for what threads post, and when it looks by itself, on a clock of our own."""

from __future__ import annotations

from collections import deque

import pytest

from asyncinfer.engines.worker import _OFTEN, _TICK, _Bridge
from asyncinfer.loops import Loop, LoopClosed


class HandLoop(Loop):
    """A loop that does nothing by itself."""

    def __init__(self):
        super().__init__()
        self.now = 100.0
        self.woken = []
        self.timers = []

    def time(self):
        return self.now

    def soon(self, fn, *args):
        self.woken.append(fn)

    def repeat(self, pause, fn):
        self.timers.append((self.now + pause, fn))

    def run(self, until):
        """Turn the clock, waking up where it was asked for."""
        while True:
            while self.woken:
                self.woken.pop(0)()
            due = [timer for timer in self.timers if timer[0] <= until]
            if not due:
                self.now = until
                return
            self.timers.remove(due[0])
            self.now, fn = due[0]
            if fn():
                self.repeat(_TICK, fn)


class Reader:
    """In place of a feed."""

    def __init__(self):
        self.read = []
        self.begun = False

    def receive(self, events, end):
        self.read += events
        self.begun = True


@pytest.fixture
def loop():
    return HandLoop()


@pytest.fixture
def bridge(loop):
    return _Bridge(loop)


def test_slow_mail_wakes_the_loop_each_time(loop, bridge):
    reader = Reader()
    for number in range(10):
        bridge.post((reader, [number], None))
        assert len(loop.woken) == 1
        loop.run(loop.now + 2 * _OFTEN)
        assert reader.read[-1] == number
    assert not loop.timers


def test_fast_mail_wakes_the_loop_twice_and_never_waits_longer_than_a_tick(loop, bridge):
    reader = Reader()
    wakes = 0
    for number in range(1000):
        bridge.post((reader, [number], None))
        wakes += len(loop.woken)
        loop.run(loop.now + _TICK / 5)
        assert number - len(reader.read) < 6
    assert wakes == 2
    loop.run(loop.now + _TICK)
    assert reader.read == list(range(1000))


def test_a_beginning_and_an_end_do_not_wait_for_a_tick(loop, bridge):
    first, second = Reader(), Reader()
    for _ in range(3):
        bridge.post((first, ["a"], None))
        loop.run(loop.now + _TICK / 10)
    assert not loop.woken and loop.timers
    bridge.post((first, ["a"], None), (second, ["b"], None))
    bridge.post((second, ["b"], None))
    assert len(loop.woken) == 1
    loop.run(loop.now)
    assert second.read == ["b", "b"]
    bridge.post((first, ["a"], None))
    assert not loop.woken
    bridge.post((first, ["z"], "end"))
    assert len(loop.woken) == 1
    loop.run(loop.now)
    assert first.read[-1] == "z"
    assert len(loop.timers) == 1


def test_a_loop_that_finds_nothing_for_a_while_asks_to_be_woken_again(loop, bridge):
    reader = Reader()
    for number in range(3):
        bridge.post((reader, [number], None))
        loop.run(loop.now + _TICK / 2)
    assert loop.timers and not loop.woken
    loop.run(loop.now + 3 * _OFTEN)
    assert not loop.timers
    bridge.post((reader, ["later"], None))
    assert len(loop.woken) == 1
    loop.run(loop.now)
    assert reader.read == [0, 1, 2, "later"]


def test_two_wake_ups_at_once_start_one_round_of_looking(loop, bridge):
    reader = Reader()
    for _ in range(5):
        bridge.post((reader, ["a"], None))
        bridge._ringing = False  # as if another thread had read it before this one wrote it
        bridge.post((reader, ["b"], None))
        loop.run(loop.now + _TICK / 10)
    assert len(loop.timers) == 1
    loop.run(loop.now + _TICK)
    assert reader.read == ["a", "b"] * 5
    assert len(loop.timers) == 1


def test_mail_that_comes_while_the_loop_stops_looking_is_not_left_behind(loop, bridge):
    reader = Reader()

    class Late(deque):
        """Mail that is posted right behind the moment when the loop found none."""

        late = False

        def __bool__(self):
            if len(self) or not self.late:
                return len(self) > 0
            self.late = False
            self.append((reader, ["late"], None))
            return False

    bridge._mail = mail = Late()
    for _ in range(2):
        bridge.post((reader, ["a"], None))
        loop.run(loop.now + _TICK / 2)
    loop.run(loop.now + _OFTEN - _TICK)
    mail.late = True
    loop.run(loop.now + 3 * _OFTEN)
    assert reader.read == ["a", "a", "late"]
    assert not loop.timers
    bridge.post((reader, ["b"], None))
    assert len(loop.woken) == 1


def test_a_loop_that_is_about_to_end_is_looked_at_no_more(loop, bridge, monkeypatch):
    def closed(pause, fn):
        raise LoopClosed("no more timers")

    monkeypatch.setattr(loop, "repeat", closed)
    reader = Reader()
    for _ in range(3):
        bridge.post((reader, ["a"], None))
        loop.run(loop.now + _TICK / 2)
    assert reader.read == ["a"] * 3
