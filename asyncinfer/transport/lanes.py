"""The connections of one event loop: a stack of lanes for each origin, each lane one connection.

A lane is an httpx transport whose pool holds a single connection, and it serves one exchange at a time. That makes
taking and giving back O(1): measured, one httpx pool with 500 connections in use spends 15 ms of CPU on every request,
walking over them, and lanes 1 ms. It also makes an early exit simple: the lane is thrown away, whatever state its
connection is in.

There is no cap: how many requests are in flight is the scheduler's business. The last lane given back is the first one
taken, so surplus lanes grow old at the bottom of the stack and are closed there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx

from ..errors import MissingDependencyError
from .proxies import invalid_proxy, proxy_for
from .tls import trusted, unused

if TYPE_CHECKING:
    import ssl

    from .address import Address

IDLE_SECONDS = 60.0
"""How long an idle connection is kept. A connection that the server closed meanwhile is noticed before it is used."""

_REAP = 2
"""Old lanes closed on each give-back: the stack shrinks faster than it grows, and nobody waits for long."""

_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_SECONDS)


class Lane:
    """One connection to one origin, or the place where it will be.

    Attributes:
        send: hands a request to the library, waits for the response's head.
        proxy: origin of the proxy on the way, or None.
    """

    __slots__ = ("_transport", "idle_since", "origin", "proxy", "send")

    def __init__(self, origin: str, transport: httpx.AsyncHTTPTransport, proxy: str | None) -> None:
        self.origin = origin
        self.proxy = proxy
        self.idle_since = 0.0
        self._transport = transport
        self.send = transport.handle_async_request

    async def aclose(self) -> None:
        """Close the connection, in whatever state. Never raises an `Exception`."""
        with suppress(Exception):
            await self._transport.aclose()


class Lanes:
    """All lanes of one event loop; used on its thread only.

    Args:
        ssl_context: for https; None for `tls.trusted`.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self.closed = False
        self.last_words: list[Callable[[], Awaitable[None]]] = []
        self._ssl_context = ssl_context
        self._idle: dict[str, deque[Lane]] = {}
        self._busy: set[Lane] = set()
        self._proxies: dict[str, httpx.Proxy | None] = {}

    def take(self, address: Address) -> Lane:
        """The lane used last, or a new one. Raises `ConfigError` for a bad proxy or certificate setting."""
        stack = self._idle.get(address.origin)
        lane = stack.pop() if stack else self._new(address)
        self._busy.add(lane)
        return lane

    async def give(self, lane: Lane) -> None:
        """Take back a lane whose exchange is complete."""
        self._busy.discard(lane)
        if self.closed:
            await lane.aclose()
            return
        now = time.monotonic()
        lane.idle_since = now
        stack = self._idle.setdefault(lane.origin, deque())
        stack.append(lane)
        for _ in range(_REAP):
            if not stack or now - stack[0].idle_since < IDLE_SECONDS:
                break
            await stack.popleft().aclose()

    async def discard(self, lane: Lane) -> None:
        """Close a lane whose exchange ended early."""
        self._busy.discard(lane)
        await lane.aclose()

    async def close_idle(self) -> None:
        """Close what nobody uses."""
        idle = [lane for stack in self._idle.values() for lane in stack]
        self._idle.clear()
        for lane in idle:
            await lane.aclose()

    async def close(self) -> None:
        """The loop ends."""
        self.closed = True
        words, self.last_words = self.last_words, []
        for say in words:
            await say()
        await self.close_idle()
        busy, self._busy = self._busy, set()
        for lane in busy:
            await lane.aclose()

    def _new(self, address: Address) -> Lane:
        if address.origin not in self._proxies:
            self._proxies[address.origin] = self._proxy(address)
        proxy = self._proxies[address.origin]
        secure = address.scheme == "https"
        context = (self._ssl_context or trusted()) if secure else unused()
        try:
            transport = httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=_LIMITS, proxy=proxy)
        except ImportError as error:
            raise MissingDependencyError(
                "the environment names a SOCKS proxy; install the support for it: pip install 'httpx[socks]'"
            ) from error
        via = None
        if proxy is not None:
            port = "" if proxy.url.port is None else f":{proxy.url.port}"
            via = f"{proxy.url.scheme}://{proxy.url.host}{port}"
        return Lane(address.origin, transport, via)

    def _proxy(self, address: Address) -> httpx.Proxy | None:
        found = proxy_for(address)
        if found is None:
            return None
        context = (self._ssl_context or trusted()) if found.lower().startswith("https:") else None
        try:
            proxy = httpx.Proxy(found, ssl_context=context)
        except (httpx.InvalidURL, ValueError):
            raise invalid_proxy(address) from None
        if not proxy.url.host:
            raise invalid_proxy(address)
        return proxy
