"""asyncinfer: async-first streaming inference, in process or behind an API, through one interface.

::

    from asyncinfer import open_engine

    async for token in open_engine("openai:gpt-4o-mini").stream("Why is the sky blue?"):
        print(token, end="")

Every public name is importable from here; each loads its room when it is first used, so that importing the package
costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .completion import Choice, Completion, Failure, Timeouts, Timings
    from .conversation import (
        ContentItem,
        Conversation,
        FunctionCall,
        FunctionDefinition,
        Message,
        Role,
        ToolCall,
        ToolDefinition,
        Type,
    )
    from .engines.base import Engine
    from .engines.bedrock import BedrockInferenceEngine
    from .engines.fallback import FallbackEngine
    from .engines.jobs import BatchJob, BatchState, BatchStatus
    from .engines.llama_cpp import LlamaCppInferenceEngine
    from .engines.native import NativeTextInferenceEngine
    from .engines.opening import open_engine
    from .engines.remote import (
        AnthropicInferenceEngine,
        CerebrasInferenceEngine,
        DeepSeekInferenceEngine,
        FireworksInferenceEngine,
        GoogleGeminiInferenceEngine,
        GoogleVertexInferenceEngine,
        HuggingFaceRouterInferenceEngine,
        LambdaInferenceEngine,
        OpenAIInferenceEngine,
        OpenRouterInferenceEngine,
        ParasailInferenceEngine,
        RemoteInferenceEngine,
        RemoteVLLMInferenceEngine,
        SambanovaInferenceEngine,
        SGLangInferenceEngine,
        TogetherInferenceEngine,
    )
    from .engines.replicated import ReplicatedEngine
    from .engines.stream import Stream
    from .engines.vllm import VLLMInferenceEngine
    from .errors import (
        APIError,
        AsyncInferError,
        AuthenticationError,
        BadRequestError,
        ConfigError,
        ConnectError,
        ConnectTimeout,
        ContextLengthError,
        DeadlineError,
        EngineClosedError,
        EngineError,
        EventTooLargeError,
        FirstTokenTimeout,
        MissingDependencyError,
        NotFoundError,
        OverloadedError,
        PermissionDeniedError,
        ProtocolError,
        QuotaExceededError,
        RateLimitError,
        RetryKind,
        RowsFailed,
        ServerError,
        StreamConsumedError,
        StreamInterrupted,
        StreamTruncated,
        StructuredOutputError,
        TokenTimeout,
        ToolLoopError,
        TotalTimeout,
        TransportError,
        UnsupportedParameterError,
    )
    from .events import (
        Event,
        Finish,
        FinishReason,
        ReasoningDelta,
        Start,
        TextDelta,
        ToolCallDelta,
        Usage,
        UsageUpdate,
    )
    from .models import EMBEDDED_MODEL
    from .params import (
        GenerationParams,
        GuidedDecodingParams,
        InferenceConfig,
        InferenceEngineType,
        ModelParams,
        RemoteParams,
    )
    from .prompt import Prompt
    from .request import Request

_ROOMS = {
    "completion": "Choice Completion Failure Timeouts Timings",
    "conversation": (
        "ContentItem Conversation FunctionCall FunctionDefinition Message Role ToolCall ToolDefinition Type"
    ),
    "engines.base": "Engine",
    "engines.bedrock": "BedrockInferenceEngine",
    "engines.fallback": "FallbackEngine",
    "engines.jobs": "BatchJob BatchState BatchStatus",
    "engines.llama_cpp": "LlamaCppInferenceEngine",
    "engines.native": "NativeTextInferenceEngine",
    "engines.opening": "open_engine",
    "engines.remote": (
        "AnthropicInferenceEngine "
        "CerebrasInferenceEngine DeepSeekInferenceEngine FireworksInferenceEngine GoogleGeminiInferenceEngine "
        "GoogleVertexInferenceEngine "
        "HuggingFaceRouterInferenceEngine LambdaInferenceEngine OpenAIInferenceEngine OpenRouterInferenceEngine "
        "ParasailInferenceEngine RemoteInferenceEngine RemoteVLLMInferenceEngine SambanovaInferenceEngine "
        "SGLangInferenceEngine TogetherInferenceEngine"
    ),
    "engines.replicated": "ReplicatedEngine",
    "engines.stream": "Stream",
    "engines.vllm": "VLLMInferenceEngine",
    "errors": (
        "APIError AsyncInferError AuthenticationError BadRequestError ConfigError ConnectError ConnectTimeout "
        "ContextLengthError DeadlineError EngineClosedError EngineError EventTooLargeError FirstTokenTimeout "
        "MissingDependencyError NotFoundError OverloadedError PermissionDeniedError ProtocolError QuotaExceededError "
        "RateLimitError RetryKind RowsFailed ServerError StreamConsumedError StreamInterrupted StreamTruncated "
        "StructuredOutputError TokenTimeout ToolLoopError TotalTimeout TransportError UnsupportedParameterError"
    ),
    "events": "Event Finish FinishReason ReasoningDelta Start TextDelta ToolCallDelta Usage UsageUpdate",
    "models": "EMBEDDED_MODEL",
    "params": ("GenerationParams GuidedDecodingParams InferenceConfig InferenceEngineType ModelParams RemoteParams"),
    "prompt": "Prompt",
    "request": "Request",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}
_MODULES = {"batch", "blocking", "rlite", "testing"}

__all__ = [
    "EMBEDDED_MODEL",
    "APIError",
    "AnthropicInferenceEngine",
    "AsyncInferError",
    "AuthenticationError",
    "BadRequestError",
    "BatchJob",
    "BatchState",
    "BatchStatus",
    "BedrockInferenceEngine",
    "CerebrasInferenceEngine",
    "Choice",
    "Completion",
    "ConfigError",
    "ConnectError",
    "ConnectTimeout",
    "ContentItem",
    "ContextLengthError",
    "Conversation",
    "DeadlineError",
    "DeepSeekInferenceEngine",
    "Engine",
    "EngineClosedError",
    "EngineError",
    "Event",
    "EventTooLargeError",
    "Failure",
    "FallbackEngine",
    "Finish",
    "FinishReason",
    "FireworksInferenceEngine",
    "FirstTokenTimeout",
    "FunctionCall",
    "FunctionDefinition",
    "GenerationParams",
    "GoogleGeminiInferenceEngine",
    "GoogleVertexInferenceEngine",
    "GuidedDecodingParams",
    "HuggingFaceRouterInferenceEngine",
    "InferenceConfig",
    "InferenceEngineType",
    "LambdaInferenceEngine",
    "LlamaCppInferenceEngine",
    "Message",
    "MissingDependencyError",
    "ModelParams",
    "NativeTextInferenceEngine",
    "NotFoundError",
    "OpenAIInferenceEngine",
    "OpenRouterInferenceEngine",
    "OverloadedError",
    "ParasailInferenceEngine",
    "PermissionDeniedError",
    "Prompt",
    "ProtocolError",
    "QuotaExceededError",
    "RateLimitError",
    "ReasoningDelta",
    "RemoteInferenceEngine",
    "RemoteParams",
    "RemoteVLLMInferenceEngine",
    "ReplicatedEngine",
    "Request",
    "RetryKind",
    "Role",
    "RowsFailed",
    "SGLangInferenceEngine",
    "SambanovaInferenceEngine",
    "ServerError",
    "Start",
    "Stream",
    "StreamConsumedError",
    "StreamInterrupted",
    "StreamTruncated",
    "StructuredOutputError",
    "TextDelta",
    "Timeouts",
    "Timings",
    "TogetherInferenceEngine",
    "TokenTimeout",
    "ToolCall",
    "ToolCallDelta",
    "ToolDefinition",
    "ToolLoopError",
    "TotalTimeout",
    "TransportError",
    "Type",
    "UnsupportedParameterError",
    "Usage",
    "UsageUpdate",
    "VLLMInferenceEngine",
    "__version__",
    "open_engine",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f".{name}", __name__)
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{room}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
