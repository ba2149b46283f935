"""Pace, gate, politeness, retries: each by itself."""

from __future__ import annotations

import random
from math import inf, nan

import pytest

from asyncinfer.errors import RetryKind
from asyncinfer.scheduling.pace import AcceptRate, Gate, Pacer, Politeness
from asyncinfer.scheduling.peak import RecentPeak
from asyncinfer.scheduling.retry import RetryBudget, asked_wait, backoff, may_retry

from .virtual import Half


def test_accept_rate_is_that_of_the_last_four_seconds():
    rate = AcceptRate()
    for step in range(100):
        rate.add(1000 + step / 10)
    assert rate.value(1009.99) == pytest.approx(10, abs=0.7)
    assert rate.value(1012.0) == pytest.approx(5, abs=1.0)
    assert rate.value(1014.0) == 0
    assert rate.value(10_000.0) == 0


def test_pacer_allows_twice_what_is_accepted_and_never_nothing():
    pacer = Pacer()
    assert pacer.rate(0.0) == 2.0
    for step in range(400):
        pacer.accepted(step / 100)
    assert pacer.rate(4.0) == pytest.approx(200, rel=0.1)
    assert pacer.rate(20.0) == pytest.approx(50, rel=0.1), "half of the best of the last minute"
    assert pacer.rate(200.0) == 2.0


def test_pacer_lets_a_pause_be_caught_up_on_only_a_little():
    pacer = Pacer()
    for _ in range(10):
        pacer.started(100.0)
    assert pacer.next == pytest.approx(100 - 0.25 + 10 / 2)


def test_recent_peak_forgets():
    peak = RecentPeak(5.0)
    peak.note(10, 0.0)
    peak.note(3, 6.0)
    assert peak.value(6.0) == 10
    assert peak.value(11.5) == 3
    assert peak.value(100.0) == 0


def test_gate_doubles_and_is_capped_and_never_shortened():
    gate = Gate()
    held = []
    for episode in range(1, 12):
        gate.until = -inf
        gate.back_off(episode, 0.0, Half())
        held.append(gate.until)
    assert held[:3] == pytest.approx([0.15, 0.3, 0.6])
    assert held[-1] == pytest.approx(15 * 0.75)
    gate.hold(20.0, 0.0)
    gate.back_off(1, 0.0, Half())
    assert gate.until == 20.0


def test_politeness_keeps_a_slot_only_until_its_interval_has_passed():
    politeness = Politeness(10.0)
    politeness.left(0.0, 3.0)
    politeness.left(2.0, 15.0)
    assert politeness.cooling(5.0) == 1
    assert politeness.next_free() == 10.0
    assert politeness.cooling(10.0) == 0
    assert politeness.next_free() == inf


def test_retry_budget_is_ten_and_a_fifth():
    budget = RetryBudget()
    assert [budget.spend(0.0) for _ in range(11)] == [True] * 10 + [False]
    for _ in range(5):
        budget.sent(1.0)
    assert budget.spend(1.0)
    assert not budget.spend(1.0)
    assert budget.spend(100.0), "an old outage is forgotten"


@pytest.mark.parametrize(
    ("kind", "attempts", "max_retries", "retry_after", "verdict"),
    [
        (RetryKind.NEVER, 1, None, None, False),
        (RetryKind.TRANSIENT, 1, None, None, True),
        (RetryKind.THROTTLED, 7, None, None, True),
        (RetryKind.THROTTLED, 8, None, None, False),
        (RetryKind.THROTTLED, 1, 0, None, False),
        (RetryKind.OVERLOADED, 3, 3, None, True),
        (RetryKind.OVERLOADED, 4, 3, None, False),
        (RetryKind.THROTTLED, 8, 20, None, True),
        (RetryKind.THROTTLED, 1, None, 60.0, True),
        (RetryKind.THROTTLED, 1, None, 60.5, False),
        (RetryKind.THROTTLED, 1, None, inf, False),
    ],
)
def test_who_may_retry(kind, attempts, max_retries, retry_after, verdict):
    assert may_retry(kind, attempts, max_retries, retry_after) is verdict


def test_retry_after_that_is_no_number():
    assert asked_wait(nan) is None
    assert asked_wait(None) is None
    assert asked_wait(-3.0) == 0.0
    assert asked_wait(inf) == inf


def test_backoff_doubles_with_jitter_up_to_half_a_minute():
    rng = random.Random(1)
    for faults, most in [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (1000, 30.0)]:
        waits = [backoff(faults, rng) for _ in range(200)]
        assert most / 2 <= min(waits) < most * 0.6
        assert most * 0.9 < max(waits) <= most
