"""One request on its way, over a library of the httpx family.

Three ways out, each leaving neither a connection nor a task nor a suspended generator behind:

* the body was read to its end: the connection goes back, inside the `read` that returns ``b""``;
* `read` is cancelled or fails: everything is closed before the exception goes on;
* `abort`, from anywhere on the loop: the socket is shut down at once, in one system call (the server sees it, a `read`
  that waits wakes up), and a background task puts the library's objects away.

The library's body is a pile of async generators. Dropped half-read, each would leave a ResourceWarning on trio, so they
are never dropped: after closing, the pile is stepped once more, meets the closed socket and unwinds from inside.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import RetryKind, TransportError
from ..loops import LoopClosed
from .decompress import decoder_for
from .failures import Place, quotable, translate

if TYPE_CHECKING:
    from ..loops import Loop
    from .decompress import Decoder
    from .lanes import Lane, Lanes

_OPEN, _ENDED, _ABORTED = range(3)


class HttpxExchange:
    """See `protocol.Exchange`.

    Args:
        response: an unread response of the library, httpx or httpx2.
        module: that library.
        loop: the running loop.
        place: whom we speak to, for messages.
        lane, lanes: where the connection goes afterwards; None where a handed-over client owns it.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_decode",
        "_lane",
        "_lanes",
        "_loop",
        "_module",
        "_place",
        "_response",
        "_state",
        "headers",
        "status",
    )

    def __init__(
        self,
        response: Any,
        module: ModuleType,
        loop: Loop,
        place: Place,
        lane: Lane | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = dict(response.headers.items())
        self._response = response
        self._module = module
        self._loop = loop
        self._place = place
        self._lane = lane
        self._lanes = lanes
        self._body: Any = None
        self._decode: Decoder | None = None
        self._state = _OPEN
        loop.adopt(self)

    async def read(self) -> bytes:
        if self._state != _OPEN:
            return self._nothing_more()
        try:
            step = (self._body or self._start()).__anext__
            while True:
                chunk: bytes = await step()
                if self._decode is not None:
                    chunk = self._decoded(chunk)
                if chunk:
                    return chunk
        except StopAsyncIteration:
            await self._end()
            return self._nothing_more()
        except GeneratorExit:  # the reading coroutine is being thrown away: nothing may be awaited in it
            self.abort()
            raise
        except Exception as error:  # noqa: BLE001 - the seam: nothing foreign passes
            stopped = self._state == _ABORTED
            await self._stop()
            if stopped:
                raise self._was_aborted() from None
            raise translate(error, self._module, self._place) from quotable(error, self._module)
        except BaseException:
            await self._stop()
            raise

    async def aclose(self) -> None:
        if self._state == _OPEN:
            await self._stop()

    def abort(self) -> None:
        if self._state != _OPEN:
            return
        self._state = _ABORTED
        self._hang_up()
        try:
            self._loop.spawn(self._put_away)
        except LoopClosed:
            # trio starts no tasks while it ends a run, but what the lanes do at that end is awaited.
            if self._lanes is not None and not self._lanes.closed:
                self._lanes.last_words.append(self._put_away)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _start(self) -> Any:
        """Make `_body`, the generator of the body's chunks, still compressed."""
        response = self._response
        if response.is_stream_consumed:  # an event hook of a handed-over client has read it, decoded already
            self._body = response.aiter_bytes()
            return self._body
        try:
            self._decode = decoder_for(self.headers.get("content-encoding", ""))
        except KeyError as error:
            raise TransportError(
                f"{self._place.name} sent a body compressed as {error.args[0]!r}, which cannot be read here",
                retry=RetryKind.NEVER,
            ) from None
        self._body = response.stream.__aiter__()
        return self._body

    def _decoded(self, chunk: bytes) -> bytes:
        assert self._decode is not None
        try:
            return self._decode(chunk)
        except Exception as error:  # each library has its own
            raise TransportError(f"the compressed body that {self._place.name} sent is damaged") from error

    def _nothing_more(self) -> bytes:
        if self._state == _ENDED:
            return b""
        raise self._was_aborted()

    def _was_aborted(self) -> TransportError:
        return TransportError(f"the exchange with {self._place.name} was stopped", retry=RetryKind.NEVER)

    async def _end(self) -> None:
        """The body is complete."""
        try:
            await self._response.aclose()
        except BaseException as error:
            await self._stop()
            if isinstance(error, Exception):
                raise translate(error, self._module, self._place) from quotable(error, self._module)
            raise
        if self._state != _OPEN:  # aborted meanwhile
            return
        self._state = _ENDED
        if self._lane is not None and self._lanes is not None:
            await self._lanes.give(self._lane)

    async def _stop(self) -> None:
        """Close everything, now, in the running task, cancelled or not."""
        self._state = _ABORTED
        self._hang_up()
        with anyio.CancelScope(shield=True):
            await self._put_away()

    def _hang_up(self) -> None:
        """The server sees the disconnect. Nothing is released yet: the library still owns the socket."""
        if self._multiplexed:
            return  # other streams share the connection
        stream = self._response.extensions.get("network_stream")
        if stream is not None:
            hang_up(stream)

    @property
    def _multiplexed(self) -> bool:
        return self._response.extensions.get("http_version") not in {None, b"HTTP/1.1", b"HTTP/1.0"}

    async def _put_away(self) -> None:
        await quietly(self._response.aclose)
        body = self._body
        if body is not None:
            if "network_stream" in self._response.extensions and not self._multiplexed:
                await quietly(self._unwind)
            await quietly(body.aclose)
        if self._lane is not None and self._lanes is not None:
            await self._lanes.discard(self._lane)

    async def _unwind(self) -> None:
        """Step the generators until they meet the closed socket; what had already arrived comes out first."""
        async for _ in self._body:
            pass


async def quietly(close: Callable[[], Awaitable[object]]) -> None:
    """Await a clean-up step whose failure changes nothing any more."""
    with suppress(Exception):
        await close()


def hang_up(stream: Any) -> None:
    """End a connection in both directions, now, without closing the socket under its owner (a network stream)."""
    with suppress(Exception):
        raw = stream.get_extra_info("socket")
        if raw is not None:
            _shut_down(raw)


def _shut_down(raw: Any) -> None:
    try:
        raw.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # already ended
    except (TypeError, AttributeError, NotImplementedError):  # uvloop's stand-in for a socket cannot
        with socket.socket(fileno=os.dup(raw.fileno())) as twin, suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)
