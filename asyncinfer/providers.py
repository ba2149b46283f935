"""One row for each provider: where it lives, which codec and auth it speaks (by name), and how it differs (by value).

Rule: never ``if provider == ...`` anywhere. A new provider is a row; a new difference is a `Dialect` field, read by one
codec and wanted by two providers; only a new format is a new codec.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .limits import Limits


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one provider differs from others that speak the same format. Values only."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One row.

    Attributes:
        name: lower-case id, used in ``open_engine("name:model")`` and in errors.
        title: how the provider writes its own name.
        base_url: root that the codec's paths are appended to; None where the user must give ``api_url``.
        key_env: environment variables that may hold the key, in order; empty for servers without authentication.
        codec, auth: names that ``engines/remote`` resolves.
        dialect: the differences.
        limits: what is known of the provider's limits.
        models_path: path of the model list below ``base_url``, or None.
        headers: fixed request headers.
        note: what a user is told when it matters (a service that has ended).
    """

    name: str
    title: str
    base_url: str | None
    key_env: tuple[str, ...] = ()
    codec: str = "openai_chat"
    auth: Literal["bearer", "none"] = "bearer"
    dialect: Dialect = field(default_factory=Dialect)
    limits: Limits = field(default_factory=Limits)
    models_path: str | None = "/models"
    headers: dict[str, str] = field(default_factory=dict)
    note: str | None = None
