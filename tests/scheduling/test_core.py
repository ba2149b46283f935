"""The policy as a whole, on a virtual clock."""

from __future__ import annotations

import random

import pytest

from asyncinfer.errors import QuotaExceededError, RetryKind
from asyncinfer.limits import Budget, Cost, Limits
from asyncinfer.scheduling import Call

from .virtual import World, most_in

THROTTLED, OVERLOADED, TRANSIENT = RetryKind.THROTTLED, RetryKind.OVERLOADED, RetryKind.TRANSIENT


def served_in(world: World, seconds: float):
    """A provider that accepts at once and ends each answer after ``seconds``."""

    def on_sent(call):
        world.after(0.01, lambda: world.accept(call))
        world.after(seconds, lambda: world.settle(call, 10, 10))

    world._on_sent = on_sent


# -- limits that the user sets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 5, 10, 60, 100, 600, 3000])
def test_no_minute_ever_holds_more_requests_than_set_and_almost_all_are_used(limit):
    world = World(Limits(requests_per_minute=limit, max_concurrency=10_000, start_concurrency=10_000))
    served_in(world, 0.5)
    for _ in range(limit * 3):
        world.call()
    world.run(until=121)
    assert world.times[0] == 0.0
    assert most_in(world.times, 60.0) <= limit
    assert len(world.times) >= 2 * limit * 0.98 - 1


def test_bursts_after_idling_do_not_break_the_minute():
    rng = random.Random(5)
    world = World(Limits(requests_per_minute=120, max_concurrency=1000, start_concurrency=1000))
    served_in(world, 0.2)
    for _ in range(30):
        for _ in range(rng.randrange(100)):
            world.call()
        world.run(until=world.now + rng.uniform(0, 40))
    assert most_in(world.times, 60.0) <= 120


def test_a_limit_of_tokens_holds_for_what_was_really_used():
    rng = random.Random(5)
    world = World(Limits(tokens_per_minute=60_000, max_concurrency=1000))
    used: list[tuple[float, int]] = []

    def on_sent(call):
        output = rng.randrange(20, 400)
        used.append((world.now, call.cost.input_tokens + output))
        world.after(0.1, lambda: world.accept(call))
        world.after(2.0, lambda: world.settle(call, call.cost.input_tokens, output))

    world._on_sent = on_sent
    for _ in range(3000):
        world.call(rng.randrange(50, 800), 1000)
    world.run(until=400)
    worst = max(sum(size for when, size in used if start <= when < start + 60) for start in range(60, 340))
    assert worst <= 60_000 * 1.03
    assert sum(size for when, size in used if when >= 100) >= 60_000 * 5 * 0.95


def test_a_request_larger_than_the_bucket_goes_and_leaves_debt():
    world = World(Limits(tokens_per_minute=6000))
    world.call(9000, 1000)
    world.call(10, 10)
    world.run(until=300)
    assert world.times[0] == 0.0
    assert world.times[1] >= 99.0


def test_unset_limits_never_throttle():
    world = World(Limits())
    for _ in range(16):
        world.call(100_000, 100_000)
    assert world.times == [0.0] * 16


# -- the window and refusals ------------------------------------------------------------------------------------------


def test_a_cut_under_saturation_really_shrinks():
    """Fault: a controller that forgets the debt keeps admitting; here in flight falls and stays below the window."""
    world = World(Limits(start_concurrency=64))
    for _ in range(1000):
        world.call()
    assert len(world.sent) == 64
    now_in = [call for _, call in world.sent]
    for round_ in range(8):
        world.run(until=world.now + 0.05)
        before = len(world.sent)
        assert world.refuse(now_in.pop(0), THROTTLED)
        assert len(world.sent) == before, f"round {round_}: nothing may start while more are in flight than allowed"
        world.core.window._cut_seq = 0  # each as an episode of its own
        assert world.core.window.in_flight == 64 - round_ - 1
    limit = world.core.window.limit
    assert limit < 35
    world.run(until=world.now + 0.01)
    while world.core.window.in_flight > limit:
        before = len(world.sent)
        world.settle(now_in.pop(), 10, 10)
        assert len(world.sent) == before or world.core.window.in_flight <= world.core.window.limit


