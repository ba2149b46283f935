"""The bridge between a library's threads and the event loops of its callers; every local engine streams over it.

Requests go in through a thread-safe queue (`Crew`), events come out in batches: a thread calls `Feed.send`, and however
many tokens of however many streams are under way, a loop has at most one wake-up pending (`_Bridge`). The loop that
called never waits for the library, and the library never waits for a loop.

Rule: a `Feed` is touched on its own loop only; a thread may call `send`, `end` and `fail`, and read `cancelled`.

The threads are plain daemon threads and not anyio portals, on purpose. A portal runs an event loop, which a blocking
decode call has no use for, and the interpreter joins its thread before any exit handler can tell it to stop: a program
that forgot to close its engine would never end. Daemon threads alone are no better: a library that still computes while
the process tears down its memory aborts. So whatever owns threads registers with `close_at_exit` and is stopped, and
joined, while Python still works. Loading and closing, which do end by themselves, run on anyio's own worker threads
(`in_thread`).
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..errors import AsyncInferError, EngineClosedError, EngineError
from ..loops import Loop, LoopClosed, Waiter, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..events import Event
    from ..limits import RateHeaders

_log = logging.getLogger("asyncinfer")

JOIN_GRACE = 60.0
"""Seconds that closing waits for a thread that is inside its library (a long prefill on a slow machine)."""

_TICK = 0.001
"""Seconds between two looks for mail; the selectors of most loops wait no shorter."""

_OFTEN = 0.003
"""Seconds between two wake-ups of a loop below which it looks by itself."""

_UNREAD = 4096
"""Deliveries waiting for one loop from which on it is asked whether it still lives."""

J = TypeVar("J")
T = TypeVar("T")

# -- events out --------------------------------------------------------------------------------------------------------


class _Bridge:
    """All that threads have to say to one loop, with at most one wake-up of it pending.

    To wake a loop that sleeps costs both sides tens of microseconds, and the thread may then wait for the interpreter
    until the loop has done its part. A small model makes a token in less. So a loop that was woken twice within
    `_OFTEN` looks for mail by itself, every `_TICK`, until there was none for a while; meanwhile only the beginning and
    the end of a stream wake it. (Network drivers do the same: Salim, Olsson, Kuznetsov, "Beyond Softnet", 2001.) A
    token waits for a tick at most, and only where tokens come that fast.
    """

    __slots__ = ("__weakref__", "_found", "_looking", "_loop", "_mail", "_ringing")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._mail: deque[tuple[Feed, Sequence[Event], _End | None]] = deque()
        self._ringing = False  # a wake-up is on its way
        self._looking = False  # the loop comes by itself
        self._found = float("-inf")  # when mail was there, on the loop's clock

    def post(self, *mail: tuple[Feed, Sequence[Event], _End | None]) -> None:
        """Any thread. Raises `LoopClosed`."""
        self._mail.extend(mail)
        # Two threads may both see False: one wake-up too many, never one too few. A wake-up that was swallowed by a
        # dying loop shows in the mail that piles up.
        if len(self._mail) < _UNREAD:
            if self._ringing:
                return
            if self._looking and all(end is None and feed.begun for feed, _, end in mail):
                return
        self._ringing = True
        try:
            self._loop.soon(self._woken)
        except LoopClosed:
            self._mail.clear()
            self._ringing = False
            raise

    def _woken(self) -> None:
        self._ringing = False  # before the mail is read: what is posted from here on asks for a wake-up of its own
        now = self._loop.time()
        often, self._found = now - self._found < _OFTEN, now
        self._deliver()
        if often and not self._looking:
            self._looking = True
            try:
                self._loop.repeat(_TICK, self._look)
            except LoopClosed:  # it is about to end, and nobody is left to read
                self._looking = False

    def _look(self) -> bool:
        """Deliver what is there; whether to look again."""
        now = self._loop.time()
        if not self._mail and now - self._found > _OFTEN:
            self._looking = False
            if not self._mail:
                return False
            self._looking = True  # posted between the two lines, perhaps by one who saw that the loop comes by itself
        if self._mail:
            self._found = now
            self._deliver()
        return True

    def _deliver(self) -> None:
        mail = self._mail
        for _ in range(len(mail)):
            feed, events, end = mail.popleft()
            feed.receive(events, end)


# Its streams keep a bridge, and with it the loop. Weak keys would keep both for ever: the value leads back to the key.
_bridges: weakref.WeakValueDictionary[Loop, _Bridge] = weakref.WeakValueDictionary()
_bridges_lock = threading.Lock()


def _bridge(loop: Loop) -> _Bridge:
    with _bridges_lock:
        found = _bridges.get(loop)
        if found is None:
            found = _bridges[loop] = _Bridge(loop)
        return found


class _End:
    """How a stream ended; ``error`` is None for a complete answer."""

    __slots__ = ("error",)

    def __init__(self, error: AsyncInferError | None = None) -> None:
        self.error = error


class Feed:
    """One stream on its way from a thread to a task: the `Source` of every local engine.

    Made on the loop of the caller. The queue between both is bounded by the answer's own length.

    Args:
        on_abort: called once, on the loop's thread, when the caller loses interest before the end.

    Attributes:
        cancelled: the caller has gone, the work is for nothing. Read it once for each step.
        begun: something has reached the loop.
    """

    __slots__ = (
        "__weakref__",
        "_end",
        "_events",
        "_on_abort",
        "_waiter",
        "begun",
        "bridge",
        "cancelled",
        "loop",
        "rate",
        "request_id",
    )

    def __init__(self, on_abort: Callable[[], None] | None = None) -> None:
        self.loop = running()
        self.rate: RateHeaders = {}
        self.request_id: str | None = None
        self.cancelled = False
        self.begun = False
        self.bridge = _bridge(self.loop)
        self._events: list[Event] = []
        self._end: _End | None = None
        self._waiter: Waiter | None = None
        self._on_abort = on_abort

    # -- the thread's side -------------------------------------------------------------------------------------------

    def send(self, events: Sequence[Event]) -> None:
        """Hand over the events of one step."""
        self._post(events, None)

    def end(self, events: Sequence[Event] = ()) -> None:
        """Hand over the last events: the answer is complete."""
        self._post(events, _End())

    def fail(self, error: AsyncInferError) -> None:
        """The answer breaks off here."""
        self._post((), _End(error))

    def _post(self, events: Sequence[Event], end: _End | None) -> None:
        try:
            self.bridge.post((self, events, end))
        except LoopClosed:  # nobody is left to read
            self.cancelled = True

    # -- the loop's side ---------------------------------------------------------------------------------------------

    def receive(self, events: Sequence[Event], end: _End | None) -> None:
        """Called by the bridge, on the loop."""
        self.begun = True
        if self._end is not None:
            return
        self._events += events
        self._end = end
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()

    async def pull(self) -> list[Event] | None:
        """Everything that has arrived, at least one event; None at the end."""
        while not self._events:
            end = self._end
            if end is not None:
                if end.error is not None:
                    raise end.error
                return None
            self._waiter = waiter = self.loop.waiter()
            await waiter.wait()
        events, self._events = self._events, []
        return events

    def abort(self) -> None:
        """Free the sequence within one step of the engine."""
        if self._end is not None:
            return
        self.cancelled = True
        self._events = []
        self._end = _End(EngineClosedError("the stream was aborted before its end"))
        self._wake()
        if self._on_abort is not None:
            self._on_abort()

    async def aclose(self) -> None:
        """Nothing to give back: the sequence was freed with its last token."""
        self.abort()


def send_all(step: Sequence[tuple[Feed, Sequence[Event], bool]]) -> None:
    """Any thread: what many streams have to say after one step; for each stream its events, and whether it is complete.

    Everything is posted before a loop is woken, so that the thread that decodes hands the interpreter over once, not
    once for each stream.
    """
    mail: dict[_Bridge, list[tuple[Feed, Sequence[Event], _End | None]]] = {}
    for feed, events, ended in step:
        mail.setdefault(feed.bridge, []).append((feed, events, _End() if ended else None))
    for bridge, letters in mail.items():
        try:
            bridge.post(*letters)
        except LoopClosed:
            for feed, _, _ in letters:
                feed.cancelled = True


# -- requests in -------------------------------------------------------------------------------------------------------


class Crew(Generic[J]):
    """Named daemon threads that take jobs from one queue, in order.

    Args:
        name: what the threads are called.
        size: how many there are at most; each starts with the first job that finds no idle one.
        work: does one job; it must not raise, but if it does, the job's own error handling is ``on_death``.
        on_death: called with a job whose ``work`` raised, and the exception.
    """

    def __init__(
        self, name: str, size: int, work: Callable[[J], None], on_death: Callable[[J, BaseException], None]
    ) -> None:
        self._name = name
        self._size = size
        self._work = work
        self._on_death = on_death
        self._jobs: queue.SimpleQueue[J | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._idle = 0
        self._closed = False

    def submit(self, job: J) -> None:
        """Any thread. Raises `EngineClosedError` after `close`."""
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine is closed")
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._size:
                thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._jobs.put(job)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            try:
                self._work(job)
            except BaseException as error:  # noqa: BLE001 -- the job's caller gets it; the crew lives on
                self._on_death(job, error)
            del job
            with self._lock:
                # A job that was queued for want of a thread is already waiting for this one.
                if self._jobs.qsize() == 0:
                    self._idle += 1

    def close(self) -> list[J]:
        """Take no more jobs; returns those never started, whose callers are to be told. Idempotent, any thread."""
        with self._lock:
            self._closed = True
        left: list[J] = []
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                left.append(job)
        for _ in self._threads:
            self._jobs.put(None)
        return left

    def join(self, grace: float = JOIN_GRACE) -> None:
        """Wait for the jobs that were running when it was closed; blocks. Raises as `join_all`."""
        join_all(self._threads, grace)


def join_all(threads: Sequence[threading.Thread], grace: float = JOIN_GRACE) -> None:
    """Wait for threads that have been told to end.

    Raises:
        EngineError: one of them has not after ``grace`` seconds; it is left behind rather than waited for.
    """
    import time

    by = time.monotonic() + grace
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, by - time.monotonic()))
    stuck = [thread.name for thread in threads if thread.is_alive() and thread is not threading.current_thread()]
    if stuck:
        raise EngineError(f"{', '.join(stuck)} did not end within {grace:g} s; its memory is not given back")


# -- starting and stopping ---------------------------------------------------------------------------------------------


class Closable(Protocol):
    """What owns threads of a library."""

    def close(self) -> None:
        """Stop the work, join the threads, free the library's memory. Idempotent; may block."""


