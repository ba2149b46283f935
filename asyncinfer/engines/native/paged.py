"""The first way through the model: the continuous batching of Transformers, with our own choice of tokens.

The library's `ContinuousBatchingManager` decides which rows a step computes, and keeps their keys and values in pages
that prompts share. It samples with one set of parameters for all, so its list of logits processors is replaced by
`_Step`: that picks each row's token by the row's own parameters, makes events of it, and hands the library scores in
which nothing else can win.

The library's thread runs until it is stopped, and would keep a program from ending that forgot to. Threads inherit
being daemons from who starts them: `_watch` does, and then waits for the end, which it tells to whoever is left.

Rule: a row that is handed over is told its end exactly once, whatever happens to the library.
"""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from ...errors import AsyncInferError, EngineClosedError, EngineError
from ..worker import join_all
from . import attention
from .failures import typed
from .row import Row, advance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .loading import Loaded
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_PAGE = 32
"""Tokens of a page: what a prompt shares with another is cut to whole ones."""
_STEP_TOKENS = 512
"""The most tokens that one step computes on a CPU: longer prompts are read in pieces, so that nobody waits for them."""
_CPU_BYTES = 2 << 30
"""Memory for keys and values on a CPU, unless asked for more. Pages that nobody uses are never touched."""
_STARTING = 120.0
"""Seconds that the library may take to lay out its memory."""
_NEVER = -1
"""No token: the rows decide by themselves when they end."""


class _Step:
    """Stands where the library keeps its logits processors; called by its thread, once before and once after the
    computation of a step."""

    do_processing = True
    tensors_required = 0
    logits_processor = ()

    def __init__(self, owner: Paged) -> None:
        self._owner = owner
        self._names: list[str] = []

    def fill_defaults(self, tensor: Any) -> None:
        """Nothing is kept in tensors."""

    def check_kwargs(self, given: Any) -> None:
        """Requests bring none."""

    def prepare_tensor_args(self, requests_in_batch: Any, arg_storage: Any) -> Any:
        """Remember whose scores will come, in which order."""
        self._owner.forget_plan()
        self._names = [request.state.request_id for request in requests_in_batch if request.has_new_token]
        return arg_storage

    def __call__(self, _ids: Any, scores: Any, _args: Any) -> Any:
        """Pick tokens."""
        return self._owner.step(self._names, scores)


