"""An asyncio loop in a thread, for libraries that know no other, on behalf of a trio loop.

One portal for each loop that asks; it stops with that loop. Events come back over `engines.worker.Feed`; cancelling on
this side cancels on the other without waiting for it.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread

from ..errors import AsyncInferError, EngineError
from ..loops import Loop, LoopClosed, running
from .startup import Once
from .worker import Feed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .source import Source

T = TypeVar("T")

_CLOSE_GRACE = 1.0
"""Seconds granted to giving a connection back."""


class Portal:
    """The asyncio side of one loop. Made by `portal`."""

    def __init__(self) -> None:
        self._once = Once()
        self._manager: Any = None
        self.loop: Loop

    async def ready(self) -> None:
        """Return once the thread's loop runs."""
        if not self._once.ready:
            await self._once.run(self._start)

    async def _start(self) -> None:
        await anyio.to_thread.run_sync(self._enter)
        running().at_end(self._stop)

    def _enter(self) -> None:
        self._manager = anyio.from_thread.start_blocking_portal("asyncio")
        self.loop = self._manager.__enter__().call(running)

    async def _stop(self) -> None:
        if self._once.reset():
            with anyio.CancelScope(shield=True):  # the end of a loop is a cancelled place
                await anyio.to_thread.run_sync(self._manager.__exit__, None, None, None)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work``, run on the portal's loop; cancelled there if it is cancelled here."""
        await self.ready()
        results: list[T] = []
        errand = _Errand(self.loop)

        async def run() -> None:
            results.append(await work())

        errand.start(run)
        await errand.told()
        return results[0]

    async def open(self, opener: Callable[[], Awaitable[Source]]) -> Source:
        """Open a source on the portal's loop; it is read there, and its events are handed over."""
        await self.ready()
        errand = _Errand(self.loop)
        feed = Feed(on_abort=errand.cancel)

        async def run() -> None:
            source = await opener()
            feed.request_id = source.request_id
            errand.tell()
            try:
                await _relay(source, feed)
            finally:
                source.abort()

        errand.start(run)
        await errand.told()
        return feed


async def _relay(source: Source, feed: Feed) -> None:
    try:
        while not feed.cancelled and (events := await source.pull()) is not None:
            feed.send(events)
        # Before the end is told: the caller's next request then finds the connection in the pool.
        with anyio.move_on_after(_CLOSE_GRACE), suppress(AsyncInferError):
            await source.aclose()
        feed.end()
    except Exception as raw:  # noqa: BLE001 -- typed, and raised where the feed is read
        feed.fail(_typed(raw))


class _Errand:
    """One task on another loop, made and awaited on this one."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiter = running().waiter()
        self._error: Exception | None = None
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin, on the other loop."""
        try:
            # A context of its own: in a copy of this one, the other loop's tasks would believe themselves on trio.
            Context().run(self._loop.soon, self._loop.spawn, self._run, work)
        except LoopClosed as error:
            raise EngineError("the thread that speaks to the service has ended") from error

    async def told(self) -> None:
        """Wait for `tell`, or for the end. Raises what the work raised; cancels it if this is cancelled."""
        try:
            await self._waiter.wait()
        except BaseException:
            self.cancel()
            raise
        if self._error is not None:
            raise self._error

    def tell(self) -> None:
        """On the other loop: let `told` return, though the work goes on."""
        self._waiter.wake()

    def cancel(self) -> None:
        """Any thread, without waiting."""
        with suppress(LoopClosed):
            self._loop.soon(self._stop)

    def _stop(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with anyio.CancelScope() as self._scope:
                if not self._cancelled:
                    await work()
        except Exception as raw:  # noqa: BLE001 -- raised where it is awaited
            self._error = _typed(raw)
        finally:
            self._waiter.wake()


def _typed(raw: Exception) -> AsyncInferError:
    if isinstance(raw, AsyncInferError):
        return raw
    error = EngineError(f"{type(raw).__name__}: {raw}")
    error.__cause__ = raw
    return error


_portals: weakref.WeakKeyDictionary[Loop, Portal] = weakref.WeakKeyDictionary()
_portals_lock = threading.Lock()


def portal() -> Portal | None:
    """The portal of the running loop; None where that is asyncio already."""
    loop = running()
    if loop.name == "asyncio":
        return None
    with _portals_lock:
        found = _portals.get(loop)
        if found is None:
            found = _portals[loop] = Portal()
    return found