def test_in_flight_never_exceeds_the_window_when_it_grows_again():
    rng = random.Random(9)
    world = World(Limits(max_concurrency=50))
    peak = 0

    def on_sent(call):
        nonlocal peak
        peak = max(peak, world.core.window.in_flight)
        assert world.core.window.in_flight <= world.core.window.limit <= 50
        if rng.random() < 0.002:
            world.after(0.05, lambda: world.refuse(call, THROTTLED) and world.offer(call))
        else:
            world.after(0.1, lambda: world.accept(call))
            world.after(rng.uniform(0.5, 2), lambda: world.settle(call, 5, 5))

    world._on_sent = on_sent
    for _ in range(5000):
        world.call()
    world.run(until=200)
    assert peak > 20


def test_server_faults_do_not_cut_and_do_not_hold_a_slot():
    world = World(Limits(max_concurrency=1))
    failing, other = world.call(), world.call()
    assert world.times == [0.0]
    assert world.refuse(failing, TRANSIENT)
    world.offer(failing)
    assert [call for _, call in world.sent] == [failing, other], "the other goes while the first backs off"
    assert world.core.window.size == 1
    world.settle(other, 1, 1)
    world.run(until=10)
    assert world.sent[-1][1] is failing
    assert world.times[-1] == pytest.approx(0.375)


def test_faults_beyond_the_retry_budget_wait_the_longest_and_are_not_lost():
    world = World(Limits(start_concurrency=1000, max_concurrency=1000))
    calls = [world.call() for _ in range(100)]
    assert all(world.refuse(call, TRANSIENT) for call in calls)
    waits = sorted(call.not_before - world.now for call in calls)
    assert sum(wait <= 0.5 for wait in waits) == 10 + 20
    assert all(15.0 <= wait <= 30.0 for wait in waits[30:])
    assert world.core.window.size == 1000


def test_the_users_backoff():
    world = World(Limits(backoff_first=4.0, backoff_most=6.0))
    call = world.call()
    waits = []
    for _ in range(4):
        assert world.refuse(call, TRANSIENT)
        waits.append(call.not_before - world.now)
        world.offer(call)
        world.run(until=world.now + 10)
    assert waits == [pytest.approx(3.0), *[pytest.approx(4.5)] * 3]  # times the middle of the jitter


def test_a_fault_may_name_its_own_wait():
    world = World()
    call = world.call()
    assert world.refuse(call, TRANSIENT, retry_after=7.0)
    world.offer(call)
    world.run(until=20)
    assert world.times[1] == pytest.approx(7.0)


def test_the_gate_holds_everybody_back_and_the_refused_call_goes_first():
    world = World(Limits(max_concurrency=2, adaptive=False))
    first, second = world.call(), world.call()
    third = world.call()
    assert world.refuse(first, THROTTLED, retry_after=3.0)
    world.offer(first)
    world.settle(second, 1, 1)
    assert len(world.sent) == 2
    world.run(until=10)
    assert [call for _, call in world.sent[2:]] == [first, third]
    assert world.times[2] == pytest.approx(3.0)


def test_a_wait_of_more_than_a_minute_is_the_callers_to_hear():
    world = World()
    call, other = world.call(), world.call()
    assert not world.refuse(call, THROTTLED, retry_after=3600.0)
    assert world.core.gate.until < 1.0, "the others are not hung for an hour"
    assert world.refuse(other, THROTTLED, retry_after=30.0)


def test_a_longer_retry_after_in_the_same_episode_counts():
    world = World()
    calls = [world.call() for _ in range(3)]
    for call, wait in zip(calls, (2.0, 9.0, 1.0), strict=True):
        assert world.refuse(call, THROTTLED, retry_after=wait)
    assert world.core.gate.until == 9.0
    assert world.core.window.episodes == 1


def test_a_refusal_that_a_visible_bucket_explains_cuts_nothing():
    world = World(Limits(start_concurrency=100))
    calls = [world.call(100, 100) for _ in range(100)]
    empty = {"tokens": Budget(60_000, 20)}
    assert world.refuse(calls[0], THROTTLED, rate=empty)
    assert world.core.window.size == 100
    world.offer(calls[0])
    for call in calls[1:]:
        world.accept(call, {"tokens": Budget(60_000, 30_000)})
    world.run(until=1)
    assert len(world.sent) > 100, "the bucket paces it now"


def test_full_buckets_in_the_headers_explain_nothing():
    world = World(Limits(start_concurrency=100))
    calls = [world.call(100, 100) for _ in range(100)]
    for call in calls[1:]:
        world.accept(call)
        world.settle(call, 100, 100)
    assert world.refuse(calls[0], THROTTLED, rate={"tokens": Budget(60_000, 59_000)})
    assert world.core.window.size < 100


