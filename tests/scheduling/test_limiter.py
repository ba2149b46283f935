"""The async shell on asyncio and trio: waiting, waking, cancelling, threads, loops that end."""

from __future__ import annotations

import gc
import random
import threading
import time

import anyio
import pytest
from anyio.lowlevel import checkpoint

from asyncinfer.errors import ConfigError, QuotaExceededError, RetryKind
from asyncinfer.limits import Budget, Cost, Limits
from asyncinfer.scheduling import Limiter, Ticket, shared_limiter

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def fixed(size: int, **more) -> Limiter:
    return Limiter(Limits(max_concurrency=size, adaptive=False, **more))


async def held(limiter: Limiter, **more) -> Ticket:
    ticket = limiter.ticket(Cost(10, 0, 10), **more)
    await ticket.acquire()
    return ticket


async def until(condition, seconds: float = 5.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.001)


async def test_the_free_path_does_not_suspend():
    limiter = fixed(1)
    coroutine = limiter.ticket(Cost()).acquire()
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert limiter.snapshot().in_flight == 1


async def test_first_come_first_served():
    limiter = fixed(1)
    order = []

    async def one(number):
        ticket = await held(limiter)
        order.append(number)
        await checkpoint()
        ticket.settle()

    first = await held(limiter)
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(one, number)
            await until(lambda number=number: limiter.snapshot().waiting == number + 1)
        first.settle()
    assert order == list(range(50))
    state = limiter.snapshot()
    assert (state.in_flight, state.waiting) == (0, 0)
    assert state.sent == state.accepted == 51


async def test_queued_time_and_attempts_are_counted():
    limiter = fixed(1)
    first = await held(limiter)
    second = limiter.ticket(Cost())
    async with anyio.create_task_group() as group:
        group.start_soon(second.acquire)
        await until(lambda: limiter.snapshot().waiting == 1)
        await anyio.sleep(0.02)
        first.settle()
    assert first.attempts == second.attempts == 1
    assert first.queued == 0
    assert 0.015 < second.queued < 5


async def test_a_cancelled_waiter_leaves_the_queue():
    limiter = fixed(1)
    first = await held(limiter)
    with anyio.move_on_after(0.01) as scope:
        await limiter.ticket(Cost()).acquire()
    assert scope.cancelled_caught
    assert limiter.snapshot().waiting == 0
    first.settle()
    (await held(limiter)).settle()


async def test_granted_and_cancelled_in_one_tick_hands_the_slot_on():
    limiter = fixed(1)
    first = await held(limiter)
    got = []

    async def doomed(scope):
        with scope:
            ticket = await held(limiter)
            got.append("doomed")
            ticket.settle()

    async def next_in_line():
        ticket = await held(limiter)
        got.append("next")
        ticket.settle()

    scope = anyio.CancelScope()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(doomed, scope)
            await until(lambda: limiter.snapshot().waiting == 1)
            group.start_soon(next_in_line)
            await until(lambda: limiter.snapshot().waiting == 2)
            scope.cancel()
            first.settle()
    assert got == ["next"]
    assert limiter.snapshot().in_flight == 0


@pytest.mark.parametrize("seed", [1, 2])
async def test_torture_no_slot_is_lost_or_doubled(seed):
    """Thousands of waiters, cancelled at random moments, refused, refunded: at the end every slot is there."""
    rng = random.Random(seed)
    limiter = fixed(3)
    running = peak = done = 0

    async def one():
        nonlocal running, peak, done
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            ticket = limiter.ticket(Cost(5, 0, 5), tenant=rng.choice("abc"), max_retries=3)
            try:
                for _ in range(3):
                    await ticket.acquire()
                    running += 1
                    peak = max(peak, running)
                    try:
                        if rng.random() < 0.7:
                            await checkpoint()
                    finally:
                        running -= 1
                    if rng.random() < 0.8 or not ticket.refuse(RetryKind.THROTTLED, retry_after=0.0001):
                        break
            finally:
                (ticket.settle if rng.random() < 0.5 else ticket.refund)()
        done += 1

    scopes: list[anyio.CancelScope] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(2500):
                group.start_soon(one)
                if rng.random() < 0.3:
                    await checkpoint()
                if scopes and rng.random() < 0.6:
                    rng.choice(scopes).cancel()
    state = limiter.snapshot()
    assert done == 2500
    assert peak <= 3
    assert (state.in_flight, state.waiting, state.backing_off) == (0, 0, 0)
    with anyio.fail_after(5):
        for _ in range(3):
            await held(limiter)
    assert limiter.snapshot().in_flight == 3


