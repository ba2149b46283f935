"""Where a remote request goes and with what: a provider's row joined with the user's `RemoteParams`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._version import __version__
from ..errors import ConfigError
from ..providers import provider_for_host, resolve_api_url
from ..wire import codec

if TYPE_CHECKING:
    from ..limits import Limits
    from ..params import RemoteParams
    from ..providers import Provider
    from ..scheduling.limiter import Limiter
    from ..wire.protocol import Codec


class Endpoint:
    """One resolved destination.

    Attributes:
        provider: the row that applies (that of a known host, for a generic engine).
        urls: base URL, query and model list.
        codec: the wire format.
        headers: everything that is sent with each request, credentials included.
        limits: how the limiter of this destination is set up.
        identity: key of the shared limiter: provider, base URL, a digest of the key. Never the key itself.
        limiters: limiters in use, by model.
    """

    __slots__ = ("codec", "headers", "identity", "limiters", "limits", "provider", "urls")

    def __init__(self, provider: Provider, remote: RemoteParams, key: str | None, codec: Codec) -> None:
        from ..transport.auth import sign

        self.provider = provider
        self.urls = resolve_api_url(remote.api_url or provider.base_url or "", provider)
        self.codec = codec
        own = {name.lower(): value for name, value in remote.extra_headers.items()}
        headers = {"user-agent": f"asyncinfer/{__version__}", **provider.headers, **own}
        # What a user adds by hand is as likely a credential as not: none of it follows a redirect elsewhere.
        self.headers = sign(provider.auth, headers, key, secret=own)
        self.limits = limits_of(provider, remote)
        digest = hashlib.sha256(repr((key, sorted(own.items()))).encode()).hexdigest()[:16]
        self.identity = (provider.name, self.urls.base, digest)
        self.limiters: dict[str, Limiter] = {}


def resolve(provider: Provider, engine: str, remote: RemoteParams | None) -> Endpoint:
    """Join row and parameters. Raises `ConfigError` for a missing URL or key, saying what to set."""
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
    return Endpoint(provider, remote, find_key(provider, engine, remote), codec(provider.codec))


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