class _Router:
    """Stands where the library delivers its results; tokens are known from `_Step`, so only failures matter."""

    def __init__(self, owner: Paged) -> None:
        self._owner = owner

    def deliver(self, output: Any) -> None:
        """One result."""
        if output.error is not None:
            self._owner.fail(output.request_id, EngineError(f"Transformers refused this request: {output.error}"))

    def deliver_batch(self, outputs: Any) -> None:
        """The results of one step."""
        for output in outputs:
            self.deliver(output)

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        """A failed request."""
        self._owner.fail(state.request_id, error)


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
        self._rows: dict[str, Row] = {}
        self._names = count()
        plain = str(loaded.model.config._attn_implementation) == "sdpa"  # noqa: SLF001 -- as the library does
        self._own_attention = plain and attention.fits(loaded.model.config.get_text_config())
        self._lock = threading.Lock()
        self._model = threading.RLock()  # who holds it may start the library, or compute by itself
        self._manager: Any = None
        self._watcher: threading.Thread | None = None
        self._error: AsyncInferError | None = None
        self._closed = False
        self.room = loaded.context

    # -- any thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Lay out the memory, start the library's thread. Blocks. Raises `EngineError`."""
        with self._model:
            manager = self._make()
            ready = threading.Event()
            watcher = threading.Thread(
                target=self._watch, args=(manager, ready), name="asyncinfer-native-watch", daemon=True
            )
            with self._lock:
                if self._closed:
                    raise EngineClosedError("the engine is closed")
                self._manager, self._watcher, self._error = manager, watcher, None
            watcher.start()
            ready.wait()
            fatal = manager.background_thread_status.fatal_error
            if fatal is not None:
                raise typed(fatal, "laying out the memory of continuous batching")
            self.room = min(self._loaded.context, _capacity(manager, self._loaded.context))

    def add(self, row: Row) -> None:
        """Begin an answer. Raises `EngineError`."""
        if row.prepared.limit + len(row.prepared.tokens) > self.room:
            row.prepared.limit = max(1, self.room - len(row.prepared.tokens))
        while True:
            with self._lock:
                if self._closed:
                    raise EngineClosedError("the engine is closed")
                manager = self._manager
                if manager is not None:
                    name = str(next(self._names))
                    self._rows[name] = row
                    if self._submit(manager, name, row):
                        return
                    del self._rows[name]
            self._again(manager)

    def _submit(self, manager: Any, name: str, row: Row) -> bool:
        accepted = manager.add_request(
            row.prepared.tokens, request_id=name, max_new_tokens=row.prepared.limit, eos_token_id=_NEVER
        )
        return accepted is not None

    def _again(self, manager: Any) -> None:
        """The library has failed: begin anew, once for all who noticed."""
        watcher = self._watcher
        if watcher is not None:
            watcher.join(_STARTING)
        with self._model:
            if self._manager is None or self._manager is manager:
                _log.warning("native: continuous batching is started again after a failure")
                self.start()

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
        manager = self._manager
        if manager is not None and manager.is_running():
            try:
                stack.enter_context(manager.pause())
            except RuntimeError:  # it ended just now: then nobody else computes
                _log.debug("native: continuous batching ended while it was asked to pause")
        return stack

    def close(self) -> None:
        """End every row with `EngineClosedError`, join the threads. Idempotent; blocks."""
        with self._lock:
            self._closed = True
            manager, watcher = self._manager, self._watcher
            self._error = EngineClosedError("the engine was closed while this call was under way")
        if manager is not None and watcher is not None:
            # Not stop(block=True): the watcher joins the library's thread already.
            manager.stop(block=False, hard_stop=True)
            join_all([watcher])
        self._manager = None

    # -- the library -------------------------------------------------------------------------------------------------

    def _make(self) -> Any:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        settings = self._settings
        model = self._loaded.model
        if self._own_attention:
            model.set_attn_implementation("sdpa")
        manager = model.init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=_NEVER, pad_token_id=self._loaded.pad),
            ContinuousBatchingConfig(
                page_size=_PAGE,
                max_requests_per_batch=self._slots,
                allow_block_sharing=settings.prefix_caching,
                use_async_batching=False,  # tokens are picked by the host, between two steps
                use_cuda_graph=False,  # and a graph cannot hold that
                auto_switch_to_flash=False,  # one attention for both ways through the model
                **self._memory(),
            ),
        )
        manager.logit_processor = _Step(self)
        if self._own_attention:
            # After the library has looked: it takes no names that it does not know, but needs no mask for them.
            attention.register()
            self._loaded.model.set_attn_implementation(attention.NAME)
        manager.output_router = _Router(self)
        return manager

    def _memory(self) -> dict[str, Any]:
        settings, model = self._settings, self._loaded.model
        if settings.cache_tokens is None and model.device.type == "cuda":
            return {"max_memory_percent": settings.memory}
        tokens = settings.cache_tokens
        if tokens is None:
            room = _CPU_BYTES // max(1, _bytes_per_token(model))
            tokens = min(self._slots * self._loaded.context, max(room, min(self._loaded.context, 4096)))
        found: dict[str, Any] = {"num_blocks": max(4, -(-tokens // _PAGE))}
        if model.device.type == "cpu":
            found["max_batch_tokens"] = max(_STEP_TOKENS, self._slots)
        return found

    def _watch(self, manager: Any, ready: threading.Event) -> None:
        try:
            manager.start()
            thread = manager._generation_thread  # noqa: SLF001 -- there is no other way to wait for it
            while thread.is_alive() and manager.batch_processor is None:
                thread.join(0.005)
            ready.set()
            thread.join()
        except Exception as error:  # noqa: BLE001 -- whoever waits is told
            self._error = self._error or typed(error, "starting continuous batching")
        finally:
            with self._lock:
                if self._manager is manager:
                    self._manager = None
                rows, self._rows = self._rows, {}
            fatal = manager.background_thread_status.fatal_error
            ended = self._error or (EngineError("the decoder ended") if fatal is None else typed(fatal, "decoding"))
            for row in rows.values():
                row.fail(ended)
            _free(manager)
            ready.set()

    # -- the library's thread ----------------------------------------------------------------------------------------

    def step(self, names: list[str], scores: Any) -> Any:
        """Pick the token of each row; the scores in which only that can win."""
        import torch

        self._let_go()
        known = [(at, name, row) for at, name in enumerate(names) if (row := self._rows.get(name)) is not None]
        if not known:
            return scores
        mine = scores if len(known) == scores.shape[0] else scores[[at for at, _, _ in known]]
        picked = advance([row for _, _, row in known], mine)
        for (at, name, row), one in zip(known, picked, strict=True):
            if one is not None:
                scores[at, one.token] = torch.inf
            if row.ended:
                self._rows.pop(name, None)
                if one is None or row.made < row.prepared.limit:  # at the limit the library ends by itself
                    self._cancel(name)
        return scores

    def forget_plan(self) -> None:
        """A step begins: its rows lie as no step's before."""
        processor = self._manager.batch_processor if self._manager is not None else None
        if processor is not None:
            processor.cache.asyncinfer_plan = None

    def _let_go(self) -> None:
        """Free the sequences of rows that nobody waits for."""
        for name, row in list(self._rows.items()):
            if row.cancelled and self._rows.pop(name, None) is not None:
                self._cancel(name)

    def _cancel(self, name: str) -> None:
        manager = self._manager
        if manager is not None:
            manager.cancel_request(name)

    def fail(self, name: str, error: Exception) -> None:
        """The library could not go on with a row."""
        row = self._rows.pop(name, None)
        if row is not None:
            row.fail(self._error or typed(error, "decoding"))


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


def _bytes_per_token(model: Any) -> int:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_hidden_layers * heads * size * model.dtype.itemsize)


def _capacity(manager: Any, otherwise: int) -> int:
    """Tokens that one row can have when it is alone."""
    processor = manager.batch_processor
    return int(processor.cache.max_tokens_read) if processor is not None else otherwise


def _free(manager: Any) -> None:
    """The library keeps its pages as long as it is there itself."""
    manager.batch_processor = None
