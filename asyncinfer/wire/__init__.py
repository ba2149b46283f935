"""Bytes to events and events to bytes, and nothing else (sans-IO).

Rule: this room imports no anyio, asyncio, HTTP library, ``os`` or ``time``. A codec is a pair of pure functions and a
decoder object that is fed bytes; it never waits, never logs and never knows which provider it speaks to: what differs
between providers of one format is a value in the `Dialect`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .protocol import Codec

_CODECS = {
    "openai_chat": (".openai_chat", "OpenAIChatCodec"),
    "anthropic_messages": (".anthropic", "AnthropicCodec"),
    "anthropic_raw_predict": (".anthropic.raw_predict", "RawPredictCodec"),
    "gemini": (".gemini", "GeminiCodec"),
    "openai_responses": (".openai_responses", "OpenAIResponsesCodec"),
    "sglang": (".sglang", "SGLangCodec"),
}


def codec(name: str) -> Codec:
    """The codec that a provider's row names, loaded when asked for. Raises KeyError where no codec has the name."""
    module, kind = _CODECS[name]
    made: Codec = getattr(import_module(module, __name__), kind)()
    return made