async def test_a_bucket_opens_by_its_timer_alone():
    limiter = Limiter(Limits(requests_per_minute=3000))
    started = time.monotonic()
    for _ in range(60):
        (await held(limiter)).settle()
    taken = time.monotonic() - started
    assert 0.15 < taken < 5, "50 at once, and 50 a second"


async def test_500_tasks_at_ten_a_minute_send_one_at_once():
    """Fault: a limiter that counts only ended calls lets all 500 through."""
    limiter = Limiter(Limits(requests_per_minute=10))
    sent = []

    async def one():
        ticket = await held(limiter)
        sent.append(ticket)
        ticket.refuse(RetryKind.NEVER)  # a refused call counts, too

    async with anyio.create_task_group() as group:
        for _ in range(500):
            group.start_soon(one)
        await until(lambda: limiter.snapshot().waiting == 499)
        await anyio.sleep(0.1)
        group.cancel_scope.cancel()
    assert len(sent) == 1
    assert limiter.snapshot().waiting == 0


async def test_cancelling_before_the_head_keeps_the_request_counted_and_returns_the_tokens():
    limiter = Limiter(Limits(requests_per_minute=60, tokens_per_minute=60_000))
    ticket = await held(limiter)
    ticket.refund()
    requests, tokens = limiter.snapshot().buckets
    assert requests.available < 0.5
    assert tokens.available == 1000
    never_sent = Limiter(Limits(requests_per_minute=60))
    ticket = await held(never_sent)
    ticket.refund(sent=False)
    assert never_sent.snapshot().buckets[0].available == 1


async def test_no_thread_and_no_task_per_release():
    limiter = fixed(2)
    threads = threading.active_count()
    for _ in range(500):
        (await held(limiter)).settle()
    assert threading.active_count() == threads


async def test_two_threads_with_their_own_loops_share_one_limiter(anyio_backend):
    limiter = fixed(2)
    running = peak = total = 0
    lock = threading.Lock()

    async def one():
        nonlocal running, peak, total
        for _ in range(20):
            ticket = await held(limiter)
            with lock:
                running += 1
                total += 1
                peak = max(peak, running)
            await anyio.sleep(0.0005)
            with lock:
                running -= 1
            ticket.settle()

    async def many():
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)

    other = "trio" if anyio_backend == "asyncio" else "asyncio"
    threads = [threading.Thread(target=anyio.run, args=(many,), kwargs={"backend": other}) for _ in range(2)]
    for thread in threads:
        thread.start()
    await many()
    await anyio.to_thread.run_sync(lambda: [thread.join(20) for thread in threads])
    assert not any(thread.is_alive() for thread in threads)
    assert total == 300
    assert peak <= 2
    assert limiter.snapshot().in_flight == 0


async def test_settle_from_a_foreign_thread_wakes_a_waiter():
    limiter = fixed(1)
    first = await held(limiter)
    async with anyio.create_task_group() as group:

        async def waiter():
            with anyio.fail_after(5):
                (await held(limiter)).settle()

        group.start_soon(waiter)
        await until(lambda: limiter.snapshot().waiting == 1)
        await anyio.to_thread.run_sync(lambda: first.settle(output_tokens=3))
    assert limiter.snapshot().in_flight == 0


async def test_a_loop_that_ends_with_waiters_takes_nobody_with_it(anyio_backend):
    """The timer of another loop's waiter dies with that loop; ours rings all the same."""
    limiter = Limiter(Limits(requests_per_minute=600))
    for _ in range(10):
        (await held(limiter)).settle()

    async def impatient():
        with anyio.move_on_after(0.02):
            await limiter.ticket(Cost()).acquire()

    other = "trio" if anyio_backend == "asyncio" else "asyncio"
    thread = threading.Thread(target=anyio.run, args=(impatient,), kwargs={"backend": other})
    thread.start()
    with anyio.fail_after(5):
        (await held(limiter)).settle()
        (await held(limiter)).settle()
    await anyio.to_thread.run_sync(thread.join)


