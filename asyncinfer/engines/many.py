"""``generate_many``: a bounded map of ``generate`` over any source of rows.

One background task (the host) runs the workers in a task group of its own, so that no task group or cancel scope is
ever held across a yield (PEP 789). Row ``i`` starts only while ``i < consumed + window``: an endless source, a slow
consumer and one stuck row all leave memory bounded. The iterator never appears in the shared state: dropping it stops
the run.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..completion import Completion, Failure
from ..conversation import Conversation
from ..errors import ConfigError, StreamConsumedError
from ..loops import LoopClosed, running

if TYPE_CHECKING:
    from types import TracebackType

    import anyio

    from ..loops import Loop, Waiter

Row = Any
"""What `asyncinfer.conversation.as_conversation` accepts."""
Answer = Callable[[Row, int, Callable[[], None]], Awaitable[Completion | Failure]]
"""``(row, index, on_dispatch) -> result``; must not raise but for cancellation."""


class _Run:
    """What host, workers and consumer share."""

    __slots__ = (
        "answer",
        "cancelled",
        "consumed",
        "consumer",
        "crash",
        "done",
        "exhausted",
        "feed",
        "idle",
        "loop",
        "ordered",
        "ready",
        "ready_at",
        "scope",
        "source",
        "taken",
        "waiting",
        "window",
        "workers",
    )

    def __init__(
        self, answer: Answer, source: Iterable[Row] | AsyncIterable[Row], window: int, ordered: bool, loop: Loop
    ) -> None:
        self.answer = answer
        self.ordered = ordered
        self.window = window
        self.loop = loop
        self.feed = _Feed(source) if isinstance(source, AsyncIterable) else None
        self.source: Iterator[Row] | None = None if isinstance(source, AsyncIterable) else iter(source)
        self.taken = 0
        self.consumed = 0
        self.ready: deque[Completion | Failure] = deque()
        self.ready_at: dict[int, Completion | Failure] = {}
        self.exhausted = False
        self.done = False
        self.cancelled = False
        self.crash: Exception | None = None
        self.workers = 0
        self.waiting = 0
        self.idle: deque[Waiter] = deque()
        self.consumer: Waiter | None = None
        self.scope: anyio.CancelScope | None = None

    # -- the consumer's side -----------------------------------------------------------------------------------------

    def take_ready(self) -> Completion | Failure | None:
        """The next result for the consumer, if it is there; makes room for one more row."""
        if self.ordered:
            result = self.ready_at.pop(self.consumed, None)
        else:
            result = self.ready.popleft() if self.ready else None
        if result is not None:
            self.consumed += 1
            if self.idle and not self.exhausted:
                self.idle.popleft().wake()
        return result

    def cancel(self) -> None:
        self.cancelled = self.exhausted = True  # nobody takes another row, or hires anybody to
        if self.scope is not None:
            self.scope.cancel()

    # -- the host's side ---------------------------------------------------------------------------------------------

    async def host(self) -> None:
        """Runs the workers. Never raises: a trio system task must not."""
        import anyio

        try:
            async with anyio.create_task_group() as group:
                self.scope = group.cancel_scope
                if self.cancelled:
                    group.cancel_scope.cancel()
                self._hire(group)
                if self.feed is not None:
                    await self.feed.pump(self)
        except Exception as error:  # noqa: BLE001 -- delivered to the consumer
            self.crash = self.crash or error
        finally:
            if self.feed is not None:
                self.crash = await self.feed.aclose() or self.crash
            self.done = True
            if self.consumer is not None:
                self.consumer.wake()

    async def _answer(self, row: Row, index: int, group: Any) -> Completion | Failure:
        waiting = True

        def dispatched() -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                self.waiting -= 1
                self._hire(group)

        self.waiting += 1
        result = await self.answer(row, index, dispatched)
        dispatched()  # a row may fail before it was ever sent; one that is cancelled must not bring others in
        return result

    def _hire(self, group: Any) -> None:
        """One more worker, unless there are enough: one for each row in flight, and one that waits for a slot."""
        if self.waiting == 0 and self.workers < self.window and not self.exhausted:
            self.workers += 1
            group.start_soon(self._work, group)

    async def _work(self, group: Any) -> None:
        while not self.exhausted:
            if self.taken >= self.consumed + self.window:
                waiter = self.loop.waiter()
                self.idle.append(waiter)
                await waiter.wait()
                continue
            found, row, index = await self._next()
            if not found:
                break
            result = await self._answer(row, index, group)
            if self.ordered:
                self.ready_at[index] = result
            else:
                self.ready.append(result)
            if self.consumer is not None and (not self.ordered or index == self.consumed):
                self.consumer.wake()
        while self.idle:
            self.idle.popleft().wake()

    async def _next(self) -> tuple[bool, Row, int]:
        """Take the next row: straight from a sync source, through the host from an async one."""
        if self.feed is not None:
            return await self.feed.next(self)
        try:
            row = next(self.source)  # type: ignore[arg-type]
        except StopIteration:
            self.exhausted = True
            return False, None, 0
        except Exception as error:  # noqa: BLE001 -- the rows before it are delivered first
            self.exhausted = True
            self.crash = error
            return False, None, 0
        return True, row, self._number()

    def _number(self) -> int:
        self.taken += 1
        return self.taken - 1


class _Feed:
    """Rows of an async source. Only the host's task ever touches the source: it may hold scopes of its own."""

    __slots__ = ("_demand", "_hungry", "_rows", "_source")

    def __init__(self, source: AsyncIterable[Row]) -> None:
        self._source = source.__aiter__()
        self._rows: deque[tuple[Row, int]] = deque()
        self._hungry: deque[Waiter] = deque()
        self._demand: Waiter | None = None

    async def pump(self, run: _Run) -> None:
        """The host's side: fetch a row whenever a worker is hungry, until the source ends."""
        try:
            while not run.exhausted:
                if not self._hungry:
                    self._demand = run.loop.waiter()
                    await self._demand.wait()
                    self._demand = None
                    continue
                row = await anext(self._source)
                self._rows.append((row, run._number()))  # noqa: SLF001 -- two halves of one room
                self._hungry.popleft().wake()
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 -- the rows before it are delivered first
            run.crash = error
        finally:
            run.exhausted = True
            while self._hungry:
                self._hungry.popleft().wake()

    async def next(self, run: _Run) -> tuple[bool, Row, int]:
        """A worker's side."""
        while not self._rows:
            if run.exhausted:
                return False, None, 0
            waiter = run.loop.waiter()
            self._hungry.append(waiter)
            if self._demand is not None:
                self._demand.wake()
            await waiter.wait()
        row, index = self._rows.popleft()
        return True, row, index

    async def aclose(self) -> Exception | None:
        """Close the source, in the host's task."""
        close = getattr(self._source, "aclose", None)
        if close is None:
            return None
        import anyio

        with anyio.CancelScope(shield=True):
            try:
                await close()
            except Exception as error:  # noqa: BLE001 -- delivered to the consumer
                return error
        return None


