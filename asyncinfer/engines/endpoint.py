"""Where a remote request goes and with what: a provider's row joined with the user's `RemoteParams`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._version import __version__
from ..errors import AsyncInferError, ConfigError
from ..params.remote import is_secret_header
from ..providers import PROVIDERS, provider_for_host, resolve_api_url
from ..wire import codec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from ..limits import Limits
    from ..params import RemoteParams
    from ..providers import Provider, Urls
    from ..scheduling.limiter import Limiter
    from ..transport.auth import Credential
    from ..wire.protocol import Codec

    _Error = TypeVar("_Error", bound=AsyncInferError)

_NOTHING: Mapping[str, Any] = {}
_LEAST_SECRET = 8
"""Shorter keys are placeholders ("EMPTY"), and words of ordinary messages."""


class Endpoint:
    """One resolved destination.

    Attributes:
        provider: the row that applies (that of a known host, for a generic engine).
        urls: base URL, query and model list.
        codec: the wire format.
        headers: everything that is sent with each request, credentials included unless they change with time.
        credential: where those come from that change with time; None for a key.
        limits: how the limiter of this destination is set up.
        name: the provider's, in errors: that of its first row, whichever of its faces answers.
        identity: key of the shared limiter: provider, base URL, a digest of the key. Never the key itself.
        limiters: limiters in use, by model.
    """

    __slots__ = (
        "_secrets",
        "codec",
        "credential",
        "headers",
        "identity",
        "limiters",
        "limits",
        "name",
        "provider",
        "urls",
    )

    def __init__(
        self, provider: Provider, remote: RemoteParams, key: str | None, urls: Urls, codec: Codec, name: str = ""
    ) -> None:
        from ..transport.auth import sign

        self.provider = provider
        self.name = name or provider.name
        self.urls = urls
        self.codec = codec
        auth, self.credential = find_auth(provider.auth, key)
        own = {name.lower(): value for name, value in remote.extra_headers.items()}
        headers = {"user-agent": f"asyncinfer/{__version__}", **provider.headers, **own}
        # What a user adds by hand is as likely a credential as not: none of it follows a redirect elsewhere.
        self.headers = sign(auth, headers, key, secret=own)
        host = urlsplit(self.urls.base).hostname or ""
        if provider.auth_elsewhere is not None and provider_for_host(host) is not provider:
            self.headers = sign(provider.auth_elsewhere, self.headers, key, secret=own)
        self.limits = limits_of(provider, remote)
        secrets = {value.rpartition(" ")[2] for name, value in own.items() if is_secret_header(name)} | {key or ""}
        self._secrets = tuple(secret for secret in sorted(secrets, key=len)[::-1] if len(secret) >= _LEAST_SECRET)
        digest = hashlib.sha256(repr((key, sorted(own.items()))).encode()).hexdigest()[:16]
        self.identity = (provider.name, self.urls.base, digest)
        self.limiters: dict[str, Limiter] = {}

    def blamed(self, error: _Error) -> _Error:
        """``error`` with the provider's name, and without the credentials: some servers quote the key they refuse."""
        error.provider = self.name
        for secret in self._secrets:
            if secret in error.message:
                error.args = (error.message.replace(secret, "[secret]"), *error.args[1:])
            if error.code is not None:
                error.code = error.code.replace(secret, "[secret]")
        return error


def resolve(
    provider: Provider,
    engine: str,
    remote: RemoteParams | None,
    model_kwargs: Mapping[str, Any] = _NOTHING,
    family: str = "",
) -> Endpoint:
    """Join row and parameters; ``family`` is what `model_family` says of the model.

    Raises:
        ConfigError: the URL or the key is missing; says what to set.
    """
    assert remote is not None
    if remote.api_url:
        known = provider_for_host(urlsplit(remote.api_url).hostname or "")
        if known is not None and provider.base_url is None and provider.note is None:
            provider = known
    elif provider.base_url is None:
        why = provider.note or f"{engine} talks to a server of yours"
        raise ConfigError(
            f"{why}: set remote_params.api_url, for example http://localhost:8000/v1", path="remote_params.api_url"
        )
    name = provider.name
    if provider.faces:
        from .places import face

        provider = face(provider, remote.api_url)
    if family in provider.families:
        provider = PROVIDERS[provider.families[family]]
    key = find_key(provider, engine, remote)
    urls = resolve_api_url(remote.api_url or provider.base_url or "", provider)
    if "{" in urls.base:
        from . import places

        if provider.keyed is not None and places.project(remote, model_kwargs, key) is None:
            express = PROVIDERS[provider.keyed]
            found = find_key(express, engine, remote)
            if found is not None and find_auth(express.auth, found)[1] is None:
                provider, key = express, found
                urls = resolve_api_url(remote.api_url or provider.base_url or "", provider)
        urls = places.filled(urls, remote, model_kwargs, key)
    return Endpoint(provider, remote, key, urls, codec(provider.codec), name)


def find_auth(auth: str, key: str | None) -> tuple[str, Credential | None]:
    """The scheme that a key is sent by, and what is asked for headers where there is more to it than a key."""
    if auth == "google":
        from ..transport.google_auth import google_auth

        return google_auth(key)
    return auth, None


def find_key(provider: Provider, engine: str, remote: RemoteParams) -> str | None:
    """The API key: ``api_key``, else the named environment variable, else the provider's own ones.

    Raises:
        ConfigError: a key is needed and there is none; names the variable.
    """
    if remote.api_key is not None and remote.api_key.get_secret_value():
        return remote.api_key.get_secret_value()
    if remote.api_key_env_varname:
        value = os.environ.get(remote.api_key_env_varname)
        if not value:
            raise ConfigError(
                f"{engine}: the environment variable {remote.api_key_env_varname} that "
                "remote_params.api_key_env_varname names is not set",
                path="remote_params.api_key_env_varname",
            )
        return value
    for name in provider.key_env:
        if os.environ.get(name):
            return os.environ[name]
    if provider.key_env and provider.key_required and not remote.api_url:
        raise ConfigError(
            f"{engine} needs an API key: set the environment variable {provider.key_env[0]}, or remote_params.api_key",
            path="remote_params.api_key",
        )
    return None


def limits_of(provider: Provider, remote: RemoteParams) -> Limits:
    """The row's limits, overridden by what the user set explicitly."""
    asked: dict[str, Any] = {}
    names = {
        "requests_per_minute": "requests_per_minute",
        "tokens_per_minute": "tokens_per_minute",
        "input_tokens_per_minute": "input_tokens_per_minute",
        "output_tokens_per_minute": "output_tokens_per_minute",
        "num_workers": "max_concurrency",
        "max_concurrency": "max_concurrency",
        "min_concurrency": "min_concurrency",
        "initial_concurrency": "start_concurrency",
        "politeness_policy": "min_interval",
        "max_retries": "max_retries",
        "retry_backoff_base": "backoff_first",
        "retry_backoff_max": "backoff_most",
        "use_adaptive_concurrency": "adaptive",
    }
    for ours, theirs in names.items():
        if ours in remote.model_fields_set and getattr(remote, ours) is not None:
            asked[theirs] = getattr(remote, ours)
    return replace(provider.limits, **asked)
