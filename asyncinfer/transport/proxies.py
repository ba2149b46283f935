"""Which proxy, if any, leads to a host: the environment's word, as `urllib` reads it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

from ..errors import ConfigError

if TYPE_CHECKING:
    from .address import Address

_SCHEMES = ("http", "https", "socks5", "socks5h")


def proxy_for(address: Address) -> str | None:
    """URL of the proxy for an address, credentials included; None for a direct connection.

    ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` (in either case; on macOS and Windows the system's
    settings too; networks like ``10.0.0.0/8`` are understood). Loopback is always reached directly.

    Raises:
        ConfigError: the variable holds something that is no proxy URL. The message does not quote it.
    """
    if address.loopback:
        return None
    proxies = getproxies()
    found = proxies.get(address.scheme) or proxies.get("all")
    if not found or proxy_bypass(f"{address.host}:{address.port}") or _in_network(address.host, proxies.get("no", "")):
        return None
    if "://" not in found:
        found = f"http://{found}"
    if found.partition("://")[0].lower() not in _SCHEMES:
        raise invalid_proxy(address)
    return found


def invalid_proxy(address: Address) -> ConfigError:
    """The environment's proxy for an address is no proxy URL."""
    known = ", ".join(f"{name}://" for name in _SCHEMES)
    return ConfigError(
        f"the proxy for {address.origin} (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) is not a URL that begins with {known}",
        path=f"{address.scheme.upper()}_PROXY",
    )


def _in_network(host: str, no_proxy: str) -> bool:
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    for entry in no_proxy.split(","):
        try:
            if ip in ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue  # a name
    return False
