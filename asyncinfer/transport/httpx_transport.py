"""The general lane: HTTP/1.1 over httpx, with the environment's proxies, verified TLS, redirects and decompression.

Connections belong to the running event loop and are closed when it ends; one `HttpxTransport` serves any number of
loops and threads. There is no timeout here but the one on connecting: the engines have their own clocks.

A client may be handed over, `httpx.AsyncClient` or `httpx2.AsyncClient` (recognised without importing that library).
It is used as it is, with its proxies, authentication, event hooks, connection limits, HTTP/2, and never closed by us.
Two things differ from its own ways: redirects follow our rules (`redirects`), whatever ``follow_redirects`` says, and
a timeout that nobody chose (the library's default of five seconds, which no language model keeps) does not count.
Timeouts that were chosen stay. Such a client belongs to the loop that it is used on.
"""

from __future__ import annotations

import math
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from .._version import __version__
from ..errors import ConfigError, ConnectTimeout
from ..loops import Loop, LoopClosed, running
from .address import parse
from .auth import SignedHeaders, check_headers, is_secret
from .body import announced, body_of
from .decompress import accept_encoding
from .exchange import HttpxExchange, hang_up, quietly
from .failures import Place, quotable, translate
from .lanes import Lane, Lanes
from .redirects import LIMIT, STATUSES, Hop, keep, refused
from .redirects import follow as next_hop

if TYPE_CHECKING:
    import ssl

    from .protocol import Upload

_HTTPX: ModuleType = httpx
_USER_AGENT = f"asyncinfer/{__version__}"


class HttpxTransport:
    """See `protocol.Transport`.

    Args:
        client: an ``httpx.AsyncClient`` or ``httpx2.AsyncClient`` to use as it is; None for connections of our own.
        ssl_context: for our own connections; None for the system's certificates (or ``SSL_CERT_FILE``).

    Raises:
        ConfigError: ``client`` is something else.
    """

    def __init__(self, *, client: Any = None, ssl_context: ssl.SSLContext | None = None) -> None:
        self._client = client
        self._module = _HTTPX if client is None else library_of(client)
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[Loop, Lanes] = weakref.WeakKeyDictionary()

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
    ) -> HttpxExchange:
        loop = running()
        address = parse(url)
        check_headers(headers)
        if not trusted:
            given = headers
            headers = keep(given, lambda name: not is_secret(name, given))
        if address.basic is not None and not any(name.lower() == "authorization" for name in headers):
            headers = SignedHeaders(headers, getattr(headers, "secret", ()))
            headers["authorization"] = address.basic
        hop = Hop(method.upper(), address, headers, body, trusted)
        for _ in range(LIMIT + 1):
            if self._client is None:
                exchange = await self._send_on_lane(loop, hop, connect_timeout)
            else:
                exchange = await self._send_on_client(loop, hop, connect_timeout)
            location = exchange.headers.get("location")
            if exchange.status not in STATUSES or location is None or not follow:
                return exchange
            if exchange.headers.get("content-length") == "0":
                await exchange.read()
            await exchange.aclose()
            hop = next_hop(hop, exchange.status, location)
        raise refused(f"{address.origin} redirects more than {LIMIT} times")

    async def aclose(self) -> None:
        """Close the idle connections of the running loop. What is in flight goes on; a client of others stays open."""
        with self._lock:
            lanes = self._by_loop.get(running())
        if lanes is not None:
            await lanes.close_idle()

    # -- our own connections -----------------------------------------------------------------------------------------

    def _lanes(self, loop: Loop) -> Lanes:
        with self._lock:
            lanes = self._by_loop.get(loop)
            if lanes is None or lanes.closed:
                lanes = self._by_loop[loop] = Lanes(self._ssl_context)
                loop.at_end(lanes.close)
        return lanes

    async def _send_on_lane(self, loop: Loop, hop: Hop, connect_timeout: float | None) -> HttpxExchange:
        lanes = self._lanes(loop)
        lane = lanes.take(hop.address)
        place = Place(hop.address, lane.proxy, connect_timeout)
        watch = _Watch()
        try:
            content, length = announced(hop.body)
            headers = {**_complete(hop.headers), **length}
            request = httpx.Request(hop.method, hop.address.url, headers=headers, content=content)
            request.stream = body_of(_HTTPX)(hop.body)
            response = await watch.send(lane, request, place)
            return HttpxExchange(response, httpx, loop, place, lane, lanes)
        except GeneratorExit:  # the coroutine is being thrown away: nothing may be awaited in it
            for close in (watch.close, partial(lanes.discard, lane)):
                with suppress(LoopClosed):
                    loop.spawn(close)
            raise
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await watch.close()
                await lanes.discard(lane)
            if isinstance(error, Exception):
                raise translate(error, httpx, place) from quotable(error, httpx)
            raise

    # -- a client that was handed over -------------------------------------------------------------------------------

    async def _send_on_client(self, loop: Loop, hop: Hop, connect_timeout: float | None) -> HttpxExchange:
        client, module = self._client, self._module
        place = Place(hop.address, None, connect_timeout)
        try:
            timeout = client_timeout(module, client.timeout, connect_timeout)
            url = str(hop.address.url)
            content, length = announced(hop.body)
            request = client.build_request(
                hop.method, url, headers={**hop.headers, **length}, content=content, timeout=timeout
            )
            request.stream = body_of(module)(hop.body)
            options: dict[str, Any] = {}
            if not hop.trusted:  # what the client adds by itself belongs to the origin that the caller named, too
                for name in [name for name in request.headers if is_secret(name, request.headers)]:
                    del request.headers[name]
                options["auth"] = None
            response = await client.send(request, stream=True, follow_redirects=False, **options)
            return HttpxExchange(response, module, loop, place)
        except Exception as error:  # noqa: BLE001 - the seam: nothing foreign passes
            raise translate(error, module, place) from quotable(error, module)


