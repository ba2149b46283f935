"""The one table in which foreign exceptions become ours.

One table for each library of the httpx family (`httpx`, `httpx2`): they have the same classes by name, and none of one
is a class of the other. No message quotes a URL's credentials, its query, or a header.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import AsyncInferError, ConfigError, ConnectError, ConnectTimeout, RetryKind, TransportError

if TYPE_CHECKING:
    from .address import Address

_NEVER = RetryKind.NEVER


@dataclass(frozen=True, slots=True)
class Place:
    """Where it happened.

    Attributes:
        address: whom we spoke to, or tried to.
        proxy: origin of the proxy on the way, if any.
        connect_timeout: the bound on connecting, in seconds.
    """

    address: Address
    proxy: str | None = None
    connect_timeout: float | None = None

    @property
    def name(self) -> str:
        """For a sentence: the origin, and the proxy on the way."""
        return self.address.origin + (f" (through the proxy {self.proxy})" if self.proxy else "")


def translate(error: Exception, module: ModuleType, place: Place) -> AsyncInferError:
    """Our error for an exception of the library (or of anything below it)."""
    if isinstance(error, AsyncInferError):
        return error
    for kind, make in _table(module):
        if isinstance(error, kind):
            return make(error, place)
    return TransportError(f"{type(error).__name__} in the HTTP client, talking to {place.name}", retry=_NEVER)


def quotable(error: Exception, module: ModuleType) -> Exception | None:
    """What may stand as the cause of ours in a traceback: not the errors that quote what we sent."""
    secretive = (module.LocalProtocolError, module.InvalidURL, module.UnsupportedProtocol, UnicodeError)
    return None if isinstance(error, secretive) else error


@lru_cache(maxsize=4)
def _table(module: ModuleType) -> tuple[tuple[Any, Callable[[Any, Place], AsyncInferError]], ...]:
    """First match decides: subclasses stand above their bases."""
    return (
        (module.ConnectTimeout, _connect_timeout),
        (module.PoolTimeout, _pool_timeout),
        (module.TimeoutException, _silence),
        (module.ProxyError, _proxy),
        (module.ConnectError, _connect),
        (module.RemoteProtocolError, _remote_protocol),
        (module.LocalProtocolError, _local_protocol),
        (module.UnsupportedProtocol, _url),
        (module.InvalidURL, _url),
        (module.DecodingError, _undecodable),
        (module.TransportError, _broke),
        (module.StreamError, _stream),
        (OSError, _broke),
        (RuntimeError, _runtime),
        (UnicodeError, _local_protocol),
    )


def _connect_timeout(_: Exception, place: Place) -> AsyncInferError:
    seconds = place.connect_timeout
    within = "in time" if seconds is None else f"within {seconds:g} s"
    return ConnectTimeout(f"no connection to {place.name} {within}", seconds=seconds)


def _pool_timeout(_: Exception, place: Place) -> AsyncInferError:
    return TransportError(
        f"no free connection to {place.name} in the pool of the client that was handed over: raise its max_connections"
    )


def _silence(error: Exception, place: Place) -> AsyncInferError:
    what = "took nothing" if "Write" in type(error).__name__ else "sent nothing"
    return TransportError(f"{place.name} {what} for longer than the timeout of the client that was handed over")


def _proxy(error: Exception, place: Place) -> AsyncInferError:
    said = str(error)
    if said.startswith("407"):
        return ConnectError(
            f"the proxy {place.proxy} asks for a user name and password: put them into the proxy's URL", retry=_NEVER
        )
    status = re.match(r"\d{3}\b[\w -]*", said)
    reason = f"it answered {status[0].strip()}" if status else "it refused, or broke off"
    return ConnectError(f"the proxy {place.proxy} does not lead to {place.address.origin}: {reason}")


def _connect(error: Exception, place: Place) -> AsyncInferError:
    whom = place.proxy or place.address.origin
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConnectError(
                f"the certificate of {place.address.origin} is not trusted: {cause.verify_message}; "
                "for a private authority, name its certificate file in SSL_CERT_FILE",
                retry=_NEVER,
            )
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "reason", None) or type(cause).__name__
            if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
                return ConnectError(f"{place.name} does not speak TLS: is its URL http://, not https://?", retry=_NEVER)
            return ConnectError(f"the TLS handshake with {place.name} failed ({reason}): does it speak https?")
        if isinstance(cause, socket.gaierror):
            return ConnectError(f"the name of {whom} does not resolve: check the URL and the network")
        if isinstance(cause, ConnectionRefusedError):
            hint = f": is the server running at {whom}?" if place.address.loopback else ""
            return ConnectError(f"{whom} refuses connections{hint}")
        if isinstance(cause, OSError) and cause.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH}:
            return ConnectError(f"there is no route to {whom}: check the network")
    return ConnectError(f"no connection to {place.name}: {_reason(error)}")


def _remote_protocol(error: Exception, place: Place) -> AsyncInferError:
    said = str(error)
    if "without sending" in said or "disconnected" in said:  # h11's, or "Server disconnected ..."
        return TransportError(f"{place.name} closed the connection before its answer was complete")
    return TransportError(f"{place.name} sent something that is not HTTP: is the URL right?", retry=_NEVER)


def _local_protocol(_: Exception, place: Place) -> AsyncInferError:
    return TransportError(f"the request to {place.name} cannot be sent: its URL or a header is not valid", retry=_NEVER)


def _url(_: Exception, __: Place) -> AsyncInferError:
    return ConfigError("the API URL is not a valid URL", path="api_url")


def _undecodable(_: Exception, place: Place) -> AsyncInferError:
    return TransportError(f"the compressed body that {place.name} sent is damaged")


def _stream(_: Exception, place: Place) -> AsyncInferError:
    return TransportError(f"the answer of {place.name} was read or closed by somebody else", retry=_NEVER)


def _runtime(error: Exception, place: Place) -> AsyncInferError:
    said = str(error)
    if "loop" in said:
        return TransportError(
            "the client that was handed over belongs to another event loop: hand over one for each loop, or none",
            retry=_NEVER,
        )
    if "closed" in said:
        return TransportError("the client that was handed over has been closed", retry=_NEVER)
    return TransportError(f"RuntimeError in the HTTP client, talking to {place.name}", retry=_NEVER)


def _broke(error: Exception, place: Place) -> AsyncInferError:
    return TransportError(f"the connection to {place.name} broke: {_reason(error)}")


def _reason(error: BaseException) -> str:
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
            return cause.strerror
    return "closed by the other side"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it came from, and the members of groups, without cycles."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            todo.extend(one.exceptions)
        todo.extend((one.__cause__, one.__context__))
