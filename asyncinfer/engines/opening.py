"""`open_engine`: from a name, a configuration or nothing at all to an engine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..params import InferenceConfig, InferenceEngineType, ModelParams, RemoteParams
from .base import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

_LLAMA_CPP = ("llama_cpp", "LlamaCppInferenceEngine")

ENGINES: dict[InferenceEngineType, tuple[str, str]] = {
    InferenceEngineType.LLAMACPP: _LLAMA_CPP,
    InferenceEngineType.VLLM: ("vllm", "VLLMInferenceEngine"),
    InferenceEngineType.NATIVE: ("native", "NativeTextInferenceEngine"),
    InferenceEngineType.REMOTE: ("remote", "RemoteInferenceEngine"),
    InferenceEngineType.REMOTE_VLLM: ("remote", "RemoteVLLMInferenceEngine"),
    InferenceEngineType.SGLANG: ("remote", "SGLangInferenceEngine"),
    InferenceEngineType.BEDROCK: ("bedrock", "BedrockInferenceEngine"),
    InferenceEngineType.OPENAI: ("remote", "OpenAIInferenceEngine"),
    InferenceEngineType.ANTHROPIC: ("remote", "AnthropicInferenceEngine"),
    InferenceEngineType.TOGETHER: ("remote", "TogetherInferenceEngine"),
    InferenceEngineType.DEEPSEEK: ("remote", "DeepSeekInferenceEngine"),
    InferenceEngineType.SAMBANOVA: ("remote", "SambanovaInferenceEngine"),
    InferenceEngineType.PARASAIL: ("remote", "ParasailInferenceEngine"),
    InferenceEngineType.LAMBDA: ("remote", "LambdaInferenceEngine"),
    InferenceEngineType.FIREWORKS: ("remote", "FireworksInferenceEngine"),
    InferenceEngineType.OPENROUTER: ("remote", "OpenRouterInferenceEngine"),
    InferenceEngineType.CEREBRAS: ("remote", "CerebrasInferenceEngine"),
    InferenceEngineType.HUGGING_FACE_ROUTER: ("remote", "HuggingFaceRouterInferenceEngine"),
    InferenceEngineType.GOOGLE_GEMINI: ("remote", "GoogleGeminiInferenceEngine"),
    InferenceEngineType.GOOGLE_VERTEX: ("remote", "GoogleVertexInferenceEngine"),
}
"""Where each engine type's class lives: ``(module in engines, class name)``."""


def engine_class(kind: InferenceEngineType) -> type[Engine]:
    """The class of an engine type."""
    room, name = ENGINES[kind]
    found: type[Engine] = getattr(import_module(f".{room}", __package__), name)
    return found


def open_engine(
    target: str | InferenceConfig | Sequence[str | InferenceConfig | Engine] | None = None,
    *,
    model_params: ModelParams | None = None,
    remote_params: RemoteParams | None = None,
    **arguments: Any,
) -> Engine:
    """Make an engine.

    Args:
        target: ``"provider:model"`` (``"openai:gpt-4o-mini"``, ``"llamacpp:path/to/model.gguf"``), an
            `InferenceConfig`, None for the embedded model; or a list of these (and of engines), tried in order until
            one begins to answer (`FallbackEngine`, which also takes ``first_token`` and ``hedge_after``).
        model_params: further parameters of the model, for the string form.
        remote_params: endpoint, credentials and limits, for the string form.
        arguments: passed on to the engine's class (``generation_params``, ``http_client``).

    Raises:
        ConfigError: the name is not an engine's, or parameters are wrong.
    """
    if isinstance(target, InferenceConfig):
        return _from_config(target, arguments)
    if target is None:
        return _from_config(InferenceConfig(), arguments)
    if not isinstance(target, str):
        from .fallback import FallbackEngine

        return FallbackEngine(
            [engine if isinstance(engine, Engine) else open_engine(engine) for engine in target], **arguments
        )
    kind, colon, model = target.partition(":")
    if not colon:
        raise ConfigError(
            f"{target!r} does not say which engine runs it; write engine:model, for example openai:gpt-4o-mini or "
            f"llamacpp:{target}",
            path="engine",
        )
    wanted = ModelParams(model_name=model) if model else ModelParams()
    if model_params is not None:
        wanted = ModelParams(**{**_explicit(model_params), **_explicit(wanted)})
    if remote_params is not None:
        arguments["remote_params"] = remote_params
    return engine_class(engine_type(kind))(wanted, **arguments)


def engine_type(name: str) -> InferenceEngineType:
    """The engine type of a name in any spelling. Raises `ConfigError` that names the nearest ones."""
    try:
        return InferenceEngineType(name)
    except ValueError:
        from difflib import get_close_matches

        known = sorted(kind.value.lower() for kind in InferenceEngineType)
        near = get_close_matches(str(name).lower(), known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
        raise ConfigError(f"there is no engine {name!r}; {hint}", path="engine") from None


def _from_config(config: InferenceConfig, arguments: dict[str, Any]) -> Engine:
    kind = config.engine or (
        InferenceEngineType.REMOTE
        if config.remote_params is not None and config.remote_params.api_url
        else InferenceEngineType.LLAMACPP
    )
    given: dict[str, Any] = {"generation_params": config.generation}
    if config.remote_params is not None:
        given["remote_params"] = config.remote_params
    return engine_class(kind)(config.model, **{**given, **arguments})


def _explicit(params: ModelParams) -> dict[str, Any]:
    return {name: getattr(params, name) for name in params.model_fields_set}
