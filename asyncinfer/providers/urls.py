"""Where an ``api_url`` leads, however it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError
from .hosts import provider_for_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .row import Provider


class Urls(NamedTuple):
    """An ``api_url``, taken apart.

    Attributes:
        base: what a codec's path is appended to, without a slash at its end.
        query: the query to append after the path, ``""`` or with its ``?``.
        models: the whole URL of the model list, or None.
    """

    base: str
    query: str
    models: str | None

    def join(self, path: str) -> str:
        """The URL of one of a codec's paths."""
        query = "&" + self.query[1:] if self.query and "?" in path else self.query
        return self.base + path + query

    def filled(self, values: Mapping[str, str]) -> Urls:
        """The same with every ``{name}`` replaced by its value."""

        def fill(text: str) -> str:
            for name, value in values.items():
                text = text.replace("{" + name + "}", value)
            return text

        return Urls(fill(self.base), fill(self.query), None if self.models is None else fill(self.models))


_UNVERSIONED = ("/anthropic",)
"""Endings of bases that clients of a format write without the version that follows them."""

_ENDPOINTS = ("/chat/completions", "/completions", "/responses", "/models")


def resolve_api_url(api_url: str, provider: Provider) -> Urls:
    """Where an ``api_url`` leads: it may be the full endpoint (``.../chat/completions``), the base (``.../v1``) or
    only ``http://host:port``, with or without a slash at its end; a query (``api-version``) stays on every URL.

    A bare host gets the path that the provider's own base URL has, else ``/v1``. A path is never doubled. The model
    list of an Azure deployment is that of its resource.

    Raises:
        ConfigError: it is no absolute http or https URL.
    """
    try:
        parts = urlsplit(api_url.strip())
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        shown = api_url.strip().rpartition("@")[2][:100]  # never the part that may be a password
        raise ConfigError(
            f"api_url: {shown!r} is not a URL; write it with scheme and host, for example http://localhost:8000/v1",
            path="remote_params.api_url",
        )
    path = parts.path.rstrip("/")
    # SGLang's native endpoint, where another engine is given it: the chat face is beside it
    if path.endswith("/generate") and not provider.takes_prompt:
        path = path.removesuffix("/generate") + "/v1"
    for ending in (provider.dialect.path, *_ENDPOINTS):
        if ending.endswith("/") and ending in path + "/":  # a collection of models: the model and its method follow
            path = (path + "/").partition(ending)[0]
            break
        if path.endswith(ending):
            path = path.removesuffix(ending).rstrip("/")
            break
    else:
        if path.endswith(_UNVERSIONED):
            path += "/v1"
        path = _completed(path, provider) if path else _own_path(parts.hostname or "", provider)
    base = f"{parts.scheme}://{parts.netloc}{path}"
    query = f"?{parts.query}" if parts.query else ""
    listed = f"{parts.scheme}://{parts.netloc}" if provider.models_at_root else base.partition("/deployments/")[0]
    return Urls(base, query, None if provider.models_path is None else listed + provider.models_path + query)


def _completed(path: str, provider: Provider) -> str:
    """A path that ends where the names in the provider's own path do: what follows them there is added."""
    own, given = provider.api_path.split("/"), path.split("/")
    named = [at for at, part in enumerate(own, start=1) if part.startswith("{")]
    if not named or len(given) != named[-1]:
        return path
    pairs = zip(own[2:], given[2:], strict=False)  # the first part is a version: another one is as good
    if all(part == wanted or wanted.startswith("{") for wanted, part in pairs):
        return "/".join([path, *own[named[-1] :]])
    return path


def _own_path(host: str, provider: Provider) -> str:
    known = provider_for_host(host) or provider
    if known.base_url is None:
        return known.api_path
    return urlsplit(known.base_url).path.rstrip("/") if known is provider_for_host(host) else known.api_path
