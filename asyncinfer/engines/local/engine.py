"""`LocalEngine`: one loaded model and its whole life, the same whichever library computes.

An engine of a library says how its worker is made (`LocalEngine.make`) and how an answer begins (`LocalEngine.begin`).
Loading and closing run off the event loop. A load that is cancelled cannot be stopped: it ends by itself, is closed
then, and the next one waits for it, since two models at once might not fit into memory.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ...errors import EngineClosedError, EngineError, UnsupportedParameterError
from ..base import Engine

if TYPE_CHECKING:
    from ...params import GenerationParams, ModelParams, RemoteParams
    from ...request import Request
    from ..plan import Plan
    from ..source import Source
    from .ask import Ask

_log = logging.getLogger("asyncinfer")


class Settings(Protocol):
    """What the base reads of an engine's settings.

    Attributes:
        model: the model's name or place, as it was given.
        slots: answers that are made at once; None if that is known only once the model is loaded.
    """

    @property
    def model(self) -> str: ...
    @property
    def slots(self) -> int | None: ...


class Worker(Protocol):
    """A model, and the threads that compute with it.

    Attributes:
        sees: once it is loaded, whether the model reads pictures.
    """

    @property
    def sees(self) -> bool: ...

    def load(self) -> None:
        """Load the model; blocks. Raises `AsyncInferError`. If `close` came first, what was loaded is freed again."""
        ...

    def close(self) -> None:
        """End every answer with `EngineClosedError`, join the threads, free the model; blocks. Idempotent.

        Raises:
            EngineError: a thread does not come back.
        """
        ...


S = TypeVar("S", bound=Settings)
W = TypeVar("W", bound=Worker)


class LocalEngine(Engine, Generic[S, W]):
    """An engine whose model is loaded into this process, and what that means: see the module."""

    takes_prompts = True
    usual_slots = 1
    """Answers at once, where the settings do not say and the model is not loaded yet."""
    of_a_call = frozenset({"chat_template_kwargs"})
    """Fields of `ModelParams` that may be others in a call than they are in the engine."""

    def __init__(
        self,
        model_params: ModelParams | None = None,
        *,
        generation_params: GenerationParams | None = None,
        remote_params: RemoteParams | None = None,
    ) -> None:
        super().__init__(model_params, generation_params=generation_params, remote_params=remote_params)
        self._settings: S = self.read_settings()
        self.slots: int = self._settings.slots or self.usual_slots
        self._life: _Life[W] | None = None
        self._gone: threading.Event | None = None

    # -- what each engine says -----------------------------------------------------------------------------------------

    def read_settings(self) -> S:
        """The model's parameters, as this engine reads them. Raises `ConfigError`."""
        raise NotImplementedError

    def make(self) -> W:
        """A worker, not yet loaded. Raises `AsyncInferError` if there cannot be one."""
        raise NotImplementedError

    def learn(self, worker: W) -> None:
        """Take note of what is known only once the model is loaded."""

    def begin(self, worker: W, ask: Ask, request: Request) -> Source:
        """Hand a request to the worker, on the caller's loop; returns at once. Raises `AsyncInferError`."""
        raise NotImplementedError

    # -- what the pipeline asks ----------------------------------------------------------------------------------------

    async def list_models(self, *, chat_only: bool = False) -> list[str]:  # noqa: ARG002 -- one model, and it chats
        return [self._settings.model]

    async def start(self) -> None:
        from ..worker import close_at_exit, in_thread

        if self._gone is not None:
            await in_thread(self._gone.wait, abandon=True)
        worker = self.make()
        close_at_exit(worker)
        life = _Life(worker, f"asyncinfer-{self.name}-close")
        self._gone = life.gone
        try:
            await in_thread(life.load, abandon=True)
        except BaseException:
            life.drop()
            raise
        self.learn(worker)
        self._life = life
        life.ends_with(self)

    async def stop(self) -> None:
        from ..worker import in_thread

        life, self._life = self._life, None
        if life is not None and life.process == os.getpid():
            await in_thread(life.close)

    async def open(self, request: Request) -> Source:
        from .ask import read

        life = self._life
        if life is None:
            raise EngineClosedError("the engine is closed", provider=self.name)
        if life.process != os.getpid():
            raise EngineError(
                "the model was loaded by the process that this one was forked from, and its threads stayed there; make "
                'an engine of its own in each process (multiprocessing.set_start_method("spawn") starts them fresh)',
                provider=self.name,
            )
        worker = life.worker
        sees = worker.sees
        if sees:
            from ..fetched import with_data

            request = await with_data(request)
        return self.begin(worker, read(request, images=sees), request)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check(self, plan: Plan) -> None:
        super()._check(plan)
        own, asked = self.model_params, plan.template.model
        if asked is own:
            return
        leave = self.of_a_call | asked.training_only
        late = [
            f"model.{name}"
            for name in type(asked).model_fields
            if name not in leave and getattr(asked, name) != getattr(own, name)
        ]
        if not late:
            return
        why = f"{', '.join(late)} cannot be another in one call, for the model is loaded once: make another engine"
        if plan.template.generation.strict_params:
            raise UnsupportedParameterError(why, path=late[0], provider=self.name)
        if not self._warned.issuperset(late):
            self._warned.update(late)
            _log.warning("%s: %s (ignored; strict_params=True makes this an error)", self.name, why)


class _Life(Generic[W]):
    """One worker, from the moment it is made until nothing of it is left.

    Attributes:
        worker: the worker itself.
        process: number of the process that has it; a fork has its memory, and none of its threads.
        gone: set when it has been closed, and no thread loads it any more.
    """

    def __init__(self, worker: W, name: str) -> None:
        self.worker = worker
        self.process = os.getpid()
        self.gone = threading.Event()
        self._name = name
        self._first = threading.Lock()  # taken for good by whoever comes first: who loads, or who closes
        self._loaded = threading.Event()  # or failed to be, or never will be
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def load(self) -> None:
        """Load the worker, unless it has been closed already; blocks. Raises as `Worker.load`."""
        if self._first.acquire(blocking=False):
            try:
                self.worker.load()
            finally:
                self._loaded.set()

    def close(self) -> None:
        """Close the worker, once it is loaded if it is about to be; blocks. Raises as `Worker.close`."""
        if self._finalizer is not None:
            self._finalizer.detach()  # it would keep the worker for as long as there is an engine
        if self._first.acquire(blocking=False):
            self._loaded.set()
        try:
            if not self._loaded.is_set():
                with suppress(EngineError):  # it waits for its threads, but not for as long as loading may take
                    self.worker.close()  # so that the loading learns of it
                self._loaded.wait()
            self.worker.close()
        finally:
            self.gone.set()

    def drop(self) -> None:
        """Close the worker from a thread of its own: nobody waits for it, and it must not keep the model for ever."""
        threading.Thread(target=self._close_unheard, name=self._name, daemon=True).start()

    def ends_with(self, owner: object) -> None:
        """Drop the worker when its owner is collected."""
        self._finalizer = weakref.finalize(owner, self.drop)
        self._finalizer.atexit = False  # `close_at_exit` does that, and waits

    def _close_unheard(self) -> None:
        try:
            self.close()
        except EngineError as error:
            _log.warning("%s", error)
