"""The first way through the model: the continuous batching of Transformers, with our own choice of tokens.

The library decides which rows a step computes, and keeps their keys and values in pages that prompts share
(`Batching`). A row is handed to it when there is memory for all of it, and waits in a `Line` until then. Each row's
token is picked here, by the row's own parameters.

One thread of ours (`_watch`) starts the library and waits for its end. When a step fails, the rows of that step are
told; those that had not begun are kept, and the library is started again for them.

Rule: a row that is handed over is told its end exactly once, whatever happens to the library.
"""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from ...errors import AsyncInferError, ContextLengthError, EngineClosedError, EngineError
from ..worker import join_all
from .batching import Batching
from .failures import typed
from .line import Line
from .row import Row, advance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .loading import Loaded
    from .settings import Settings

_log = logging.getLogger("asyncinfer")


class Paged:
    """Answers of many rows at once.

    Args:
        loaded: the model.
        settings: how it was loaded.
        slots: rows that are computed together.

    Attributes:
        room: the most tokens that one row may have.
    """

    def __init__(self, loaded: Loaded, settings: Settings, slots: int) -> None:
        self._loaded = loaded
        self._settings = settings
        self._slots = slots
        self._names = count()
        self._lock = threading.Lock()  # of all below; held for moments only
        self._line = Line(slots)
        self._fresh: set[str] = set()  # rows that no step has seen
        self._batching: Batching | None = None
        self._watcher: threading.Thread | None = None
        self._closed = False
        self._model = threading.RLock()  # who holds it may start the library, or compute by itself
        self._computed: list[Any] = []  # the library's requests of the latest step
        self.room = loaded.context

    # -- any thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Lay out the memory, start the library. Blocks. Raises `EngineError`, `Unusable`."""
        started = _Started()
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine is closed")
            self._set_off(started)
        started.event.wait()
        if started.error is not None:
            raise started.error

    def add(self, row: Row) -> None:
        """Begin an answer, as soon as there is room. Raises `EngineClosedError`."""
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine is closed")
            self._line.waiting.append(row)
            if self._batching is not None:
                self._admit(self._batching)
            elif self._watcher is None:
                self._set_off(_Started())

    @contextmanager
    def exclusive(self) -> Iterator[Turns]:
        """No step is computed while somebody else uses the model; in between, `Turns.pass_on` lets one through."""
        turns = Turns(self)
        turns.take()
        try:
            yield turns
        finally:
            turns.give()

    def held(self) -> AbstractContextManager[Any]:
        """Hold the model for a moment."""
        stack = ExitStack()
        stack.enter_context(self._model)
        batching = self._batching
        if batching is not None:
            try:
                stack.enter_context(batching.pause())
            except RuntimeError:  # it ended just now: then nobody else computes
                _log.debug("native: continuous batching ended while it was asked to pause")
        return stack

    def close(self) -> None:
        """End every row with `EngineClosedError`, join the threads. Idempotent; blocks."""
        with self._lock:
            self._closed = True
            batching, watcher = self._batching, self._watcher
        if batching is not None:
            batching.stop()
        if watcher is not None:
            join_all([watcher])

    # -- with the lock -----------------------------------------------------------------------------------------------

    def _set_off(self, started: _Started) -> None:
        self._watcher = threading.Thread(
            target=self._watch, args=(started,), name="asyncinfer-native-watch", daemon=True
        )
        self._watcher.start()

    def _admit(self, batching: Batching) -> None:
        """Hand rows to the library as long as there is room for them."""
        while (row := self._line.next(batching)) is not None:
            prepared = row.prepared
            if len(prepared.tokens) + prepared.limit > self.room:
                if len(prepared.tokens) >= self.room:
                    row.fail(_too_long(row, self.room))
                    continue
                prepared.limit = self.room - len(prepared.tokens)
            name = str(next(self._names))
            self._line.running[name] = row  # first: the library may be faster
            self._fresh.add(name)
            if not batching.submit(name, prepared.tokens, prepared.limit):  # it has just ended: for the next one
                del self._line.running[name]
                self._line.waiting.appendleft(row)
                return

    # -- the watcher's thread ----------------------------------------------------------------------------------------

    def _watch(self, started: _Started) -> None:
        """Run the library, again and again as long as there are rows that it has not seen."""
        while True:
            batching = Batching(self._loaded, self._settings, self._slots, self)
            error: BaseException | None = None
            try:
                with self._model:
                    batching.start()
                self._open(batching)
                started.event.set()
                batching.join()
                error = batching.fatal
            except Exception as failure:  # noqa: BLE001 -- whoever waits is told
                error = started.error = failure
            with self._lock:
                again = self._ended(error, began=started.event.is_set())
                if not again:
                    self._watcher = None
            batching.free()
            started.event.set()
            if not again:
                return
            started = _Started()
            _log.warning("native: continuous batching is started again after a failure")

    def _open(self, batching: Batching) -> None:
        """The library is there: let rows in."""
        with self._lock:
            if self._closed:
                batching.stop()
                return
            self.room = batching.room(self._loaded.context)
            self._batching = batching
            self._admit(batching)

    def _ended(self, error: BaseException | None, *, began: bool) -> bool:
        """Tell the rows of the step that failed; whether there are others to go on with."""
        line = self._line
        rows, line.running = line.running, {}
        computed = {request.state.request_id for request in self._computed}
        self._batching, self._computed = None, []
        self._fresh.clear()
        kept = [row for name, row in rows.items() if not row.made and not row.ended and name not in computed]
        if not began or self._closed or (rows and len(kept) == len(rows)):  # the next time would be no other
            kept = []
            lost = [*rows.values(), *line.leave()]
        else:
            lost = [row for row in rows.values() if row not in kept]
        if lost:
            told = self._why(error)
            for row in lost:
                row.fail(told)
        line.waiting.extendleft(reversed(kept))
        return bool(line.waiting)

    def _why(self, error: BaseException | None) -> AsyncInferError:
        if self._closed:
            return EngineClosedError("the engine was closed while this call was under way")
        return EngineError("the decoder ended") if error is None else typed(error, "decoding")

    # -- the library's thread ----------------------------------------------------------------------------------------

    def begin(self, requests: list[Any]) -> None:
        """A step is about to compute these requests of the library."""
        self._computed = requests
        if self._fresh:
            for request in requests:
                name = request.state.request_id
                row = self._line.running.get(name) if name in self._fresh else None
                if row is not None:
                    row.cached = request.state.position_offset - request.query_length
                    self._fresh.discard(name)

    def step(self, names: list[str], scores: Any) -> Any:
        """Pick the token of each row; the scores in which only that can win."""
        running = self._line.running
        known = [(at, row) for at, name in enumerate(names) if (row := running.get(name)) is not None]
        if known:
            rows = [row for _, row in known]
            mine = scores if len(known) == len(names) else scores[[at for at, _ in known]]
            for (at, row), one in zip(known, advance(rows, mine), strict=True):
                if one is not None and (row.chooser.samples or mine is not scores):  # else it is the best anyway
                    scores[at, one.token] = _INFINITE
        if any(row.ended or row.listener.cancelled for row in list(running.values())):
            self._let_go()
        return scores

    def _let_go(self) -> None:
        """Free the sequences of rows that have ended, or that nobody waits for; others may begin."""
        with self._lock:
            batching, running = self._batching, self._line.running
            if batching is None:
                return
            for name, row in list(running.items()):
                if row.ended or row.cancelled:
                    del running[name]
                    self._fresh.discard(name)
                    if not row.ended or row.made < row.prepared.limit:  # at the limit the library ends by itself
                        batching.cancel(name)
            self._admit(batching)

    def fail(self, name: str, error: Exception) -> None:
        """The library could not go on with a row."""
        with self._lock:
            row = self._line.running.pop(name, None)
            self._fresh.discard(name)
            if self._batching is not None:
                self._admit(self._batching)
        if row is not None:
            row.fail(typed(error, "decoding"))


_INFINITE = float("inf")


class _Started:
    """What becomes of a start."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.error: BaseException | None = None


class Turns:
    """The model in the hands of somebody who computes step by step, and lets the rows compute in between."""

    def __init__(self, paged: Paged) -> None:
        self._paged = paged
        self._stack: AbstractContextManager[Any] | None = None

    def take(self) -> None:
        """Wait for the model."""
        self._stack = self._paged.held()

    def give(self) -> None:
        """Let it go."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.__exit__(None, None, None)

    def pass_on(self) -> None:
        """Let the rows have one step."""
        self.give()
        self.take()


def _too_long(row: Row, room: int) -> ContextLengthError:
    return ContextLengthError(
        f"the prompt has {len(row.prepared.tokens)} tokens, and the memory for keys and values has room for {room} "
        "(model_kwargs.cache_tokens, model.model_max_length)"
    )
