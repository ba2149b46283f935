"""Parameters and configuration: how a model is loaded, how it generates, where it is reached; and the file of it all.

Rule: parameters remember which fields were set explicitly (``model_fields_set``); only those override, travel into
files and count in a fingerprint. Names load lazily: who only needs one class pays for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Params, merge
    from .config import InferenceConfig
    from .engine_type import InferenceEngineType
    from .generation import GenerationParams
    from .guided import GuidedDecodingParams
    from .model import ModelParams
    from .overrides import Override, parse_overrides
    from .remote import RemoteParams

_HOMES = {
    "Params": "base",
    "merge": "base",
    "InferenceConfig": "config",
    "InferenceEngineType": "engine_type",
    "GenerationParams": "generation",
    "GuidedDecodingParams": "guided",
    "ModelParams": "model",
    "Override": "overrides",
    "parse_overrides": "overrides",
    "RemoteParams": "remote",
}

__all__ = [
    "GenerationParams",
    "GuidedDecodingParams",
    "InferenceConfig",
    "InferenceEngineType",
    "ModelParams",
    "Override",
    "Params",
    "RemoteParams",
    "merge",
    "parse_overrides",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
