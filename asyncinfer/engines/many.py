"""``generate_many``: a bounded map of ``generate`` over any source of rows.

One background task (the host) runs the workers in a task group of its own, so that no task group or cancel scope is
ever held across a yield (PEP 789). Row ``i`` starts only while ``i < consumed + window``: an endless source, a slow
consumer and one stuck row all leave memory bounded. The iterator never appears in the shared state: dropping it stops
the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from ..completion import Completion, Failure
from ..errors import AsyncInferError
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
        "idle",
        "loop",
        "ordered",
        "puller",
        "ready",
        "ready_at",
        "scope",
        "source",
        "taken",
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
        self.source: Iterator[Row] | AsyncIterator[Row] = (
            source.__aiter__() if isinstance(source, AsyncIterable) else iter(source)
        )
        self.taken = 0
        self.consumed = 0
        self.ready: deque[Completion | Failure] = deque()
        self.ready_at: dict[int, Completion | Failure] = {}
        self.exhausted = False
        self.done = False
        self.cancelled = False
        self.crash: Exception | None = None
        self.workers = 0
        self.idle: deque[Waiter] = deque()
        self.consumer: Waiter | None = None
        self.puller: Waiter | None = None
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
        self.cancelled = True
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
        except Exception as error:  # noqa: BLE001 -- delivered to the consumer
            self.crash = self.crash or error
        finally:
            self.done = True
            if self.consumer is not None:
                self.consumer.wake()
            if isinstance(self.source, AsyncIterator):
                await self._close_source()

    async def _close_source(self) -> None:
        close = getattr(self.source, "aclose", None)
        if close is None:
            return
        import anyio

        with anyio.CancelScope(shield=True):
            try:
                await close()
            except Exception as error:  # noqa: BLE001 -- delivered to the consumer
                self.crash = self.crash or error

    def _hire(self, group: Any) -> None:
        """One more worker, unless there are enough: one for each row in flight and one that waits for a slot."""
        if self.workers < self.window and not self.exhausted:
            self.workers += 1
            group.start_soon(self._work, group)

    async def _work(self, group: Any) -> None:
        def hire() -> None:
            self._hire(group)

        while not self.exhausted:
            if self.taken >= self.consumed + self.window:
                waiter = self.loop.waiter()
                self.idle.append(waiter)
                await waiter.wait()
                continue
            found, row, index = await self._next()
            if not found:
                break
            result = await self.answer(row, index, hire)
            if self.ordered:
                self.ready_at[index] = result
            else:
                self.ready.append(result)
            if self.consumer is not None and (not self.ordered or index == self.consumed):
                self.consumer.wake()
        while self.idle:
            self.idle.popleft().wake()

    async def _next(self) -> tuple[bool, Row, int]:
        """Take the next row. Several workers may ask at once; an async source is asked by one at a time."""
        source = self.source
        try:
            if isinstance(source, Iterator):
                row = next(source)
            else:
                while self.puller is not None:
                    await self._queue_for_source()
                    if self.exhausted:
                        return False, None, 0
                self.puller = self.loop.waiter()
                try:
                    row = await anext(source)
                finally:
                    puller, self.puller = self.puller, None
                    puller.wake()
        except (StopIteration, StopAsyncIteration):
            self.exhausted = True
            return False, None, 0
        except Exception as error:  # noqa: BLE001 -- the rows before it are delivered first
            self.exhausted = True
            self.crash = error
            return False, None, 0
        index = self.taken
        self.taken += 1
        return True, row, index

    async def _queue_for_source(self) -> None:
        waiter = self.loop.waiter()
        self.idle.append(waiter)
        await waiter.wait()


class Results:
    """Iterates over the results of one run."""

    __slots__ = ("_on_error", "_run", "_started", "_host_done")

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
            try:
                run.loop.soon(run.cancel)
            except LoopClosed:
                pass


class Many:
    """What ``generate_many`` returns: await it for a list, or iterate over it; ``async with`` closes it on time."""

    __slots__ = ("_answer", "_on_error", "_open", "_ordered", "_source", "_window")

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
        self._source = source
        self._window = window
        self._ordered = ordered
        self._on_error = on_error
        self._open: list[Results] = []

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
        run = _Run(self._answer, self._source, self._window, ordered, running())
        results = Results(run, self._on_error)
        return results

    async def __aenter__(self) -> Results:
        results = self._start(self._ordered)
        self._open.append(results)
        return results

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            await self._open.pop().aclose()


__all__ = ["AsyncInferError", "Many", "Results"]