def library_of(client: Any) -> ModuleType:
    """The library, of those that somebody imported, whose async client this is. Raises `ConfigError` if none."""
    for name in ("httpx", "httpx2"):
        module = sys.modules.get(name)
        if module is not None and isinstance(client, module.AsyncClient):
            return module
    raise ConfigError(
        f"client must be an httpx.AsyncClient or an httpx2.AsyncClient, not {type(client).__name__}", path="client"
    )


def client_timeout(module: ModuleType, chosen: Any, connect: float | None) -> Any:
    """The client's own timeouts where somebody chose them, else only ours on connecting."""
    if chosen == module.Timeout(5.0):
        return module.Timeout(None, connect=connect)
    bounds = [seconds for seconds in (chosen.connect, connect) if seconds is not None]
    return module.Timeout(connect=min(bounds, default=None), read=chosen.read, write=chosen.write, pool=chosen.pool)


def _complete(headers: Mapping[str, str]) -> dict[str, str]:
    given = {name.lower(): value for name, value in headers.items()}
    return {
        "accept": "*/*",
        "accept-encoding": accept_encoding(),
        "connection": "keep-alive",
        "user-agent": _USER_AGENT,
        **given,
    }


class _Watch:
    """Follows one request through the library's trace events, up to its first byte.

    It lifts the bound on connecting (one for name, TCP, TLS and the proxy's part together; the library's own would
    start anew for each), and it knows the connection that the library forgets when stopped inside a TLS handshake.
    """

    __slots__ = ("_scope", "_stream")

    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None
        self._stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "http11.send_request_headers.started":
            if self._scope is not None and info["request"].method != b"CONNECT":
                self._scope.deadline = math.inf
        elif event.endswith(".connect_tcp.complete"):
            self._stream = info["return_value"]

    async def send(self, lane: Lane, request: httpx.Request, place: Place) -> httpx.Response:
        """Send, with the bound on connecting. One cancel scope for a request; none for a token."""
        request.extensions["trace"] = self
        seconds = place.connect_timeout
        if seconds is None:
            return await lane.send(request)
        with anyio.move_on_after(seconds) as self._scope:
            return await lane.send(request)
        raise ConnectTimeout(f"no connection to {place.name} within {seconds:g} s", seconds=seconds)

    async def close(self) -> None:
        """Close the connection, if one was made for this request."""
        if self._stream is not None:
            hang_up(self._stream)
            await quietly(self._stream.aclose)


# -- the process's transport -------------------------------------------------------------------------------------------

_shared: HttpxTransport | None = None
_shared_lock = threading.Lock()


def shared_transport() -> HttpxTransport:
    """The transport that every engine of the process uses unless it is given another one."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = HttpxTransport()
        return _shared
