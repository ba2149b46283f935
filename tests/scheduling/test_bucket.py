"""Buckets, the sliding ledger, and what is charged, given back and read from headers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.limits import Budget, Cost, Limits
from asyncinfer.scheduling.bucket import Bucket, Ledger
from asyncinfer.scheduling.quota import Quota


def test_bucket_says_exactly_when():
    bucket = Bucket(60, depth=10, now=0.0)
    assert bucket.opens(10, 0.0) == 0.0
    bucket.give(-10)
    assert bucket.opens(4, 1.0) == pytest.approx(4.0)
    assert bucket.opens(4, 4.0) == 4.0


def test_oversize_runs_on_a_full_bucket_and_leaves_debt():
    bucket = Bucket(60, depth=10, now=0.0)
    assert bucket.opens(100, 0.0) == 0.0
    bucket.give(-100)
    assert bucket.level == -90
    assert bucket.opens(1, 0.0) == pytest.approx(91.0)


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 40)), max_size=200),
    st.integers(1, 100),
)
def test_ledger_never_lets_a_minute_hold_more_than_the_limit(steps, limit):
    ledger = Ledger(limit)
    now = 0.0
    taken: list[tuple[float, int]] = []
    for pause, amount in steps:
        now = max(now + pause, ledger.opens(amount, now + pause))
        now = max(now, ledger.opens(amount, now))
        assert ledger.opens(amount, now) <= now
        ledger.add(amount, now)
        taken.append((now, amount))
        if amount <= limit:  # an oversize one has the minute to itself
            held = sum(size for when, size in taken if when > now - 60)
            assert held <= limit
        else:
            assert not any(size for when, size in taken[:-1] if when > now - 60)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40), st.booleans()), max_size=100))
def test_ledger_gives_back_what_it_took(steps):
    ledger = Ledger(1000)
    now = 0.0
    kept: list[tuple[float, int]] = []
    for pause, amount, back in steps:
        now += pause
        ledger.add(amount, now)
        if back:
            ledger.give_back(amount, now)
        else:
            kept.append((now, amount))
    ledger.opens(0, now)
    exact = sum(size for when, size in kept if when > now - Ledger.KEPT)
    slack = sum(size for when, size in kept if now - Ledger.KEPT - 0.25 <= when <= now - Ledger.KEPT)
    assert exact <= ledger.total <= exact + slack


def test_first_request_goes_at_once_however_low_the_limit():
    quota = Quota(Limits(requests_per_minute=5, tokens_per_minute=60), 0.0)
    need = quota.need(Cost(1000, 0, 1000))
    assert quota.opens(need, 0.0) == 0.0
    quota.take(need, 0.0)
    assert quota.opens(need, 0.0) > 30


def test_output_is_expected_by_experience_and_trued_up():
    quota = Quota(Limits(output_tokens_per_minute=60_000), 0.0)
    hold = quota.take(quota.need(Cost(10, 0, 400)), 0.0)
    assert hold.need[3] == 400, "nothing known yet: the most that it may be"
    quota.settle(hold, 0.0, 10, 100, 0)
    assert quota.mean_output == 100
    assert quota.state(0.0)[0].available == pytest.approx(900)
    assert quota.need(Cost(10, 0, 400))[3] == 100
    assert quota.need(Cost(10, 0, 50))[3] == 50


@pytest.mark.parametrize(("charge", "left"), [("actual", 900), ("settle", 900), ("reserve", 600)])
def test_the_three_ways_of_charging(charge, left):
    quota = Quota(Limits(tokens_per_minute=60_000, charge=charge), 0.0)
    hold = quota.take(quota.need(Cost(0, 0, 400)), 0.0)
    quota.settle(hold, 0.0, 0, 100, 0)
    assert quota.state(0.0)[0].available == pytest.approx(left)


def test_reserving_providers_are_charged_the_maximum_whatever_experience_says():
    quota = Quota(Limits(charge="reserve"), 0.0)
    quota.settle(quota.take(quota.need(Cost(0, 0, 400)), 0.0), 0.0, 0, 3, 0)
    assert quota.need(Cost(5, 0, 400)) == (1, 405, 5, 400)


def test_cached_tokens_do_not_count_as_input():
    quota = Quota(Limits(input_tokens_per_minute=60_000), 0.0)
    assert quota.need(Cost(500, 400, 10))[2] == 100
    hold = quota.take(quota.need(Cost(500, 0, 10)), 0.0)
    quota.settle(hold, 0.0, 500, 10, 450)
    assert quota.state(0.0)[0].available == pytest.approx(950)


def test_a_refused_request_still_counts_and_its_tokens_do_not():
    quota = Quota(Limits(requests_per_minute=60, tokens_per_minute=60_000), 0.0)
    hold = quota.take(quota.need(Cost(300, 0, 100)), 0.0)
    quota.refund(hold, request=False)
    requests, tokens = quota.state(0.0)
    assert requests.available == 0
    assert tokens.available == 1000
    hold = quota.take(quota.need(Cost(300, 0, 100)), 1.0)
    quota.refund(hold, request=True)
    assert quota.state(1.0)[0].available == 1


def test_headers_are_the_truth_less_what_they_have_not_seen():
    quota = Quota(Limits(), 0.0)
    first, second, third = (quota.take(quota.need(Cost(100, 0, 50)), 0.0) for _ in range(3))
    quota.ack(first)
    quota.sync({"requests": Budget(100, 90), "tokens": Budget(10_000, 5_000)}, 0.0)
    requests, tokens = quota.state(0.0)
    assert requests.available == 88, "two are on their way"
    assert tokens.available == 5_000 - 2 * 150 - 50, "and one is still being generated"
    quota.settle(first, 0.0, 100, 20, 0)
    assert quota.state(0.0)[1].available == 5_000 - 2 * 150 - 20
    quota.refund(second, request=False)
    quota.refund(third, request=False)
    assert quota.state(0.0)[1].available == 5_000 - 20


def test_garbage_in_headers_is_ignored():
    quota = Quota(Limits(), 0.0)
    quota.sync({"requests": Budget(0, 0), "tokens": Budget(-1, 5), "input_tokens": Budget(None, 7)}, 0.0)
    quota.sync({"output_tokens": Budget(float("nan"), 7), "requests": Budget(float("inf"), 3)}, 0.0)
    assert quota.state(0.0) == ()
    quota.sync({"requests": Budget(100, -1)}, 0.0)
    assert quota.state(0.0)[0].available == pytest.approx(100 / 60), "a limit without a count: one second deep"


def test_a_limit_that_a_header_confirms_may_be_saved_up():
    quota = Quota(Limits(requests_per_minute=60), 0.0)
    quota.sync({"requests": Budget(60, 60)}, 0.0)
    for _ in range(60):
        need = quota.need(Cost())
        assert quota.opens(need, 100.0) == 100.0
        quota.take(need, 100.0)
    assert quota.opens(need, 100.0) > 100.0


def test_a_daily_quota_is_not_waited_for():
    quota = Quota(Limits(), 0.0)
    quota.sync({"requests": Budget(1000, 0, reset=7200.0, window=86400.0)}, 0.0)
    need = quota.need(Cost())
    assert quota.exhausted(need, 0.0) == ("requests", pytest.approx(86.4))
    assert quota.exhausted(need, 40.0) is None
    quota.sync({"requests": Budget(10, 0, reset=30.0, window=86400.0)}, 100.0)
    assert quota.exhausted(need, 100.0) is None
    assert quota.opens(need, 100.0) == 130.0


def test_balance_is_kept_over_random_lives():
    """Whatever becomes of attempts, nothing stays booked as on its way or running."""
    rng = random.Random(3)
    quota = Quota(Limits(tokens_per_minute=1e9), 0.0)
    quota.sync({"tokens": Budget(1e6, 1e6)}, 0.0)
    open_holds = []
    for step in range(2000):
        open_holds.append(quota.take(quota.need(Cost(rng.randrange(500), 0, rng.randrange(1, 500))), step / 100))
        if rng.random() < 0.9:
            hold = open_holds.pop(rng.randrange(len(open_holds)))
            if rng.random() < 0.6:
                quota.ack(hold)
            if rng.random() < 0.5:
                quota.settle(hold, step / 100, rng.randrange(500), rng.randrange(500), 0)
            else:
                quota.refund(hold, request=rng.random() < 0.5)
    for hold in open_holds:
        quota.settle(hold, 20.0, None, None, 0)
    assert quota._unseen == [0, 0, 0, 0]
    assert quota._running == 0
