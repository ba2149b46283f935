"""The outline of every decoder of a body: first byte, events, errors in their place, the end.

Which of a stream and a document a body is, its first byte tells, whatever was asked for and whatever the content type
claims: some servers answer a stream request with a document and the other way round.

Rule: nothing of any format here. A decoder of a format says what one event, a document and the end mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ..errors import AsyncInferError, EventTooLargeError, ProtocolError
from .sse import SSEDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..events import Event

_DOCUMENT_FACTOR = 4  # a document holds whole answers: its bound is so many events


class BodyDecoder(ABC):
    """Decoder of one response body. See `wire.protocol.Decoder`.

    Args:
        max_event_bytes: bound of one streamed event; a document may be four times as big.

    Attributes:
        done: the terminal marker was seen: nothing of the answer can follow.
    """

    __slots__ = ("_broken", "_document", "_max", "_rest", "_size", "_split", "done")

    def __init__(self, max_event_bytes: int) -> None:
        self.done = False
        self._max = max_event_bytes
        self._split: Callable[[bytes], Iterable[Any]] | None = None  # a stream: from a chunk to its events
        self._rest: Callable[[], Iterable[Any]] | None = None  # and to what the body's end cut off
        self._document: list[bytes] | None = None
        self._size = 0
        self._broken: AsyncInferError | None = None

    # -- what a format says --------------------------------------------------------------------------------------------

    @abstractmethod
    def _event(self, event: Any, out: list[Event]) -> None:
        """Add to ``out`` what one event of a stream says."""

    @abstractmethod
    def _read_document(self, data: bytes, out: list[Event]) -> None:
        """Add to ``out`` what a whole document says."""

    @abstractmethod
    def _end(self, out: list[Event]) -> None:
        """The answer is over. Raises `StreamTruncated` if it is not complete. Idempotent."""

    def _stream(self) -> tuple[Callable[[bytes], Iterable[Any]], Callable[[], Iterable[Any]]]:
        """How a stream is cut into events, and what is left of it at its end."""
        sse = SSEDecoder(self._max)
        return sse.feed, sse.close

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> list[Event]:
        """Events that ``chunk`` completes.

        Raises:
            APIError: the provider reported an error inside the body.
            ProtocolError, EventTooLargeError: see there.
        """
        if self._broken is not None:
            raise self._broken
        split = self._split
        if split is None:
            return self._begin(chunk)
        out: list[Event] = []
        try:
            for event in split(chunk):
                self._event(event, out)
        except AsyncInferError as error:
            self._break(error, out)
        return out

    def close(self) -> list[Event]:
        """The body ended. Idempotent: where it gives events, a further call gives none, or raises what followed them.

        Raises:
            StreamTruncated: the answer is not complete.
            APIError, ProtocolError: as `feed`.
        """
        if self._broken is not None:
            raise self._broken
        out: list[Event] = []
        try:
            document, self._document = self._document, None
            if document is not None:
                self._read_document(b"".join(document), out)
            elif self._rest is not None:
                self._last_event(self._rest(), out)
            self._end(out)
        except AsyncInferError as error:
            self._break(error, out)
        return out

    def _break(self, error: AsyncInferError, out: list[Event]) -> None:
        """Hand out what came before an error first: it was paid for. The error follows with the next call."""
        self._broken = error
        if not out:
            raise error

    def _begin(self, chunk: bytes) -> list[Event]:
        """The first bytes decide: JSON is a document, a web page is an error, everything else is a stream."""
        if self._document is None:
            text = chunk.lstrip(b"\xef\xbb\xbf \t\r\n")
            if not text:
                return []  # blank lines while a request waits in the provider's queue
            if text[:1] == b"<":
                raise ProtocolError("The provider answered with a web page instead of JSON; is api_url right?")
            if text[:1] not in {b"{", b"["}:
                self._split, self._rest = self._stream()
                return self.feed(text)
            self._document = []
            chunk = text
        self._document.append(chunk)
        self._size += len(chunk)
        if self._size > self._max * _DOCUMENT_FACTOR:
            raise EventTooLargeError(f"The answer is larger than {self._max * _DOCUMENT_FACTOR} bytes.")
        return []

    def _last_event(self, rest: Iterable[Any], out: list[Event]) -> None:
        """An event without its blank line: some providers end so, and a cut connection does too."""
        for event in rest:
            try:
                self._event(event, out)
            except ProtocolError:  # cut in the middle: `_end` says so, unless the answer was complete before
                return
