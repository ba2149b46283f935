"""What happens when a server says "look elsewhere". Pure policy.

* Credentials stay with their origin (scheme, host, port): to another one they are left out.
* 307 and 308 repeat the request as it is. 303, and any redirect of a GET, is followed with GET. 301 or 302 in answer to
  a POST would make browsers drop the body; for inference that is always a wrong URL, so it is an error that names the
  right one.
* Never from https to http: the prompt would travel in clear.
* At most `LIMIT` hops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..errors import RetryKind, TransportError
from .auth import SignedHeaders, is_secret

if TYPE_CHECKING:
    from .address import Address
    from .protocol import Upload

LIMIT = 5
"""Hops for one request."""

STATUSES = frozenset({301, 302, 303, 307, 308})

_log = logging.getLogger("asyncinfer.transport")


class Hop(NamedTuple):
    """One request to be sent. ``trusted``: the origin is the one that the caller named."""

    method: str
    address: Address
    headers: Mapping[str, str]
    body: bytes | Upload
    trusted: bool = True


def follow(hop: Hop, status: int, location: str) -> Hop:
    """The request that answers a redirect.

    Args:
        hop: the request that was redirected.
        status: one of `STATUSES`.
        location: the ``Location`` header, absolute or relative.

    Raises:
        TransportError: a redirect that must not be followed; not retryable.
    """
    here = hop.address
    there = here.join(location)
    if here.scheme == "https" and there.scheme != "https":
        raise refused(f"{here.origin} redirects to {there.origin}, which is not encrypted: refused")
    method: str = hop.method
    body: bytes | Upload = hop.body
    if status not in {307, 308} and method not in {"GET", "HEAD"}:
        if status != 303:
            raise refused(
                f"{here.origin} answers {method} with {status}, a redirect to {there.origin} that would drop the body: "
                f"set the API URL to {there.shown}"
            )
        method, body = "GET", b""
    headers: Mapping[str, str] = hop.headers
    if method != hop.method:
        headers = keep(headers, lambda name: not name.lower().startswith("content-"))
    if there.origin == here.origin:
        return Hop(method, there, headers, body, hop.trusted)
    stripped = keep(headers, lambda name: name.lower() != "host" and not is_secret(name, headers))
    if len(stripped) < len(headers):
        _log.warning("%s redirects to %s: credentials are not sent there", here.origin, there.origin)
    return Hop(method, there, stripped, body, trusted=False)


def keep(headers: Mapping[str, str], wanted: Callable[[str], bool]) -> SignedHeaders:
    """The headers whose name is wanted."""
    return SignedHeaders({n: v for n, v in headers.items() if wanted(n)}, getattr(headers, "secret", ()))


def refused(message: str) -> TransportError:
    """A redirect that is not followed: trying again cannot help."""
    return TransportError(message, retry=RetryKind.NEVER)
