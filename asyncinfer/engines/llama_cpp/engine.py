"""`LlamaCppInferenceEngine`: the public class. It owns one loaded model, and hands requests to its binding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..local.engine import LocalEngine

if TYPE_CHECKING:
    from ...request import Request
    from ..local.ask import Ask
    from ..source import Source
    from .binding import Binding
    from .settings import Settings

_SUPPORTED = frozenset(
    {
        "max_new_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop_strings",
        "stop_token_ids",
        "min_new_tokens",
        "skip_special_tokens",
        "use_sampling",
        "n",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "guided_decoding",
        "tool_choice",
    }
)
"""`GenerationParams` fields that both bindings honour, but for those in `_ONLY_COMPILED`."""

_ONLY_COMPILED = frozenset({"min_new_tokens", "skip_special_tokens"})
"""Those of them that ``llama-cpp-python`` alone can honour: llama-server has no such thing for each request."""


class LlamaCppInferenceEngine(LocalEngine["Settings", "Binding"]):
    """Runs a GGUF model in this process, on CPU or GPU; concurrent streams decode together.

    Args:
        model_params: ``model_name`` is a ``.gguf`` file, a directory with one, a Hub repository id, or
            ``"asyncinfer-tiny"``, the model that comes with the package (also used if there is no name at all).
            ``model_max_length`` is the context of one conversation, in tokens; ``adapter_model`` a LoRA adapter (GGUF).
            ``model_kwargs`` are those of ``llama_cpp.Llama`` (``n_gpu_layers``, ``n_threads``, ``flash_attn``,
            ``type_k``, ``lora_path`` ...: the whole table is `options.OPTIONS`), and:

            * ``n_parallel`` (or ``n_seq_max``): sequences that decode together; 16 for models up to 256 MB, else 4.
              ``n_ctx`` is the context of each of them.
            * ``filename``: glob of the file in a directory or repository.
            * ``mmproj``: the file with the model's vision part, or a glob; one that lies beside a model that is alone
              in its folder is found, and False leaves it out.
            * ``lora``: a list of adapters, paths or ``{"path": ..., "scale": ...}``.
            * ``draft_model``, ``draft_n_max``, ``draft_n_min``, ``draft_p_min``: speculative decoding (xllamacpp).
            * ``binding``: ``"llama-cpp-python"`` or ``"xllamacpp"``; by default the former where it is installed.

            A name that llama.cpp, or this binding, does not have is named in a warning and ignored.
        generation_params: as for every engine. With ``max_new_tokens=None`` an answer may fill the context.

    Raises, when it is first used: `MissingDependencyError` with the command that installs a binding, `EngineError` for
    a model that cannot be found or loaded. A prompt longer than ``n_ctx`` raises `ContextLengthError`.
    """

    name = "llamacpp"

    @classmethod
    def get_supported_params(cls) -> set[str]:
        return set(_SUPPORTED)

    def unsupported(self, request: Request) -> list[str]:
        names = super().unsupported(request)
        asked = [name for name in request.chosen if name in _ONLY_COMPILED]
        if not asked:
            return names
        from .binding import installed

        if installed(self.model_params.model_kwargs.get("binding")) != "xllamacpp":
            return names
        fields = type(request.generation).model_fields
        return names + [name for name in asked if getattr(request.generation, name) != fields[name].get_default()]

    def read_settings(self) -> Settings:
        from .settings import read

        return read(self.model_params)

    def make(self) -> Binding:
        from .binding import make

        return make(self._settings)

    def begin(self, worker: Binding, ask: Ask, request: Request) -> Source:  # noqa: ARG002
        from ..worker import Feed

        feed = Feed()
        worker.submit(ask, feed)
        return feed