async def test_the_backoff_of_one_call_does_not_hold_up_another():
    limiter = fixed(1)
    failing = await held(limiter)
    assert failing.refuse(RetryKind.TRANSIENT)
    async with anyio.create_task_group() as group:
        group.start_soon(failing.acquire)
        await until(lambda: limiter.snapshot().backing_off == 1)
        other = await held(limiter)
        assert failing.attempts == 1
        other.settle()
    assert failing.attempts == 2
    assert 0.2 < failing.queued < 5


async def test_the_gate_is_shared():
    limiter = Limiter(Limits())
    first = await held(limiter)
    assert first.refuse(RetryKind.THROTTLED, retry_after=0.05)
    assert 0 < limiter.snapshot().paused <= 0.05
    started = time.monotonic()
    other = await held(limiter)
    assert time.monotonic() - started > 0.04
    other.settle()
    first.refund()


async def test_a_spent_daily_quota_is_a_typed_error():
    limiter = Limiter(Limits())
    first = await held(limiter)
    first.on_headers({"requests": Budget(1000, 0, reset=7200, window=86400)})
    first.settle()
    with pytest.raises(QuotaExceededError) as caught:
        await limiter.ticket(Cost()).acquire()
    assert caught.value.retry_after == pytest.approx(86.4, abs=1)
    assert limiter.snapshot().waiting == 0


async def test_headers_and_usage_show_in_the_snapshot():
    limiter = Limiter(Limits(), name="somebody")
    ticket = await held(limiter)
    ticket.on_headers({"tokens": Budget(60_000, 30_000)})
    ticket.settle(input_tokens=10, output_tokens=33)
    ticket.settle(input_tokens=10, output_tokens=99)
    state = limiter.snapshot()
    assert state.name == "somebody"
    assert state.mean_output_tokens == 33
    assert state.buckets[0].source == "seen"
    assert state.buckets[0].available == pytest.approx(30_000 - 33, abs=1100)
    assert (state.sent, state.accepted) == (1, 1)


async def test_giving_back_while_this_thread_holds_the_lock_is_left_to_the_holder():
    """A garbage collection may drop a waiting task, or settle, at any allocation: also inside the locked part."""
    limiter = fixed(1)
    first = await held(limiter)
    with limiter._lock:
        first.settle()
        assert first.state == "held"
    (await held(limiter)).settle()  # does not hang: the next to come does the work first
    assert limiter.snapshot().in_flight == 0


async def test_limits_that_cannot_be_kept_name_their_field():
    for field, value in [
        ("requests_per_minute", 0),
        ("tokens_per_minute", float("nan")),
        ("input_tokens_per_minute", -1),
        ("output_tokens_per_minute", "many"),
        ("max_concurrency", 0),
        ("max_concurrency", 2.5),
        ("start_concurrency", True),
        ("max_retries", -1),
        ("min_interval", float("inf")),
        ("charge", "free"),
    ]:
        with pytest.raises(ConfigError, match=field) as caught:
            Limiter(Limits(**{field: value}))
        assert caught.value.path == field
    with pytest.raises(ConfigError, match="weight"):
        Limiter(Limits()).ticket(Cost(), weight=0)


async def test_same_key_same_limiter_and_the_stricter_limit_holds():
    first = shared_limiter(("test", 1), Limits(requests_per_minute=600, max_retries=3))
    assert shared_limiter(("test", 2), Limits()) is not first
    again = shared_limiter(("test", 1), Limits(requests_per_minute=60, max_concurrency=7))
    assert again is first
    assert first.limits == Limits(requests_per_minute=60, max_concurrency=7, max_retries=3)
    shared_limiter(("test", 1), Limits(requests_per_minute=6000, max_concurrency=100))
    assert first.limits.requests_per_minute == 60
    assert first.snapshot().window == 7
    assert first.snapshot().buckets[0].limit == 60


async def test_a_limiter_that_nobody_holds_is_forgotten():
    shared_limiter(("gone",), Limits(max_concurrency=1, adaptive=False))
    gc.collect()
    found = shared_limiter(("gone",), Limits(max_concurrency=9, adaptive=False))
    assert found.snapshot().window == 9
