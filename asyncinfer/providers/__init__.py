"""One row for each provider: where it lives, which codec and auth it speaks (by name), and how it differs (by value).

Rule: never ``if provider == ...`` anywhere. A new provider is a row; a new difference is a `Dialect` field, read by one
codec and wanted by two providers; only a new format is a new codec.
"""

from __future__ import annotations

from ..dialect import Dialect, ModelRule
from .hosts import PROVIDERS, model_family, provider_for_host
from .row import ChatModels, Provider
from .urls import Urls, resolve_api_url

__all__ = [
    "PROVIDERS",
    "ChatModels",
    "Dialect",
    "ModelRule",
    "Provider",
    "Urls",
    "model_family",
    "provider_for_host",
    "resolve_api_url",
]
