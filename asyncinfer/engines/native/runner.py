"""A loaded model and its threads: one that prepares prompts, and one for each way through the model."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, EngineClosedError, EngineError
from ..local.several import Several
from ..worker import Crew
from .batching import Unusable
from .failures import typed
from .guide import Guides
from .loading import Loaded, load
from .paged import Paged
from .prompts import Prompts
from .row import MARKUP, Manner, Model, Row
from .text import Spelling
from .whole import Whole

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..local.ask import Ask
    from ..local.several import Voice
    from ..worker import Feed
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_SLOTS_CPU, _SLOTS_GPU = 32, 256


class _Alone:
    """Nobody else uses the model."""

    def pass_on(self) -> None:
        """Nobody waits."""


@dataclass(slots=True)
class _Job:
    ask: Ask
    manner: Manner
    feed: Feed


class Runner:
    """Answers requests with one model. Made and loaded by an engine's start, closed by its stop.

    Attributes:
        sees: the model reads pictures.
        slots: answers that are made at once.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._ending = threading.Lock()  # held by who closes: a program that ends meanwhile has to wait for it
        self._closing = False
        self._desk: Crew[_Job] | None = None
        self._paged: Paged | None = None
        self._whole: Whole
        self._loaded: Loaded
        self._prompts: Prompts
        self._guides: Guides
        self._model: Model
        self.sees = False
        self.slots = settings.slots or _SLOTS_CPU

    def load(self) -> None:
        """Load the model; blocks. Raises `AsyncInferError`. If `close` came first, what was loaded is let go again."""
        loaded = load(self._settings)
        if self._settings.slots is None and loaded.model.device.type != "cpu":
            self.slots = _SLOTS_GPU
        prompts = Prompts(loaded, self._settings)
        paged = None
        if loaded.obstacle is None:
            paged = Paged(loaded, self._settings, self.slots)
        else:
            _log.info("native: %s is not batched continuously: %s", self._settings.model, loaded.obstacle)
        with self._lock:
            if self._closing:
                return
            self._loaded, self._prompts, self._paged = loaded, prompts, paged
            self.sees = loaded.processor is not None
            self._guides = Guides(loaded.tokenizer, loaded.size, sorted(loaded.ends))
            self._model = Model(self._settings.model, Spelling(loaded.tokenizer, MARKUP), loaded.ends)
            self._whole = Whole(loaded, self._exclusive)
            self._desk = Crew("asyncinfer-native-desk", 1, self._prepare, self._died)
        if paged is not None:
            try:
                paged.start()
            except Unusable as error:
                self._paged = None
                _log.warning(
                    "native: %s is not batched continuously with this version of Transformers (%s); %s requests are "
                    "computed at a time, and others wait",
                    self._settings.model,
                    error,
                    "generation.batch_size",
                )
            except Exception as error:
                raise typed(error, "laying out the memory of continuous batching") from error

    def submit(self, ask: Ask, manner: Manner, feed: Feed) -> None:
        """Begin an answer; returns at once, any thread. Raises `EngineClosedError`, `ConfigError`."""
        desk = self._desk
        if desk is None:
            raise EngineClosedError("the engine is closed")
        if manner.beams > 1 and ask.n > manner.beams:
            raise ConfigError(
                f"generation.n is {ask.n}, and a search with {manner.beams} beams has no more answers than beams",
                path="generation.n",
            )
        if manner.beams > 1 and ask.logprobs is not None:
            raise ConfigError(
                "generation.logprobs: a beam search reports none; drop them or num_beams", path="generation.logprobs"
            )
        desk.submit(_Job(ask, manner, feed))

    def close(self) -> None:
        """End every answer with `EngineClosedError`, join the threads, let the model go; blocks. Idempotent."""
        with self._lock:
            self._closing = True
        with self._ending:
            desk, self._desk = self._desk, None
            if desk is not None:
                self._end(desk)

    def _end(self, desk: Crew[_Job]) -> None:
        for job in desk.close():
            job.feed.fail(EngineClosedError("the engine was closed while this call was under way"))
        with ExitStack() as stack:  # if one does not come to its end, the others do
            stack.callback(self._let_go)
            if self._paged is not None:
                stack.callback(self._paged.close)
            stack.callback(self._whole.close)
            desk.join()

    def _let_go(self) -> None:
        self._paged = None
        del self._loaded, self._prompts, self._guides, self._whole
        _give_back()

    def _exclusive(self) -> AbstractContextManager[Any]:
        paged = self._paged
        return nullcontext(_Alone()) if paged is None else paged.exclusive()

    # -- the desk's thread -------------------------------------------------------------------------------------------

    def _prepare(self, job: _Job) -> None:
        if job.feed.cancelled:
            return
        prompts, paged = self._prompts, self._paged
        if paged is not None:
            prompts.room = paged.room
        prepared = prompts.prepare(job.ask)
        pairs: list[tuple[Ask, Feed | Voice]] = [(job.ask, job.feed)]
        if job.ask.n > 1:
            pairs = list(Several(job.feed, job.ask.n).asks(job.ask))
        rows = [
            Row(self._model, ask, prepared, listener, self._guides.guide(ask), job.manner) for ask, listener in pairs
        ]
        if job.manner.beams > 1:
            self._whole.add(rows)
        elif paged is None or not job.manner.cache:
            for row in rows:
                self._whole.add([row])
        else:
            for row in rows:
                paged.add(row)

    @staticmethod
    def _died(job: _Job, error: BaseException) -> None:
        found = typed(error, "preparing a request")
        job.feed.fail(found if isinstance(error, Exception) else EngineError(f"the engine's desk failed: {error!r}"))


def _give_back() -> None:
    """A model is a web of objects that point at each other: its memory comes back when somebody looks."""
    import gc

    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
