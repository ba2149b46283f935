"""The lines of a file on its way, one at a time: memory is one line and one chunk."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from ...errors import EventTooLargeError, TransportError
from ...loops import LoopClosed, running

if TYPE_CHECKING:
    from ...loops import Loop
    from ...transport.protocol import Exchange

_LONGEST = 256 << 20
"""Bytes of the longest line: more than any provider takes for a whole file."""


class Lines:
    """Reads a response's body line by line. Dropping it closes the connection.

    Args:
        exchange: an exchange whose status is good.
        silence: seconds between two chunks, at most.
        path, provider: for messages.
        loop: where the exchange lives; None for the running loop.
    """

    __slots__ = ("_ended", "_exchange", "_lines", "_loop", "_path", "_provider", "_silence", "_tail")

    def __init__(self, exchange: Exchange, silence: float, path: str, provider: str, loop: Loop | None = None) -> None:
        self._exchange = exchange
        self._silence = silence
        self._path = path
        self._provider = provider
        self._loop = loop or running()
        self._lines: list[bytes] = []
        self._tail: list[bytes] = []
        self._ended = False

    async def next(self) -> bytes | None:
        """The next line that is not blank, without its end; None when there are no more.

        Raises:
            TransportError: the connection broke, or nothing came for too long.
            EventTooLargeError: a line without end.
        """
        while True:
            while self._lines:
                line = self._lines.pop()
                if line.strip():
                    return line
            if self._ended:
                return None
            await self._fill()

    async def _fill(self) -> None:
        chunk = None
        try:
            with anyio.move_on_after(self._silence):
                chunk = await self._exchange.read()
        except TransportError:
            self.close()
            raise
        if chunk is None:
            self.close()
            raise TransportError(f"nothing more of {self._path} within {self._silence:.0f} s", provider=self._provider)
        if not chunk:
            self._ended = True
            self._lines = [b"".join(self._tail)]
            self._tail = []
            await self._exchange.aclose()
            return
        head, newline, rest = chunk.partition(b"\n")
        self._tail.append(head)
        if not newline:
            if sum(map(len, self._tail)) > _LONGEST:
                self.close()
                raise EventTooLargeError(
                    f"a line of {self._path} is longer than {_LONGEST} bytes", provider=self._provider
                )
            return
        lines = [b"".join(self._tail), *rest.split(b"\n")]
        self._tail = [lines.pop()]
        lines.reverse()
        self._lines = lines

    def close(self) -> None:
        """Stop reading."""
        self._ended = True
        self._exchange.abort()

    def __del__(self) -> None:
        if not self._ended:
            with suppress(LoopClosed):
                self._loop.soon(self._exchange.abort)
