"""The bridge between threads and loops, with threads of our own."""

from __future__ import annotations

import gc
import threading
import weakref

import anyio
import pytest

from asyncinfer.engines import worker
from asyncinfer.engines.worker import Crew, Feed, close_at_exit, in_thread, send_all
from asyncinfer.errors import EngineClosedError, EngineError
from asyncinfer.events import Finish, FinishReason, TextDelta
from asyncinfer.loops import running

# (anyio's plugin leaves the plain functions among them alone)
pytestmark = pytest.mark.anyio


def thread(fn, *args):
    started = threading.Thread(target=fn, args=args)
    started.start()
    return started


async def drain(feed):
    out = []
    while (events := await feed.pull()) is not None:
        assert events
        out += events
    return out


async def test_everything_arrives_in_order_from_many_threads_at_once():
    feeds = [Feed() for _ in range(20)]

    def produce(number, feed):
        for at in range(200):
            feed.send([TextDelta(f"{number}:{at}")])
        feed.end([Finish(FinishReason.STOP)])

    threads = [thread(produce, number, feed) for number, feed in enumerate(feeds)]
    for number, feed in enumerate(feeds):
        events = await drain(feed)
        assert [event.text for event in events[:-1]] == [f"{number}:{at}" for at in range(200)]
        assert type(events[-1]) is Finish
        assert await feed.pull() is None
    for one in threads:
        one.join()


async def test_a_step_of_many_streams_is_one_wake_up(monkeypatch):
    loop = running()
    wakes = []
    soon = loop.soon
    monkeypatch.setattr(loop, "soon", lambda fn, *args: (wakes.append(fn), soon(fn, *args)))
    feeds = [Feed() for _ in range(32)]
    for feed in feeds:  # on the loop's own thread: nothing can be delivered in between
        feed.send([TextDelta("a")])
        feed.end()
    assert len(wakes) == 1
    for feed in feeds:
        assert len(await drain(feed)) == 1
    assert len(wakes) == 1


async def test_many_streams_are_posted_before_their_loop_is_woken(monkeypatch):
    loop = running()
    woken = []
    soon = loop.soon
    feeds = [Feed() for _ in range(3)]
    bridge = feeds[0].bridge
    monkeypatch.setattr(loop, "soon", lambda fn, *args: (woken.append(len(bridge._mail)), soon(fn, *args)))
    send_all([(feeds[0], [TextDelta("a")], False), (feeds[1], [], True), (feeds[2], [TextDelta("c")], True)])
    assert woken == [3]
    assert await feeds[0].pull() == [TextDelta("a")]
    assert await drain(feeds[1]) == []
    assert await drain(feeds[2]) == [TextDelta("c")]


def test_posting_to_a_loop_that_has_ended_cancels_the_streams():
    feeds = []

    async def main():
        feeds.extend([Feed(), Feed()])

    anyio.run(main)
    send_all([(feed, [TextDelta("a")], False) for feed in feeds])
    assert all(feed.cancelled for feed in feeds)


async def test_an_error_crosses_after_what_came_before_it():
    feed = Feed()
    thread(lambda: (feed.send([TextDelta("a")]), feed.fail(EngineError("broken")))).join()
    assert await feed.pull() == [TextDelta("a")]
    with pytest.raises(EngineError, match="broken"):
        await feed.pull()


async def test_abort_tells_the_thread_wakes_the_reader_and_drops_what_was_queued():
    aborted = []
    feed = Feed(on_abort=lambda: aborted.append(True))
    feed.send([TextDelta("a")])
    await feed.pull()
    seen = []

    async def read():
        with pytest.raises(EngineClosedError):
            await feed.pull()
        seen.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        feed.abort()
        feed.abort()
    assert seen and aborted == [True] and feed.cancelled
    feed.send([TextDelta("late")])
    with pytest.raises(EngineClosedError):
        await feed.pull()


async def test_abort_after_the_end_does_nothing():
    aborted = []
    feed = Feed(on_abort=lambda: aborted.append(True))
    feed.end()
    assert await feed.pull() is None
    feed.abort()
    await feed.aclose()
    assert await feed.pull() is None
    assert not aborted and not feed.cancelled


