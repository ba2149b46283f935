"""What one row is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..dialect import Dialect
from ..limits import Limits


@dataclass(frozen=True, slots=True)
class ChatModels:
    """Which entries of a provider's model list answer conversations.

    Attributes:
        field, value: a field of the entry that must equal ``value``, or be a list that holds it; None where entries do
            not say.
        others: beginnings of the ids of models that do something else.
    """

    field: str | None = None
    value: str | bool | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provider:
    """One row.

    Attributes:
        name: lower-case id, used in ``open_engine("name:model")`` and in errors.
        title: how the provider writes its own name.
        base_url: root that the codec's paths are appended to; None where the user must give ``api_url``.
        key_env: environment variables that may hold the key, in order; empty for servers without authentication.
        codec, auth: names that ``engines/remote`` resolves; an auth other than these two is a header's name.
        auth_elsewhere: a second scheme for the key, added where an ``api_url`` leads to a host that is not the
            provider's own: servers that speak a format seldom take its inventor's header.
        dialect: the differences.
        limits: what is known of the provider's limits.
        models_path: path of the model list below ``base_url``, or None.
        models_at_root: that path is the host's, not one below ``base_url``.
        chat_models: how to tell, in that list, the models that answer conversations.
        headers: fixed request headers.
        note: what a user is told when it matters (a service that has ended).
        key_required: whether a missing key is an error before anything is sent.
        hosts: further hosts that are this provider; one that begins with a dot or a hyphen stands for every host that
            ends so.
        api_path: what is added to an ``api_url`` that has no path of its own, where ``base_url`` does not tell.
        faces: part of an ``api_url``'s path -> the row that speaks the format found there.
        takes_prompt: the format takes a finished prompt, not messages; `engines.prompting` makes it.
        batch: name of the batch API, resolved by `engines.jobs`; None where there is none, or none that is spoken.
        families: beginning of a model's name (without its publisher, unless it has a slash) -> the row that serves such
            models here, unless the path of an ``api_url`` says otherwise.
        keyed: the row that applies where the credential is a plain API key and no project is named, or None.
    """

    name: str
    title: str
    base_url: str | None
    key_env: tuple[str, ...] = ()
    codec: str = "openai_chat"
    auth: Literal["bearer", "none", "api-key", "x-api-key", "x-goog-api-key", "google"] = "bearer"
    dialect: Dialect = field(default_factory=Dialect)
    limits: Limits = field(default_factory=Limits)
    models_path: str | None = "/models"
    models_at_root: bool = False
    chat_models: ChatModels = field(default_factory=ChatModels)
    headers: dict[str, str] = field(default_factory=dict)
    note: str | None = None
    key_required: bool = True
    hosts: tuple[str, ...] = ()
    api_path: str = "/v1"
    faces: dict[str, str] = field(default_factory=dict)
    families: dict[str, str] = field(default_factory=dict)
    keyed: str | None = None
    auth_elsewhere: Literal["bearer"] | None = None
    takes_prompt: bool = False
    batch: str | None = None
