"""Absolute URLs, parsed once and kept: the parser costs more than a token does."""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import unquote

import httpx

from ..errors import ConfigError, RetryKind, TransportError

_PORTS = {"http": 80, "https": 443}


class Address:
    """One absolute http(s) URL.

    Attributes:
        url: as the library sends it, without credentials.
        scheme, host: in lower case.
        port: the explicit or default one.
        origin: ``"https://host:port"``, the port left out where it is the default.
        basic: value of an ``Authorization`` header, where the URL had ``user:password@``.
    """

    __slots__ = ("basic", "host", "origin", "port", "scheme", "url")

    def __init__(self, url: httpx.URL) -> None:
        self.basic: str | None = None
        if url.userinfo:
            user, _, password = url.userinfo.partition(b":")
            pair = f"{unquote(user.decode())}:{unquote(password.decode())}"
            self.basic = f"Basic {b64encode(pair.encode()).decode()}"
            url = url.copy_with(userinfo=b"")
        self.url = url.copy_with(fragment=None) if url.fragment else url
        self.scheme = url.scheme
        self.host = url.host.lower()
        self.port = url.port or _PORTS[url.scheme]
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.origin = f"{self.scheme}://{name}" + ("" if url.port is None else f":{url.port}")

    @property
    def shown(self) -> str:
        """The URL for a message: no credentials, no query (some providers take keys there)."""
        return f"{self.origin}{self.url.path}"

    @property
    def loopback(self) -> bool:
        """Whether it is this machine."""
        return is_loopback(self.host)

    def join(self, location: str) -> Address:
        """Where a ``Location`` header points. Raises `TransportError` if nowhere."""
        try:
            if "://" in location and not httpx.URL(location).host:
                raise ValueError
            url = self.url.join(location)
            if url.scheme not in _PORTS or not url.host:
                raise ValueError
            return Address(url.copy_with(userinfo=b""))
        except (httpx.InvalidURL, ValueError, TypeError):
            raise TransportError(
                f"{self.origin} redirects to something that is not an http(s) URL", retry=RetryKind.NEVER
            ) from None


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=512)
def parse(url: str) -> Address:
    """The address of an absolute URL.

    Raises:
        ConfigError: not an absolute http(s) URL; the message does not quote it, for it may hold credentials.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        raise ConfigError("the API URL is not a valid URL", path="api_url") from None
    if parsed.scheme not in _PORTS:
        said = f"not {parsed.scheme}://" if parsed.scheme else "and this one has no scheme"
        raise ConfigError(f"the API URL must begin with http:// or https://, {said}", path="api_url")
    if not parsed.host:
        raise ConfigError("the API URL names no host", path="api_url")
    return Address(parsed)
