"""The window: slow start, cuts by episode, recovery."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.scheduling.window import CAP, RECOVERY, Window


def filled(window: Window, now: float = 0.0) -> list[int]:
    return [window.enter(now) for _ in range(window.limit - window.in_flight)]


def test_starts_at_sixteen_and_doubles_each_round_trip():
    window = Window()
    assert window.limit == 16
    for seq in filled(window):
        window.accepted(seq)
        filled(window)  # the backlog takes the new place at once
    assert window.limit == 32


def test_does_not_grow_while_it_is_not_used():
    window = Window()
    for _ in range(100):
        seq = window.enter(0.0)
        window.accepted(seq)
        window.leave()
    assert window.limit == 16


def test_slow_start_stops_at_the_cap():
    window = Window(cap=20)
    for seq in filled(window) * 5:
        window.accepted(seq)
        filled(window)
    assert window.limit == 20
    assert Window(cap=4).limit == 4
    assert Window().cap == CAP


@pytest.mark.parametrize(("cap", "size"), [(None, 16), (5, 5), (1000, 1000)])
def test_fixed_window_neither_grows_nor_shrinks(cap, size):
    window = Window(cap=cap, adaptive=False)
    for seq in filled(window):
        window.accepted(seq)
    window.cut(1.0)
    window.grow(100.0)
    assert window.limit == size


def test_a_burst_of_refusals_is_one_episode():
    window = Window(start=40)
    seqs = filled(window)
    cuts = 0
    for seq in seqs:
        window.leave()
        if window.new_episode(seq):
            window.cut(1.0)
            cuts += 1
    assert cuts == 1
    assert window.size == pytest.approx(39 * 0.9)
    later = window.enter(2.0)
    assert window.new_episode(later)
    assert window.episodes == 2


def test_an_accepted_request_after_the_cut_ends_the_series():
    window = Window()
    before = filled(window)
    assert window.new_episode(before[0])
    window.accepted(before[1])
    assert window.episodes == 1, "sent before the cut: says nothing about the new size"
    window.leave()
    window.accepted(window.enter(1.0))
    assert window.episodes == 0


def test_overload_goes_down_to_what_is_being_served():
    for served, kept in [(80, 0.8), (10, 0.7), (100, 0.98)]:
        window = Window(start=100)
        filled(window)
        window.cut(0.0, served=served)
        assert window.size == pytest.approx(100 * kept)


@pytest.mark.parametrize("size", [4, 40, 400])
def test_recovery_takes_as_long_at_every_size(size):
    window = Window(start=size)
    filled(window)
    window.cut(0.0)
    window.in_flight = window.limit
    for step in range(1, 61):
        window.grow(step * RECOVERY / 60)
        while window.in_flight < window.limit:
            window.enter(step * RECOVERY / 60)
    assert window.size == pytest.approx(size, rel=1e-6)


def test_growth_after_recovery_passes_the_old_size():
    window = Window(start=100)
    filled(window)
    window.cut(0.0)
    now = 0.0
    while now < 3 * RECOVERY:
        now += 0.1
        window.grow(now)
        while window.in_flight < window.limit:
            window.enter(now)
    assert window.size > 250


@given(size=st.integers(1, 500), served=st.none() | st.integers(0, 500))
def test_next_growth_is_when_one_more_fits(size, served):
    window = Window(start=size)
    filled(window)
    window.cut(10.0, served=served)
    window.in_flight = window.limit
    before = window.limit
    when = window.next_growth(10.0)
    if when == inf:
        assert before == CAP
        return
    window.grow(when)
    assert window.limit == before + 1
    again = Window(start=size)
    filled(again)
    again.cut(10.0, served=served)
    again.in_flight = again.limit
    again.grow(10.0 + (when - 10.0) * 0.99)
    assert again.limit == before, "the wake-up would have been late"


def test_in_slow_start_time_alone_brings_no_growth():
    window = Window()
    filled(window)
    assert window.next_growth(0.0) == inf


def test_refusals_stop_at_the_least():
    window = Window(start=20, least=10)
    for round_ in range(40):
        filled(window)
        window.cut(float(round_))
    assert window.limit == 10
    assert Window(least=40).limit == 40
    assert Window(least=40, cap=30).limit == 30