_open: weakref.WeakSet[Any] = weakref.WeakSet()
_open_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # what a fork inherits has no threads, and is its parent's to close
    os.register_at_fork(after_in_child=_open.clear)


def close_at_exit(thing: Closable) -> None:
    """Close ``thing`` before the interpreter ends, if nobody has until then (and it still exists)."""
    with _open_lock:
        _open.add(thing)
        # What is registered last runs first: before anything that a library has registered for itself until now.
        atexit.unregister(_close_all)
        atexit.register(_close_all)


def _close_all() -> None:
    with _open_lock:
        things = list(_open)
    for thing in things:
        try:
            thing.close()
        except Exception:  # noqa: BLE001 -- the others must be closed too
            _log.exception("closing %r at exit", thing)


async def in_thread(fn: Callable[[], T], *, abandon: bool = False) -> T:
    """Run a blocking call off the loop.

    Args:
        fn: what to call; it must end by itself.
        abandon: a cancelled caller leaves at once and ``fn`` ends on its own; else the call is waited for, shielded.
    """
    import anyio
    import anyio.to_thread

    limiter = anyio.CapacityLimiter(1)  # never behind the application's own blocking calls
    with anyio.CancelScope(shield=not abandon):
        result = await anyio.to_thread.run_sync(fn, abandon_on_cancel=abandon, limiter=limiter)
    return result  # noqa: RET504 -- to a type checker, the scope may swallow the return
