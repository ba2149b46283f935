"""The seam of this room: open a request; get status, headers, chunks of bytes; close.

Two lanes stand behind it: httpx (general: proxies, custom clients) and, for speed, a direct one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol


class Exchange(Protocol):
    """One request on its way: the response's head is there, its body is read chunk by chunk.

    Attributes:
        status: HTTP status code.
        headers: response headers, names in lower case, repeated ones joined with ``", "``.
    """

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """The next chunk of the (decompressed) body, ``b""`` at its end.

        Raises `TransportError` if the connection breaks. Cancelling the call aborts the exchange.
        """
        ...

    async def aclose(self) -> None:
        """Give the connection back to the pool if the body was read to its end, close it otherwise. Idempotent."""
        ...

    def abort(self) -> None:
        """Stop now: the server sees the disconnect without anybody awaiting anything. Idempotent; call it on the
        event loop that opened the exchange."""
        ...


class Upload(Protocol):
    """A request body that is too large to hold: sent piece by piece, of a length known before.

    Attributes:
        size: bytes that an iteration gives, exactly.
    """

    @property
    def size(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces, from the beginning each time: a redirect sends a body again. The iterator must need no cleaning
        up, since a request that fails drops it (so: no async generator)."""
        ...


class Transport(Protocol):
    """Opens exchanges. One transport serves every engine of a process; connections belong to the running loop."""

    async def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Upload = b"",
        *,
        connect_timeout: float | None = None,
        follow: bool = True,
        trusted: bool = True,
    ) -> Exchange:
        """Send a request and wait for the response's head.

        Args:
            method: ``"GET"``, ``"POST"`` ...
            url: absolute URL.
            headers: all request headers but Host and Content-Length.
            body: request body, in one piece or as an `Upload`.
            connect_timeout: seconds for name lookup, TCP and TLS together; None for no bound.
            follow: whether redirects are followed; else one is an answer like any other.
            trusted: whether credentials may be sent there; False keeps back what the headers, or a client that was
                handed over, have of them (for a URL that a server named, and that is signed itself).

        Raises:
            ConnectError, ConnectTimeout: no connection.
            TransportError: the connection broke before the head was there.
        """
        ...

    async def aclose(self) -> None:
        """Close the idle connections of the running loop."""
        ...
