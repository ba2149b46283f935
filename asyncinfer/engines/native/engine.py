"""`NativeTextInferenceEngine`: the public class. It owns one loaded model, and hands requests to its runner."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from ...errors import EngineClosedError
from ..base import Engine

if TYPE_CHECKING:
    from ...params import GenerationParams, ModelParams, RemoteParams
    from ...request import Request
    from ..source import Source
    from .row import Manner
    from .runner import Runner

_UNKNOWN = frozenset({"extra_body", "parallel_tool_calls", "reasoning_effort", "strict_params"})
"""`GenerationParams` fields that mean nothing to a model in this process."""

_AT_ONCE = 8
"""Requests that the way over ``generate`` takes together where ``batch_size`` is None."""


class NativeTextInferenceEngine(Engine):
    """Runs any model of Transformers in this process, on CPU or GPU; concurrent streams are batched continuously.

    Args:
        model_params: ``model_name`` is a folder, a Hub repository id, or ``"asyncinfer-tiny"``, the model that comes
            with the package (also used if there is no name at all); of a LoRA adapter, its base model is found.
            ``model_max_length`` bounds prompt and answer together. ``device_map`` lays the layers of one model over
            several devices (``"auto"``, ``"cuda:0,cuda:1"``): that is sharding, not tensor parallelism, and such a
            model is not batched continuously. ``model_kwargs``: ``load_in_4bit``, ``load_in_8bit``, ``bnb_4bit_*``;
            ``n_parallel`` (or ``max_num_seqs``; answers that are made at once: 32 on CPU, 256 on a GPU),
            ``cache_tokens`` (room for their keys and values), ``gpu_memory_utilization`` (share of the free memory for
            them, 0.7), ``enable_prefix_caching``, ``continuous_batching`` (False: only ``model.generate``),
            ``num_threads`` (PyTorch's, for the whole process). Those of other engines are ignored with a warning;
            anything else goes to the model's ``from_pretrained``.
        generation_params: as for every engine. ``num_beams``, ``use_cache=False`` and images go over
            ``model.generate``, ``batch_size`` requests at a time; a beam search shows its answers when they are
            complete.

    Raises, when it is first used: `MissingDependencyError` with the command that installs what is missing,
    `EngineError` for a model that cannot be found or loaded. A prompt that is too long raises `ContextLengthError`.
    """

    name = "native"
    takes_prompts = True

    def __init__(
        self,
        model_params: ModelParams | None = None,
        *,
        generation_params: GenerationParams | None = None,
        remote_params: RemoteParams | None = None,
    ) -> None:
        super().__init__(model_params, generation_params=generation_params, remote_params=remote_params)
        from .settings import read

        self._settings = read(self.model_params)
        self.slots: int = self._settings.slots or 32
        self._runner: Runner | None = None

    @classmethod
    def get_supported_params(cls) -> set[str]:
        from ...params import GenerationParams

        return set(GenerationParams.model_fields) - _UNKNOWN

    async def list_models(self, *, chat_only: bool = False) -> list[str]:  # noqa: ARG002 -- one model, and it chats
        return [self._settings.model]

    async def start(self) -> None:
        from ..worker import close_at_exit, in_thread
        from .runner import Runner

        runner = Runner(self._settings)
        close_at_exit(runner)
        try:
            await in_thread(runner.load, abandon=True)
        except BaseException:
            # Cancelled: the loading ends by itself, and then finds that nobody wants the model any more.
            _discard(runner)
            raise
        self.slots = runner.slots
        self._runner = runner
        weakref.finalize(self, _discard, runner).atexit = False

    async def stop(self) -> None:
        from ..worker import in_thread

        runner, self._runner = self._runner, None
        if runner is not None:
            await in_thread(runner.close)

    async def open(self, request: Request) -> Source:
        from ..fetched import with_data
        from ..local.ask import read
        from ..worker import Feed

        runner = self._runner
        if runner is None:
            raise EngineClosedError("the engine is closed", provider=self.name)
        if runner.sees:
            request = await with_data(request)
        ask = read(request, images=runner.sees)
        feed = Feed()
        runner.submit(ask, _manner(request), feed)
        return feed


def _manner(request: Request) -> Manner:
    """What is said about the way of computing."""
    from .row import Manner

    asked = request.generation
    return Manner(
        beams=asked.num_beams,
        cache=request.asked("use_cache") is not False,
        batch=asked.batch_size or _AT_ONCE,
        echo=not asked.exclude_prompt_from_response,
    )


def _discard(runner: Runner) -> None:
    """The engine was dropped, or never came to be: its threads must not keep the model for ever."""
    threading.Thread(target=runner.close, name="asyncinfer-native-close", daemon=True).start()