def _rows(source: Any) -> Any:
    """``source``, if it is many rows. Raises `ConfigError`: one conversation is iterable too, letter by letter."""
    one = isinstance(source, (str, bytes, Mapping, Conversation))
    if one or not isinstance(source, (Iterable, AsyncIterable)):
        raise ConfigError(
            f"expected an iterable of conversations, not {type(source).__name__}"
            + ("; for a single one write generate_many([conversation])" if one else ""),
            path="conversations",
        )
    return source


class Results:
    """Iterates over the results of one run."""

    __slots__ = ("_on_error", "_run", "_started")

    def __init__(self, run: _Run, on_error: Literal["return", "raise"]) -> None:
        self._run = run
        self._on_error = on_error
        self._started = False

    def __aiter__(self) -> Results:
        return self

    async def __anext__(self) -> Completion | Failure:
        run = self._run
        if not self._started:
            self._started = True
            run.loop.spawn(run.host)
        try:
            while True:
                result = run.take_ready()
                if result is not None:
                    if self._on_error == "raise" and isinstance(result, Failure):
                        raise result.error
                    return result
                if run.done:
                    if run.crash is not None:
                        crash, run.crash = run.crash, None
                        raise crash
                    raise StopAsyncIteration
                run.consumer = run.loop.waiter()
                await run.consumer.wait()
                run.consumer = None
        except StopAsyncIteration:
            raise
        except BaseException:
            run.cancel()
            raise

    async def aclose(self) -> None:
        """Stop all rows and return when nothing runs any more."""
        import anyio

        run = self._run
        run.cancel()
        if self._started:
            with anyio.CancelScope(shield=True):
                while not run.done:
                    run.consumer = run.loop.waiter()
                    await run.consumer.wait()

    def __del__(self) -> None:
        run = self._run
        if self._started and not run.done:
            with contextlib.suppress(LoopClosed):
                run.loop.soon(run.cancel)


class Many:
    """What ``generate_many`` returns: await it for a list, or iterate over it; ``async with`` closes it on time."""

    __slots__ = ("_answer", "_on_error", "_open", "_ordered", "_source", "_used", "_window")

    def __init__(
        self,
        answer: Answer,
        source: Iterable[Row] | AsyncIterable[Row],
        *,
        window: int,
        ordered: bool,
        on_error: Literal["return", "raise"],
    ) -> None:
        self._answer = answer
        self._source = _rows(source)
        self._window = window
        self._ordered = ordered
        if on_error not in ("return", "raise"):
            raise ConfigError(f"on_error must be 'return' or 'raise', not {on_error!r}", path="on_error")
        self._on_error = on_error
        self._used = False
        self._open: Results | None = None

    def __aiter__(self) -> Results:
        return self._start(self._ordered)

    def __await__(self) -> Generator[Any, None, list[Completion | Failure]]:
        return self._collect().__await__()

    async def _collect(self) -> list[Completion | Failure]:
        results = self._start(ordered=True)
        try:
            return [result async for result in results]
        finally:
            await results.aclose()

    def _start(self, ordered: bool) -> Results:
        if self._used:
            raise StreamConsumedError("generate_many(...) runs once; call it again for another run")
        self._used = True
        return Results(_Run(self._answer, self._source, self._window, ordered, running()), self._on_error)

    async def __aenter__(self) -> Results:
        self._open = self._start(self._ordered)
        return self._open

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            await self._open.aclose()
