"""The continuous batching of Transformers, as `Paged` needs it: one run of the library, from its memory to its end.

The library samples with one set of parameters for all, so its list of logits processors is replaced by `_Step`, which
asks `Paged` for each row's token and hands the library scores in which nothing else can win. Its results are not
waited for; only what went wrong is passed on (`_Router`).

Rule: all that is touched of the library beyond its public interface is named here, and tried with one token before
anybody depends on it (`Batching.start`). Where an installed version lacks a part of it, that is `Unusable`, and the
other way through the model serves.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import EngineError
from . import attention
from .failures import out_of_memory, typed

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .loading import Loaded
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_PAGE = 32
"""Tokens of a page: what a prompt shares with another is cut to whole ones."""
_STEP_TOKENS = 512
"""The most tokens that one step computes on a CPU: longer prompts are read in pieces, so that nobody waits for them."""
_CPU_BYTES = 2 << 30
"""Memory for keys and values on a CPU, unless asked for more. Pages that nobody uses are never touched."""
_LOGGER = "ContinuousBatchingLogger"
"""The library's; it has a handler of its own, which writes to stderr."""
_NEVER = -1
"""No token: the rows decide by themselves when they end."""
_TRIAL = "asyncinfer-trial"
_NEEDED = (
    *("background_thread_status", "batch_processor", "distributed_helper", "logit_processor", "output_router"),
    "_generation_thread",
)
"""Parts of the library's manager that are no public interface."""


class Unusable(Exception):
    """This version of Transformers does not do what is needed of it, or not with this model."""


def _aside(record: logging.LogRecord) -> bool:
    """What the library says of itself is for who looks for it: what matters in it is raised, or said in a line."""
    _log.debug("Transformers: %s", record.getMessage(), exc_info=record.exc_info)
    return False


class Owner(Protocol):
    """Who picks the tokens; called by the library's thread."""

    def begin(self, requests: list[Any]) -> None:
        """A step is about to compute these requests of the library."""
        ...

    def step(self, names: list[str], scores: Any) -> Any:
        """Pick the token of each row; the scores in which only that can win."""
        ...

    def fail(self, name: str, error: Exception) -> None:
        """The library could not go on with a row, and goes on with the others."""
        ...


class _Step:
    """Stands where the library keeps its logits processors; called by its thread, once before and once after the
    computation of a step."""

    do_processing = True
    tensors_required = 0
    logits_processor = ()

    def __init__(self, batching: Batching, owner: Owner) -> None:
        self._batching = batching
        self._owner = owner
        self._names: list[str] = []

    def fill_defaults(self, tensor: Any) -> None:
        """Nothing is kept in tensors."""

    def check_kwargs(self, given: Any) -> None:
        """Requests bring none."""

    def prepare_tensor_args(self, requests_in_batch: Any, arg_storage: Any) -> Any:
        """Remember whose scores will come, in which order."""
        self._batching.begin()
        self._owner.begin(requests_in_batch)
        self._names = [request.state.request_id for request in requests_in_batch if request.has_new_token]
        return arg_storage

    def __call__(self, _ids: Any, scores: Any, _args: Any) -> Any:
        """Pick tokens."""
        self._batching.asked = True
        return self._owner.step(self._names, scores)


class _Router:
    """Stands where the library delivers its results; tokens are known from `_Step`, so only failures matter."""

    def __init__(self, batching: Batching, owner: Owner) -> None:
        self._batching = batching
        self._owner = owner

    def deliver(self, output: Any) -> None:
        """One result."""
        if output.request_id == _TRIAL:
            self._batching.tried.set()
        elif output.error is not None:
            self._owner.fail(output.request_id, EngineError(f"Transformers refused this request: {output.error}"))

    def deliver_batch(self, outputs: Any) -> None:
        """The results of one step."""
        for output in outputs:
            self.deliver(output)

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        """A failed request. When the library itself fails, it says so of every request; `Paged` then looks which of
        them can begin anew."""
        if self._batching.running and state.request_id != _TRIAL:
            self._owner.fail(state.request_id, error)


