"""`LlamaCppInferenceEngine`: the public class. It owns one loaded model, and hands requests to its binding."""

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
    from .binding import Binding


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


class LlamaCppInferenceEngine(Engine):
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
        self.slots: int = self._settings.slots
        self._binding: Binding | None = None

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

    async def list_models(self, *, chat_only: bool = False) -> list[str]:  # noqa: ARG002
        return [self._settings.model]

    async def start(self) -> None:
        from ..worker import close_at_exit, in_thread
        from .binding import make

        binding = make(self._settings)
        close_at_exit(binding)
        try:
            await in_thread(binding.load, abandon=True)
        except BaseException:
            # Cancelled: the loading ends by itself, and then finds that nobody wants the model any more.
            binding.close()
            raise
        self._binding = binding
        weakref.finalize(self, _discard, binding).atexit = False

    async def stop(self) -> None:
        from ..worker import in_thread

        binding, self._binding = self._binding, None
        if binding is not None:
            await in_thread(binding.close)

    async def open(self, request: Request) -> Source:
        from ..local.ask import read
        from ..worker import Feed

        binding = self._binding
        if binding is None:
            raise EngineClosedError("the engine is closed", provider=self.name)
        if binding.sees:
            from ..fetched import with_data

            request = await with_data(request)
        feed = Feed()
        binding.submit(read(request, images=binding.sees), feed)
        return feed


def _discard(binding: Binding) -> None:
    """The engine was dropped without being closed: its threads must not keep the model for ever."""
    threading.Thread(target=binding.close, name="asyncinfer-llamacpp-close", daemon=True).start()
