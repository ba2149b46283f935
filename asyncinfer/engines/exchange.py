"""One remote answer: encode, send, check the status, decode chunk by chunk."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from ..errors import AsyncInferError, RetryKind, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..events import Event
    from ..limits import RateHeaders
    from ..request import Request
    from ..transport.protocol import Exchange, Transport
    from ..wire.protocol import Decoder
    from .endpoint import Endpoint

_TAIL_GRACE = 5.0
"""Seconds granted to what may follow a whole answer."""
_MAX_ERROR_BYTES = 1 << 20


class RemoteSource:
    """See `engines.source.Source`."""

    __slots__ = ("_blamed", "_closing", "_decoder", "_ended", "_exchange", "rate", "request_id")

    def __init__(
        self,
        exchange: Exchange,
        decoder: Decoder,
        rate: RateHeaders,
        request_id: str | None,
        blamed: Callable[[AsyncInferError], AsyncInferError] | None = None,
    ) -> None:
        self._blamed = blamed
        self._exchange = exchange
        self._decoder = decoder
        self._closing = False
        self._ended = False
        self.rate = rate
        self.request_id = request_id

    async def pull(self) -> list[Event] | None:
        read, decoder = self._exchange.read, self._decoder
        while not self._ended:
            events: list[Event] = []
            # The body's end may be withheld by the server; the format's own end is enough.
            if not self._closing and not decoder.done:
                chunk = await (self._tail() if decoder.complete else read())
                if chunk:
                    events = self._decoded(chunk)
                else:
                    self._closing = True
            else:
                # Until it has nothing more to say: an error may follow the last events.
                events = self._decoded(None)
                self._ended = not events
            if events:
                return events
        return None

    def _decoded(self, chunk: bytes | None) -> list[Event]:
        try:
            return self._decoder.close() if chunk is None else self._decoder.feed(chunk)
        except AsyncInferError as error:
            if self._blamed is not None:
                self._blamed(error)
            raise

    async def _tail(self) -> bytes:
        """What follows a whole answer (usage, the terminal marker), if it comes soon and the connection holds."""
        import anyio

        with anyio.move_on_after(_TAIL_GRACE), contextlib.suppress(TransportError):
            return await self._exchange.read()
        return b""

    def abort(self) -> None:
        self._exchange.abort()

    async def aclose(self) -> None:
        # A connection is reused only if its body was read to the end, which is usually there already.
        while await self._exchange.read():
            pass
        await self._exchange.aclose()


async def open_source(transport: Transport, endpoint: Endpoint, request: Request) -> RemoteSource:
    """Send a request. Raises the typed error, with its verdict, for a status of 400 or more."""
    codec, dialect = endpoint.codec, endpoint.provider.dialect
    wire = codec.encode(request, dialect)
    sent = endpoint.headers.plus(wire.headers)
    if endpoint.credential is not None:
        sent = sent.plus(await endpoint.credential.headers())
    exchange = await transport.open(
        wire.method,
        endpoint.urls.join(wire.path),
        sent,
        wire.body,
        connect_timeout=request.timeouts.connect,
    )
    try:
        headers = exchange.headers
        rate = codec.rate_headers(headers, time.time(), dialect)
        if exchange.status >= 400:
            error = codec.error(exchange.status, _dated(headers), await read_all(exchange, _MAX_ERROR_BYTES))
            error.rate = rate
            if exchange.status == 401 and endpoint.credential is not None and endpoint.credential.refused(sent):
                error.retry = RetryKind.TRANSIENT  # with the next token
            await exchange.aclose()
            raise error
        decoder = codec.decoder(request, dialect, headers.get("content-type", ""))
    except BaseException as error:
        exchange.abort()
        if isinstance(error, AsyncInferError):
            endpoint.blamed(error)
        raise
    return RemoteSource(exchange, decoder, rate, codec.request_id(headers), endpoint.blamed)


def _dated(headers: Mapping[str, str]) -> Mapping[str, str]:
    """``headers`` with a date, by which codecs, having no clock, read a ``retry-after`` that names a moment."""
    if "date" in headers or "retry-after" not in headers:
        return headers
    from email.utils import formatdate

    return {**headers, "date": formatdate(time.time(), usegmt=True)}


async def read_all(exchange: Exchange, bound: int) -> bytes:
    """The whole body, or its first ``bound`` bytes and a little."""
    parts: list[bytes] = []
    size = 0
    try:
        while chunk := await exchange.read():
            parts.append(chunk)
            size += len(chunk)
            if size > bound:
                break
    except TransportError:
        if exchange.status < 400:
            raise
        # An error whose body breaks off is still that error.
    return b"".join(parts)
