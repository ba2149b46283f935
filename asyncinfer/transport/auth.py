"""Credentials become headers here, and nowhere else is a key unwrapped.

Pure functions. The result remembers which of its headers are secret, so that a redirect to another origin can leave
them out (`redirects`). Schemes: OpenAI and most others take ``Authorization: Bearer``, Anthropic ``x-api-key``, Azure
``api-key``, Google ``x-goog-api-key``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

from ..errors import ConfigError


class Secret(Protocol):
    """A wrapped key, as pydantic's ``SecretStr`` is one."""

    def get_secret_value(self) -> str:
        """The key itself."""
        ...


class Credential(Protocol):
    """Proof of who asks that changes with time: a token that ends."""

    async def headers(self) -> Mapping[str, str]:
        """The headers to send now; quick where they are at hand. Raises `AsyncInferError`."""
        ...

    def refused(self, sent: Mapping[str, str]) -> bool:
        """The service refused a request with these headers (401). Whether another try may have better ones."""
        ...


SCHEMES: dict[str, tuple[str, str]] = {
    "bearer": ("authorization", "Bearer "),
    "x-api-key": ("x-api-key", ""),
    "api-key": ("api-key", ""),
    "x-goog-api-key": ("x-goog-api-key", ""),
}
"""Name of a scheme: the header it sets, and what stands before the key. ``"none"`` is a scheme too; it sets nothing."""

SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "x-amz-security-token",
        "ocp-apim-subscription-key",
    }
)
"""Headers that never travel to another origin, in lower case."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header name: the ``token`` of RFC 9110 §5.6.2."""

_SECRET_WORDS = ("auth", "token", "secret", "password", "credential", "cookie", "apikey", "api-key", "api_key")


class SignedHeaders(dict[str, str]):
    """Request headers that know which of them are secret.

    Attributes:
        secret: names in lower case; what is in `SECRET_HEADERS` need not be named.
    """

    __slots__ = ("secret",)

    def __init__(self, headers: Mapping[str, str], secret: Iterable[str] = ()) -> None:
        super().__init__(headers)
        self.secret = frozenset(name.lower() for name in secret)

    def plus(self, headers: Mapping[str, str]) -> SignedHeaders:
        """These and more; what is secret stays so."""
        return SignedHeaders({**self, **headers}, self.secret)


def sign(
    scheme: str,
    headers: Mapping[str, str],
    key: str | Secret | None,
    *,
    secret: Iterable[str] = (),
) -> SignedHeaders:
    """Headers with the credential added; the input is not changed.

    Args:
        scheme: ``"none"`` or a name in `SCHEMES`.
        headers: the request's headers. If they set the scheme's header themselves, theirs stays.
        key: the API key, wrapped or plain; None for a server that asks for none.
        secret: further headers, by name, that must not travel to another origin.

    Raises:
        ConfigError: an unknown scheme, or a key that cannot stand in a header. The message never shows the key.
    """
    signed = SignedHeaders(headers, secret)
    if scheme == "none" or key is None:
        return signed
    if scheme not in SCHEMES:
        known = ", ".join(["none", *SCHEMES])
        raise ConfigError(f"unknown authentication scheme {scheme!r}; known are: {known}", path="auth")
    name, prefix = SCHEMES[scheme]
    if not any(given.lower() == name for given in headers):
        signed[name] = prefix + check_key(key)
    return signed


def check_key(key: str | Secret) -> str:
    """The key in clear. Raises `ConfigError`, without showing it, if it cannot be sent."""
    clear = key if isinstance(key, str) else key.get_secret_value()
    if not clear:
        raise ConfigError("the API key is empty: set it, or leave it out for a server that needs none", path="api_key")
    if clear != clear.strip():
        raise ConfigError(
            "the API key begins or ends with a space or a line break (a key read from a file often does): remove it",
            path="api_key",
        )
    if not clear.isascii():
        raise ConfigError("the API key has characters that no key has (not ASCII): copy it again", path="api_key")
    if not clear.isprintable():
        raise ConfigError("the API key has a line break or control character in it: copy it again", path="api_key")
    return clear


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what cannot be sent, before a library does so in words that quote it.

    Raises:
        ConfigError: naming the header, never its value.
    """
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is not a valid header name", path="extra_headers")
        if not isinstance(value, str):
            raise ConfigError(f"the value of the header {name!r} must be a string", path=f"extra_headers.{name}")
        if not value.isascii() or not (value.isprintable() or value.replace("\t", "").isprintable()):
            raise ConfigError(
                f"the value of the header {name!r} has a line break, control or non-ASCII character",
                path=f"extra_headers.{name}",
            )


def is_secret(name: str, headers: Mapping[str, str]) -> bool:
    """Whether the header must stay with its origin: named in `SECRET_HEADERS` or as secret, or it looks like one."""
    lower = name.lower()
    if lower in SECRET_HEADERS or lower in getattr(headers, "secret", ()):
        return True
    return any(word in lower for word in _SECRET_WORDS) or headers[name].lower().startswith(("bearer ", "basic "))