def test_overload_cuts_to_what_is_served():
    world = World(Limits(start_concurrency=100))
    calls = [world.call() for _ in range(100)]
    for call in calls[:75]:
        world.accept(call)
    world.run(until=0.2)
    limit = world.core.window.size
    assert world.refuse(calls[-1], OVERLOADED)
    base = 99
    assert limit > 100
    assert world.core.window.size == pytest.approx(75, abs=0.5), (base, limit)


def test_attempts_run_out():
    world = World()
    call = world.call()
    for attempt in range(1, 9):
        assert call.attempts == attempt
        again = world.refuse(call, THROTTLED, retry_after=0.5)
        assert again is (attempt < 8)
        if again:
            world.offer(call)
            world.run(until=world.now + 5)


@pytest.mark.parametrize(("own", "limiters", "attempts"), [(None, 2, 3), (0, 2, 1), (4, None, 5)])
def test_max_retries_counts_every_further_attempt(own, limiters, attempts):
    world = World(Limits(max_retries=limiters))
    call = Call(Cost(1), max_retries=own)
    world.offer(call)
    while world.refuse(call, THROTTLED, retry_after=0.1):
        world.offer(call)
        world.run(until=world.now + 5)
    assert call.attempts == attempts


def test_nothing_is_lost_or_doubled_by_ending_twice():
    world = World(Limits(max_concurrency=1))
    call = world.call()
    world.settle(call, 1, 1)
    world.settle(call, 1, 1)
    world.core.refund(call, True, world.now)
    assert not world.refuse(call, THROTTLED)
    assert world.core.window.in_flight == 0
    assert world.core.window.size == 1


def test_acquiring_twice_is_a_mistake_that_says_so():
    world = World(Limits(max_concurrency=1))
    call = world.call()
    with pytest.raises(RuntimeError, match="held"):
        world.core.try_now(call, 0.0)
    queued = world.call()
    with pytest.raises(RuntimeError, match="waiting"):
        world.core.try_now(queued, 0.0)


# -- headers ----------------------------------------------------------------------------------------------------------


def test_an_empty_bucket_in_the_headers_stops_the_sending_until_it_fills():
    world = World(Limits(start_concurrency=100))
    first = world.call()
    world.accept(first, {"requests": Budget(60, 0)})
    for _ in range(5):
        world.call()
    world.run(until=10)
    assert world.times == pytest.approx([0, 1, 2, 3, 4, 5])


def test_a_spent_daily_quota_fails_at_once_with_the_wait():
    world = World()
    world.accept(world.call(), {"requests": Budget(1000, 0, reset=7200.0, window=86400.0)})
    call = world.call()
    assert world.failed == [call]
    assert isinstance(call.error, QuotaExceededError)
    assert call.error.retry_after == pytest.approx(86.4)
    assert "daily quota of requests" in str(call.error)
    assert world.core.waiting == 0
    world.run(until=87)
    assert world.call() is world.sent[-1][1], "no memory of the failure"


# -- politeness -------------------------------------------------------------------------------------------------------


def test_politeness_is_per_worker_and_never_delays_the_first():
    world = World(Limits(max_concurrency=3, min_interval=10.0, adaptive=False))
    served_in(world, 1.0)
    for _ in range(7):
        world.call()
    world.run(until=100)
    assert world.times == pytest.approx([0, 0, 0, 10, 10, 10, 20])


def test_politeness_adds_nothing_to_answers_that_take_longer():
    world = World(Limits(max_concurrency=1, min_interval=2.0, adaptive=False))
    served_in(world, 5.0)
    for _ in range(3):
        world.call()
    world.run(until=100)
    assert world.times == pytest.approx([0, 5, 10])


def test_a_slot_that_was_never_used_does_not_cool():
    world = World(Limits(max_concurrency=1, min_interval=60.0, adaptive=False))
    call = world.call()
    world.core.withdraw(call, 0.0)
    other = world.call()
    assert world.sent[-1] == (0.0, other)
    assert call.attempts == 0


# -- tenants ----------------------------------------------------------------------------------------------------------


def test_an_interactive_call_waits_for_one_slot_and_not_for_the_batch():
    world = World(Limits(max_concurrency=10, adaptive=False))
    served_in(world, 1.0)
    for number in range(2000):
        world.after(0.001 * number, lambda: world.call(tenant="batch"))
    waits = []
    for number in range(50):

        def ask():
            call = world.call(tenant="person")
            world.after(30, lambda: waits.append(call.queued))

        world.after(5 + number, ask)
    world.run(until=100)
    assert len(waits) == 50
    assert max(waits) <= 1.0 + 1e-6
