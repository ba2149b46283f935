"""vLLM's exceptions as ours, in one table."""

from __future__ import annotations

import logging

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
    if kinds & {"VLLMClientError", "TemplateError"}:
        return BadRequestError(f"vLLM refuses the request: {_words(error)}", provider=NAME)
    cause = error.__cause__
    if "EngineGenerateError" in kinds and cause is not None:
        return in_request(cause)
    if isinstance(error, (ValueError, TypeError, NotImplementedError)):
        return BadRequestError(f"vLLM refuses the request: {_words(error)}", provider=NAME)
    _log.error("vLLM failed in one request", exc_info=error)
    return EngineError(f"vLLM failed in this request: {error!r}", provider=NAME)


def while_loading(error: BaseException, model: str) -> AsyncInferError:
    """Why a model could not be loaded."""
    if isinstance(error, AsyncInferError):
        return error
    words = _words(error)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ValidationError" in kinds:  # pydantic's: of the engine's arguments
        return ConfigError(f"vLLM refuses the parameters of {model!r}: {words}", path="model.model_kwargs")
    hint = ""
    if any(sign in words for sign in _MEMORY):
        hint = "; a smaller model_max_length, max_num_seqs or gpu_memory_utilization needs less memory"
    elif "Engine core initialization failed" in words:
        hint = '; the engine process says why on stderr (model_kwargs={"verbose": True} shows all of it)'
    return EngineError(f"vLLM cannot load {model!r}: {words}{hint}", provider=NAME)


def too_long(tokens: int, limit: int) -> ContextLengthError:
    """A prompt that leaves no room for an answer."""
    return ContextLengthError(
        f"the prompt has {tokens} tokens and the context of one conversation is {limit} (model.model_max_length)",
        provider=NAME,
    )


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or repr(error)
