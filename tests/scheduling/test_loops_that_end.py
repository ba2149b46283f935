"""Event loops that end, or are torn down, under a limiter that outlives them."""

from __future__ import annotations

import asyncio
import gc

from asyncinfer.limits import Cost, Limits
from asyncinfer.scheduling import Limiter


def test_a_limiter_outlives_its_loop():
    limiter = Limiter(Limits(requests_per_minute=6000))

    async def some():
        for _ in range(110):
            ticket = limiter.ticket(Cost())
            await ticket.acquire()
            ticket.settle()

    asyncio.run(some())
    asyncio.run(some())
    assert limiter.snapshot().accepted == 220


def test_a_loop_closed_under_its_waiters_gives_the_slot_to_the_next():
    """No cancellation here: the task just never runs again. Whoever waits elsewhere must still get the slot."""
    limiter = Limiter(Limits(max_concurrency=1, adaptive=False))
    dead = asyncio.new_event_loop()
    first = limiter.ticket(Cost())
    dead.run_until_complete(first.acquire())
    abandoned = limiter.ticket(Cost())
    task = dead.create_task(abandoned.acquire())
    dead.run_until_complete(asyncio.sleep(0))
    assert limiter.snapshot().waiting == 1
    dead.close()

    async def elsewhere():
        ticket = limiter.ticket(Cost())
        waiting = asyncio.create_task(ticket.acquire())
        await asyncio.sleep(0)
        assert limiter.snapshot().waiting == 2
        first.settle()
        await asyncio.wait_for(waiting, 5)
        ticket.settle()

    asyncio.run(elsewhere())
    assert limiter.snapshot().in_flight == 0
    assert limiter.snapshot().waiting == 0
    task._log_destroy_pending = False  # asyncio would complain about exactly what this test is about
    del task
    gc.collect()
    assert limiter.snapshot().in_flight == 0


def test_a_task_cancelled_in_the_tick_of_its_grant_hands_the_slot_on():
    limiter = Limiter(Limits(max_concurrency=1, adaptive=False))

    async def main():
        first = limiter.ticket(Cost())
        await first.acquire()
        doomed = asyncio.create_task(limiter.ticket(Cost()).acquire())
        following = asyncio.create_task(limiter.ticket(Cost()).acquire())
        await asyncio.sleep(0)
        first.settle()
        doomed.cancel()
        await asyncio.wait_for(following, 5)
        assert doomed.cancelled()
        assert limiter.snapshot().in_flight == 1

    asyncio.run(main())


def test_a_timer_set_for_a_loop_that_closed_is_taken_over():
    limiter = Limiter(Limits(requests_per_minute=1200))
    dead = asyncio.new_event_loop()
    for _ in range(20):
        ticket = limiter.ticket(Cost())
        dead.run_until_complete(ticket.acquire())
        ticket.settle()
    task = dead.create_task(limiter.ticket(Cost()).acquire())
    dead.run_until_complete(asyncio.sleep(0))
    dead.close()

    async def elsewhere():
        for _ in range(3):
            ticket = limiter.ticket(Cost())
            await asyncio.wait_for(ticket.acquire(), 5)
            ticket.settle()

    asyncio.run(elsewhere())
    task._log_destroy_pending = False
    del task
    gc.collect()
    assert limiter.snapshot().in_flight == 0
