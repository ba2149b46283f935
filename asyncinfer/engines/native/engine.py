"""`NativeTextInferenceEngine`: the public class. It owns one loaded model, and hands requests to its runner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..local.engine import LocalEngine

if TYPE_CHECKING:
    from ...request import Request
    from ..local.ask import Ask
    from ..source import Source
    from .row import Manner
    from .runner import Runner
    from .settings import Settings

_UNKNOWN = frozenset({"extra_body", "parallel_tool_calls", "reasoning_effort", "strict_params"})
"""`GenerationParams` fields that mean nothing to a model in this process."""

_AT_ONCE = 8
"""Requests that the way over ``generate`` takes together where ``batch_size`` is None."""


class NativeTextInferenceEngine(LocalEngine["Settings", "Runner"]):
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
    usual_slots = 32

    @classmethod
    def get_supported_params(cls) -> set[str]:
        from ...params import GenerationParams

        return set(GenerationParams.model_fields) - _UNKNOWN

    def read_settings(self) -> Settings:
        from .settings import read

        return read(self.model_params)

    def make(self) -> Runner:
        from .runner import Runner

        return Runner(self._settings)

    def learn(self, worker: Runner) -> None:
        self.slots = worker.slots

    def begin(self, worker: Runner, ask: Ask, request: Request) -> Source:
        from ..worker import Feed

        feed = Feed()
        worker.submit(ask, _manner(request), feed)
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
