"""vLLM's exceptions as ours, in one table."""

from __future__ import annotations

import logging
from typing import Any

from ...errors import (
    AsyncInferError,
    BadRequestError,
    ConfigError,
    ContextLengthError,
    EngineError,
    OverloadedError,
)

_log = logging.getLogger("asyncinfer")

NAME = "vllm"
DEAD = (
    "vLLM's engine process has died; its last words are on stderr. Close the engine (`await engine.aclose()`): it is "
    "loaded anew when it is next used"
)
_THEIR_WORDS = {
    "min_tokens": "min_new_tokens",
    "max_tokens": "max_new_tokens",
    "logprobs": "top_logprobs",
    "stop": "stop_strings",
} | {
    name: name
    for name in (
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "stop_token_ids",
    )
}
"""Field of vLLM's ``SamplingParams`` -> field of `GenerationParams`."""
_SHAPES = (
    "Grammar error",
    "Invalid grammar",
    "Invalid JSON grammar",
    "Failed to transform",
    "structured_outputs",
    "The JSON schema",
    "The provided JSON schema",
)
"""How vLLM's complaints about the answer's prescribed form begin."""
_SIGNS = {
    "Invalid repository ID or local directory": "model.model_name",
    "User-specified max_model_len": "model.model_max_length",
    "Unknown quantization method": "model.model_kwargs.quantization",
    "Unknown attention backend": "model.model_kwargs.attention_backend",
    "Reasoning parser": "model.model_kwargs.reasoning_parser",
}
"""What vLLM says of an argument -> where that was said to us."""
_MEMORY = ("out of memory", "OutOfMemoryError", "No available memory", "larger than the available KV cache")


def in_request(error: BaseException) -> AsyncInferError:
    """What one request failed of."""
    if isinstance(error, AsyncInferError):
        return error
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "EngineDeadError" in kinds:
        return EngineError(DEAD, provider=NAME)
    if kinds & {"QueueOverflowError", "MaxQueuedTokensError"}:
        return OverloadedError(f"vLLM's queue is full: {_words(error)}", provider=NAME)
    if "ChatTemplateResolutionError" in kinds:
        return ConfigError(
            f"the model comes without a chat template; give one as model.chat_template ({_words(error)})",
            path="model.chat_template",
        )
    if "TemplateSyntaxError" in kinds:
        return ConfigError(f"model.chat_template cannot be read: {_words(error)}", path="model.chat_template")
    if "VLLMValidationError" in kinds:
        refused = _refused(error)
        if refused is not None:
            return refused
    if kinds & {"VLLMClientError", "TemplateError"}:
        return BadRequestError(f"vLLM refuses the request: {_words(error)}", provider=NAME)
    cause = error.__cause__
    if "EngineGenerateError" in kinds and cause is not None:
        return in_request(cause)
    if isinstance(error, (ValueError, TypeError, NotImplementedError)):
        return BadRequestError(f"vLLM refuses the request: {_words(error)}", provider=NAME)
    _log.error("vLLM failed in one request", exc_info=error)
    return EngineError(f"vLLM failed in this request: {error!r}", provider=NAME)


def _refused(error: BaseException) -> ConfigError | None:
    """A value of the request that vLLM does not take; None if it does not say which."""
    words = " ".join(str(error.args[0] if error.args else error).split())
    if words.startswith(_SHAPES):
        return ConfigError(
            f"vLLM cannot follow generation.guided_decoding (or the parameters of a tool that must be called): {words}",
            path="generation.guided_decoding",
            provider=NAME,
        )
    theirs = getattr(error, "parameter", None) or words.partition(" ")[0]
    ours = _THEIR_WORDS.get(theirs)
    if ours is None:
        return None
    note = "" if ours == theirs else f" ({theirs} is vLLM's name of it)"
    return ConfigError(f"vLLM refuses generation.{ours}: {words}{note}", path=f"generation.{ours}", provider=NAME)


def while_loading(error: BaseException, model: str) -> AsyncInferError:
    """Why a model could not be loaded."""
    if isinstance(error, AsyncInferError):
        return error
    words = _words(error)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for sign, path in _SIGNS.items():
        if sign in words:
            return ConfigError(f"vLLM refuses {path}: {words}", path=path)
    if "ValidationError" in kinds:  # pydantic's: of the engine's arguments
        return ConfigError(f"vLLM refuses the parameters of {model!r}: {words}", path=_place(error))
    hint = ""
    if any(sign in words for sign in _MEMORY):
        hint = "; a smaller model_max_length, max_num_seqs or gpu_memory_utilization needs less memory"
    elif "Engine core initialization failed" in words:
        hint = '; the engine process says why on stderr (model_kwargs={"verbose": True} shows all of it)'
    return EngineError(f"vLLM cannot load {model!r}: {words}{hint}", provider=NAME)


def _place(error: BaseException) -> str:
    """Where pydantic says the first fault is: the configurations of vLLM are made of its engine's arguments."""
    faults: Any = getattr(error, "errors", list)()
    at = faults[0].get("loc") if faults else None
    return ".".join(["model.model_kwargs", *map(str, at or ())])


def too_long(tokens: int, limit: int) -> ContextLengthError:
    """A prompt that leaves no room for an answer."""
    return ContextLengthError(
        f"the prompt has {tokens} tokens and the context of one conversation is {limit} (model.model_max_length)",
        provider=NAME,
    )


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or repr(error)