async def test_a_cancelled_reader_can_be_followed_by_another():
    feed = Feed()
    with anyio.move_on_after(0.01):
        await feed.pull()
    thread(feed.send, [TextDelta("a")]).join()
    assert await feed.pull() == [TextDelta("a")]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_learns_that_the_loop_has_ended(backend):
    feeds = []

    async def main():
        feeds.append(Feed())

    anyio.run(main, backend=backend)
    for _ in range(worker._UNREAD + 10):
        feeds[0].send([TextDelta("a")])
    assert feeds[0].cancelled


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_wake_up_lost_in_a_dying_loop_does_not_pile_up_mail_for_ever(backend):
    feeds = []

    async def main():
        feeds.append(Feed())
        feeds[0].bridge._ringing = True  # as if the loop had ended between the wake-up and its delivery

    anyio.run(main, backend=backend)
    for _ in range(worker._UNREAD + 10):
        feeds[0].send([TextDelta("a")])
    assert feeds[0].cancelled
    assert not feeds[0].bridge._mail


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_nothing_is_kept_of_a_loop_that_has_ended(backend):
    async def main():
        feed = Feed()
        thread(feed.end, [TextDelta("a")]).join()
        await drain(feed)
        feed.bridge._looking = True  # as if it came by itself, but not once more before its end
        feed.send([TextDelta("late")])
        return weakref.ref(feed.bridge), weakref.ref(feed.loop)

    left = anyio.run(main, backend=backend)
    gc.collect()
    assert [one() for one in left] == [None, None]


async def test_a_crew_runs_jobs_on_as_few_threads_as_it_can():
    done = []
    crew = Crew("test-crew", 3, lambda job: done.append((job, threading.current_thread().name)), lambda *_: None)
    for job in range(50):
        crew.submit(job)
    crew.close()
    await in_thread(crew.join)
    assert {name for _, name in done} <= {f"test-crew-{number}" for number in range(3)}
    assert not [one for one in threading.enumerate() if one.name.startswith("test-crew")]
    with pytest.raises(EngineClosedError):
        crew.submit(51)


async def test_a_crew_gives_back_what_it_never_began():
    gate = threading.Event()
    began = []

    def work(job):
        began.append(job)
        gate.wait()

    crew = Crew("test-crew", 2, work, lambda *_: None)
    for job in range(5):
        crew.submit(job)
    while len(began) < 2:
        await anyio.sleep(0.001)
    left = crew.close()
    gate.set()
    await in_thread(crew.join)
    assert sorted(began + left) == [0, 1, 2, 3, 4]
    assert len(began) == 2


async def test_a_job_that_raises_takes_nobody_with_it():
    died, done = [], []

    def work(job):
        if job == 1:
            raise KeyError(job)
        done.append(job)

    crew = Crew("test-crew", 1, work, lambda job, error: died.append((job, type(error))))
    for job in range(3):
        crew.submit(job)
    while len(done) < 2:
        await anyio.sleep(0.001)
    crew.close()
    crew.join()
    assert died == [(1, KeyError)] and done == [0, 2]


async def test_a_thread_that_does_not_come_back_is_reported_not_waited_for():
    gate, inside = threading.Event(), threading.Event()
    crew = Crew("test-stuck", 1, lambda _: (inside.set(), gate.wait()), lambda *_: None)
    crew.submit(0)
    await in_thread(inside.wait)
    crew.close()
    with pytest.raises(EngineError, match="test-stuck-0 did not end"):
        crew.join(grace=0.05)
    gate.set()
    crew.join()


async def test_closing_is_shielded_from_cancellation_and_loading_is_not():
    gate, ended = threading.Event(), threading.Event()
    with anyio.move_on_after(0.02) as scope:
        await in_thread(lambda: (gate.wait(), ended.set()), abandon=True)
    assert scope.cancelled_caught and not ended.is_set()
    threading.Timer(0.05, gate.set).start()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await in_thread(gate.wait)
    assert gate.is_set()
    assert await in_thread(ended.wait)


async def test_what_is_collected_is_not_closed_at_exit():
    class Thing:
        def close(self):
            pass

    thing = Thing()
    close_at_exit(thing)
    assert thing in worker._open
    del thing
    gc.collect()
    assert not [one for one in worker._open if type(one).__name__ == "Thing"]
