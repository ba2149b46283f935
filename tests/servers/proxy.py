"""A forward proxy on loopback: absolute-form requests and CONNECT tunnels. It knows its own names.

``routes`` says where a host leads, so a test can speak to ``https://api.example.test`` with nothing but loopback::

    with ForwardProxy({"api.example.test:443": ("127.0.0.1", server.port)}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from .background import Background


@dataclass(slots=True)
class Asked:
    """What the proxy was asked: the request line's method and target, headers with lower-case names."""

    method: str
    target: str
    headers: dict[str, str]


class ForwardProxy(Background):
    """See the module.

    Args:
        routes: ``"host:port"`` to the address to connect to; anything else is answered with 502.
        user: ``"name:password"`` that it asks for, or None.
        silent: take connections and never answer.
    """

    def __init__(
        self, routes: dict[str, tuple[str, int]] | None = None, *, user: str | None = None, silent: bool = False
    ) -> None:
        super().__init__()
        self.routes = routes or {}
        self.user = user
        self.silent = silent
        self.asked: list[Asked] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return self.origin

    def protocol(self) -> asyncio.Protocol:
        reader = asyncio.StreamReader(loop=self.loop)

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.transports.add(writer.transport)
            task = self.loop.create_task(self._serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return asyncio.StreamReaderProtocol(reader, connected, loop=self.loop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._forward(reader, writer)
        self.transports.discard(writer.transport)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = await reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        self.asked.append(Asked(method, target, headers))
        if self.silent:
            await reader.read()
            return
        if self.user is not None:
            wanted = f"Basic {b64encode(self.user.encode()).decode()}"
            if headers.get("proxy-authorization") != wanted:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
                return
        if method == "CONNECT":
            host, onward = target, b""
        else:
            url = urlsplit(target)
            host = f"{url.hostname}:{url.port or 80}"
            path = url.path + (f"?{url.query}" if url.query else "")
            kept = [line for line in lines if line and not line.lower().startswith("proxy-")]
            onward = "\r\n".join([f"{method} {path or '/'} {version}", *kept, "", ""]).encode("latin-1")
        if host not in self.routes:
            writer.write(b"HTTP/1.1 502 Unknown Host\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            return
        there, back = await asyncio.open_connection(*self.routes[host])
        self.transports.add(back.transport)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        back.write(onward)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))
        self.transports.discard(back.transport)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    with suppress(OSError):
        sink.close()
