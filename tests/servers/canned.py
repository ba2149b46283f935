"""A server whose answers are lists of byte strings, and which remembers what the client did.

An answer is a list of steps, played in order for one request:

    bytes       sent as they are
    number      wait so many seconds
    Gate()      wait until the test opens the gate: order of events without timings
    "close"     end the connection in an orderly way
    "reset"     end it with a TCP reset
    "hang"      send nothing more, until the client goes

::

    gate = Gate()
    with CannedServer(stream(b"data: 1\\n\\n", gate, b"data: 2\\n\\n"), answer(b"{}", status=500)) as server:
        ...

The first answer belongs to the first request and so on; the last one is repeated. Instead of a list, a function from
the `Request` to one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import h11

from .background import Background


class Gate:
    """A step that waits. ``open()`` may be called from any thread; ``reached`` counts the answers that came to it."""

    def __init__(self) -> None:
        self.reached = 0
        self._open = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def open(self) -> None:
        self._open = True
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        self.reached += 1
        if not self._open:
            await event.wait()


Step = bytes | float | Gate | str
Answer = list[Step]


@dataclass(slots=True)
class Request:
    """What came in. ``headers``: names in lower case, the last of repeated ones; ``raw_headers``: all of them."""

    method: str
    target: str
    raw_headers: list[tuple[str, str]]
    body: bytes
    connection: int
    at: float
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = dict(self.raw_headers)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Disconnect:
    """A client that went while its answer was being played (``during``), or between two requests."""

    connection: int
    at: float
    during: bool


class CannedServer(Background):
    """See the module.

    Attributes:
        requests: all of them, in order of arrival.
        connections: how many were made; ``open_connections``: how many there are.
        disconnects: clients that went first, with the time of each on `time.monotonic`.
    """

    def __init__(
        self,
        *answers: Answer | Callable[[Request], Answer],
        ssl_context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(ssl_context, host)
        self.answers: list[Answer | Callable[[Request], Answer]] = list(answers) or [answer(b"{}")]
        self.requests: list[Request] = []
        self.connections = 0
        self.open_connections = 0
        self.disconnects: list[Disconnect] = []

    @property
    def url(self) -> str:
        return self.origin

    def protocol(self) -> asyncio.Protocol:
        return _Connection(self)

    def next_answer(self, request: Request) -> Answer:
        self.requests.append(request)
        found = self.answers[min(len(self.requests), len(self.answers)) - 1]
        return found(request) if callable(found) else found

    @property
    def interrupted(self) -> int:
        """How many answers a client walked away from."""
        return sum(gone.during for gone in self.disconnects)


class _Connection(asyncio.Protocol):
    def __init__(self, server: CannedServer) -> None:
        self.server = server
        self.transport: asyncio.Transport
        self.grammar = h11.Connection(h11.SERVER)
        self.head: h11.Request | None = None
        self.body: list[bytes] = []
        self.playing: asyncio.Task[None] | None = None
        self.we_closed = False
        self.noted = False
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.server.transports.add(transport)
        self.server.connections += 1
        self.server.open_connections += 1
        self.number = self.server.connections

    def data_received(self, data: bytes) -> None:
        self.grammar.receive_data(data)
        self._parse()

    def _parse(self) -> None:
        while self.playing is None:
            try:
                event = self.grammar.next_event()
            except h11.RemoteProtocolError:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                self.transport.close()
                return
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                self.head, self.body = event, []
                if self.grammar.they_are_waiting_for_100_continue:
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif isinstance(event, h11.Data):
                self.body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._begin()

    def _begin(self) -> None:
        head = self.head
        assert head is not None
        request = Request(
            method=head.method.decode(),
            target=head.target.decode("latin-1"),
            raw_headers=[(name.decode(), value.decode("latin-1")) for name, value in head.headers],
            body=b"".join(self.body),
            connection=self.number,
            at=time.monotonic(),
        )
        steps = self.server.next_answer(request)
        self.playing = asyncio.create_task(self._play(steps))

    async def _play(self, steps: Answer) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self.transport.write(step)
            elif isinstance(step, Gate):
                await step.wait()
            elif step == "close":
                self.we_closed = True
                self.transport.close()
                return
            elif step == "reset":
                self.we_closed = True
                raw = self.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.transport.abort()
                return
            elif step == "hang":
                await asyncio.Event().wait()
            elif isinstance(step, int | float):
                await asyncio.sleep(step)
            else:
                raise TypeError(f"not a step of an answer: {step!r}")
        # The bytes were raw, so the grammar knows nothing of our answer: the next request gets a fresh one.
        left = self.grammar.trailing_data[0]
        self.grammar = h11.Connection(h11.SERVER)
        if left:
            self.grammar.receive_data(left)
        self.playing = None
        self._parse()

    def _note_disconnect(self) -> None:
        if not self.noted and not self.we_closed:
            self.noted = True
            self.server.disconnects.append(Disconnect(self.number, time.monotonic(), self.playing is not None))

    def eof_received(self) -> bool:
        self._note_disconnect()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._note_disconnect()
        self.server.transports.discard(self.transport)
        self.server.open_connections -= 1
        if self.playing is not None:
            with suppress(RuntimeError):
                self.playing.cancel()


# -- answers -----------------------------------------------------------------------------------------------------------


def head(status: int = 200, headers: dict[str, str] | Iterable[tuple[str, str]] = ()) -> bytes:
    """A status line with headers."""
    pairs = headers.items() if isinstance(headers, dict) else headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1")


def answer(
    body: bytes = b"", status: int = 200, headers: dict[str, str] | None = None, content_type: str = "application/json"
) -> Answer:
    """A whole answer with its length."""
    return [head(status, {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}), body]


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"
"""The end of a chunked body."""


def stream(
    *steps: Step, status: int = 200, headers: dict[str, str] | None = None, content_type: str = "text/event-stream"
) -> Answer:
    """A chunked answer, one chunk for each byte string; other steps stand in between. Ends well unless the last step
    is ``"close"``, ``"reset"`` or ``"hang"``."""
    first = head(status, {"content-type": content_type, "transfer-encoding": "chunked", **(headers or {})})
    body: Answer = [chunk(step) if isinstance(step, bytes) else step for step in steps]
    ends = bool(steps) and steps[-1] in ("close", "reset", "hang")
    return [first, *body, *([] if ends else [END])]


def redirect(location: str, status: int = 307) -> Answer:
    return answer(b"", status, {"location": location})
