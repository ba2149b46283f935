"""A loop in a thread of its own: what every server of this room runs on."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable

import anyio


class Background:
    """A TCP server on a free loopback port, as a context manager. Subclasses give `protocol`.

    ``self.loop`` is the server's loop, ``self.port`` its port. Everything that the server records is written on that
    loop's thread and may be read from any.
    """

    scheme = "http"

    def __init__(self, ssl_context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.loop: asyncio.AbstractEventLoop
        self.transports: set[asyncio.BaseTransport] = set()
        self._ssl_context = ssl_context
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event
        if ssl_context is not None:
            self.scheme = "https"

    def protocol(self) -> asyncio.Protocol:
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:port``"""
        return f"{self.scheme}://{self.host}:{self.port}"

    def start(self, port: int = 0):
        started = threading.Event()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self.serve(port, started.set))
            except BaseException as error:
                failures.append(error)
            finally:
                started.set()

        self._thread = threading.Thread(target=run, name=type(self).__name__, daemon=True)
        self._thread.start()
        started.wait()
        if failures:
            raise failures[0]
        return self

    def stop(self) -> None:
        if self._thread is None:
            return
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the server's thread did not end"
        self._thread = None

    async def serve(self, port: int, started: Callable[[], object]) -> None:
        """Serve in the running loop until `stop`."""
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self.loop.create_server(
            self.protocol, self.host, port, ssl=self._ssl_context, backlog=4096, reuse_address=True
        )
        self.port = server.sockets[0].getsockname()[1]
        started()
        try:
            await self._stopping.wait()
        finally:
            server.close()
            for _ in range(5):  # a connection that was just accepted shows only after a few turns of the loop
                for transport in list(self.transports):
                    transport.abort()  # type: ignore[attr-defined]
                await asyncio.sleep(0)

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


async def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until ``condition()`` is true of what a server recorded; AssertionError after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {condition}"
        await anyio.sleep(0.002)