class Batching:
    """One run of the library.

    Args:
        loaded: the model.
        settings: how it was loaded.
        slots: rows that are computed together.
        owner: who picks the tokens.

    Attributes:
        asked: whether the library lets tokens be picked.
        tried: the first one has been made.
    """

    def __init__(self, loaded: Loaded, settings: Settings, slots: int, owner: Owner) -> None:
        self._loaded = loaded
        self._settings = settings
        self._slots = slots
        self._owner = owner
        self._manager: Any = None
        self._cache: Any = None
        self._scheduler: Any = None
        self._thread: threading.Thread | None = None
        self.asked = False
        self.tried = threading.Event()

    # -- its life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Lay out the memory, start the library's thread, make one token. Blocks.

        The thread is a daemon if the calling one is: it runs until it is stopped, and would keep a program from ending
        that forgot to.

        Raises:
            EngineError: there is not enough memory.
            Unusable: the library does not do what is expected of it.
        """
        was = str(self._loaded.model.config._attn_implementation)  # noqa: SLF001 -- as the library does
        logging.getLogger(_LOGGER).addFilter(_aside)
        try:
            self._manager = manager = self._make(was)
            missing = [name for name in _NEEDED if not hasattr(manager, name)]
            if missing:
                raise Unusable(f"its continuous batching has no {', '.join(missing)}")
            manager.logit_processor = _Step(self, self._owner)
            manager.output_router = _Router(self, self._owner)
            _without_gradients(manager)
            manager.start()
            self._thread = manager._generation_thread  # noqa: SLF001 -- there is no other way to wait for it
            self._try()
        except Exception as error:
            self.stop()
            if self._thread is not None:
                self._thread.join()
            self.free()
            self._loaded.model.set_attn_implementation(was)
            if isinstance(error, (Unusable, EngineError)) or out_of_memory(error):
                raise
            raise Unusable(f"{type(error).__name__}: {error}") from error

    def _try(self) -> None:
        """One token. What does not work shows here, and not with a stream that waits for ever."""
        manager, thread = self._manager, self._thread
        if thread is None:
            raise Unusable("its continuous batching has no thread")
        self.submit(_TRIAL, [self._loaded.pad], 1)
        while thread.is_alive() and not self.tried.wait(0.02):
            pass
        fatal = self.fatal
        if fatal is not None:
            raise typed(fatal, "laying out the memory of continuous batching") if out_of_memory(fatal) else fatal
        if not self.tried.is_set() or not self.asked:
            raise Unusable("it picks tokens by itself")
        processor = manager.batch_processor
        self._cache, self._scheduler = processor.cache, processor.scheduler
        if not hasattr(self._scheduler, "block_new_requests"):
            raise Unusable("its scheduler is another one")
        self.sectors(1)

    def _make(self, attention_now: str) -> Any:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        model = self._loaded.model
        own = attention_now in {"sdpa", attention.NAME} and attention.fits(model.config.get_text_config())
        if own:
            model.set_attn_implementation("sdpa")
        manager = model.init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=_NEVER, pad_token_id=self._loaded.pad),
            ContinuousBatchingConfig(
                page_size=_PAGE,
                max_requests_per_batch=self._slots,
                allow_block_sharing=self._settings.prefix_caching,
                use_async_batching=False,  # tokens are picked by the host, between two steps
                use_cuda_graph=False,  # and a graph cannot hold that
                auto_switch_to_flash=False,  # one attention for both ways through the model
                **self._memory(),
            ),
        )
        if own:
            # After the library has looked: it takes no names that it does not know, but needs no mask for them.
            attention.register()
            model.set_attn_implementation(attention.NAME)
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

    def stop(self) -> None:
        """End it, at the next step. Any thread."""
        if self._manager is not None and self._thread is not None:
            # Not the manager's `stop`: that takes the memory away while a step still computes, and complains about it.
            status = self._manager.background_thread_status
            status.request_stop(status.HARD_STOP, self._manager.distributed_helper.global_rank)

    def join(self) -> None:
        """Wait for the end."""
        if self._thread is not None:
            self._thread.join()

    def free(self) -> None:
        """Give the memory back: the library keeps its pages as long as it is there itself."""
        self._cache = self._scheduler = None
        if self._manager is not None:
            self._manager.batch_processor = None

    @property
    def running(self) -> bool:
        """Whether it takes requests: neither failed nor stopped."""
        return self._manager.background_thread_status.can_accept_new_requests() is None

    @property
    def fatal(self) -> BaseException | None:
        """What it failed of."""
        found: BaseException | None = self._manager.background_thread_status.fatal_error
        return found

    def pause(self) -> AbstractContextManager[Any]:
        """No step while this context is open. Raises `RuntimeError` if the library has ended."""
        found: AbstractContextManager[Any] = self._manager.pause()
        return found

    # -- its requests ------------------------------------------------------------------------------------------------

    def submit(self, name: str, tokens: list[int], limit: int) -> bool:
        """Begin a row. Any thread. Whether the library took it."""
        accepted = self._manager.add_request(tokens, request_id=name, max_new_tokens=limit, eos_token_id=_NEVER)
        return accepted is not None

    def cancel(self, name: str) -> None:
        """Free a row before the next step."""
        self._manager.cancel_request(name)
        if self._scheduler is not None:
            # When the memory was full, the library takes nothing new until a request has reached its limit; one that
            # is cancelled does not count there, and everybody would wait for ever.
            self._scheduler.block_new_requests = False

    def begin(self) -> None:
        """The library's thread: a step begins, its rows lie as no step's before."""
        cache = self._cache if self._cache is not None else self._manager.batch_processor.cache
        cache.asyncinfer_plan = None

    # -- its memory --------------------------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Units of memory that there are."""
        return int(self._cache.num_sectors)

    def sectors(self, tokens: int) -> int:
        """Units of memory that a row of so many tokens takes."""
        return sum(
            -(-allocator.needs_new_blocks("", 0, tokens) // allocator.blocks_per_sector)
            for allocator in self._cache.cache_allocators.values()
        )

    def room(self, most: int) -> int:
        """Tokens that one row can have when it is alone, up to ``most``."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.sectors(middle) <= self.capacity else (low, middle - 1)
        return low


def _without_gradients(manager: Any) -> None:
    """Let the library's thread compute in inference mode: cheaper than `no_grad`, which it uses itself."""
    import torch

    loop = getattr(manager, "_run_generation_loop", None)
    if loop is not None:
        manager._run_generation_loop = torch.inference_mode()(loop)  # noqa: SLF001 -- there is no other way in


def _bytes_per_token(model: Any) -> int:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * int(config.num_hidden_layers * heads * size * model.dtype.itemsize)
