"""Provider batch jobs: rows sent as files, answered within hours at about half the price.

`view` is ``engine.batch``, `job` the handle that comes of it; `flavour` is the seam to what differs between providers,
and each flavour is one file. Rule: a flavour says what is sent where and what comes back; HTTP is `door`'s, rows and
their bytes are `spool`'s, decoding an answer is the engine's own codec's (`answers`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .flavour import Flavour
    from .job import BatchJob
    from .status import BatchState, BatchStatus

_FLAVOURS = {
    "openai": (".openai", "OpenAIFlavour"),
    "anthropic": (".anthropic", "AnthropicFlavour"),
    "together": (".together", "TogetherFlavour"),
    "fireworks": (".fireworks", "FireworksFlavour"),
    "bedrock": (".bedrock", "BedrockFlavour"),
    "gemini": (".gemini", "GeminiFlavour"),
}
_NAMES = {"BatchJob": ".job", "BatchState": ".status", "BatchStatus": ".status"}

__all__ = ["BatchJob", "BatchState", "BatchStatus", "flavour"]


def flavour(name: str) -> Flavour:
    """The batch API that a provider's row names, loaded when asked for. Raises KeyError where none has the name."""
    module, kind = _FLAVOURS[name]
    made: Flavour = getattr(import_module(module, __name__), kind)()
    return made


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
