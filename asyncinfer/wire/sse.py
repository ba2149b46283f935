"""Server-sent events, both directions: bytes in, event data out; data in, event bytes out.

The rules are those of the WHATWG HTML standard, section "Interpreting an event stream": lines end in CR, LF or CRLF,
one byte-order mark may lead, lines that begin with a colon are comments, several ``data`` lines make one event, joined
by LF. The decoder works on bytes (a line end is never part of a UTF-8 sequence, so cuts inside a character need no
care) and its time is linear in the input however it is cut: bytes without a line end are only put aside, never looked
at again until their line is complete.

Rule: no JSON, no knowledge of any provider. An event that the body's end cut off is not dropped here (the standard
would) but handed out by `SSEDecoder.close`: several providers omit the last blank line, so the codec decides.
"""

from __future__ import annotations

from typing import Any

from ..errors import EventTooLargeError

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Default bound of one event, in bytes: far above any token, image or embedding that is streamed today."""

_BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """Incremental decoder of one event stream.

    Args:
        max_event_bytes: the most bytes that one event (its data so far plus an unfinished line) may take.

    Attributes:
        last_event_id: value of the last ``id`` field, ``""`` before the first.
        retry: value of the last ``retry`` field in milliseconds, or None.

    Every method raises `EventTooLargeError` once an event outgrows the bound; the decoder is of no use after that.
    """

    __slots__ = ("_begun", "_data", "_lf_due", "_max", "_name", "_pieces", "_size", "last_event_id", "retry")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._begun = False  # the place of the byte-order mark is behind us
        self._lf_due = False  # the last byte was CR: an LF that follows belongs to it
        self._pieces: list[bytes] = []  # an unfinished line
        self._size = 0  # bytes in _pieces and _data
        self._data: list[bytes] = []  # data lines of the event that is being read
        self._name = ""
        self.last_event_id = ""
        self.retry: int | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that ``chunk`` completes, in order."""
        if (
            self._begun
            and not (self._pieces or self._data or self._name or self._lf_due)
            and chunk.endswith(b"\n\n")
            and chunk.startswith(b"data: ")
            and len(chunk) <= self._max
            and b"\r" not in chunk
        ):
            # A read that holds whole plain events and nothing else: what providers send nearly always. Two line ends
            # for each part and no more mean that every part is exactly one data line.
            parts = chunk[6:-2].split(b"\n\ndata: ")
            if chunk.count(b"\n") == 2 * len(parts):
                return parts
        return self._feed(chunk, named=False)

    def feed_named(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """As `feed`, each with the event's name (``""`` where it has none)."""
        if (
            self._begun
            and not (self._pieces or self._data or self._name or self._lf_due)
            and chunk.startswith(b"event: ")
            and chunk.endswith(b"\n\n")
            and len(chunk) <= self._max
            and b"\r" not in chunk
        ):
            # The same for named events: every part is exactly its name and one data line.
            parts = [part.partition(b"\ndata: ") for part in chunk[7:-2].split(b"\n\nevent: ")]
            if chunk.count(b"\n") == 3 * len(parts) and all(separator for _, separator, _ in parts):
                return [(name.decode("utf-8", "replace"), data) for name, _, data in parts]
        return self._feed(chunk, named=True)

    def close(self) -> list[bytes]:
        """The data of the event that the end of the body cut off, if any; its last line may be incomplete."""
        return [data for _, data in self.close_named()]

    def close_named(self) -> list[tuple[str, bytes]]:
        """As `close`, with the event's name."""
        if not self._begun:  # up to two bytes that could have begun a byte-order mark
            self._begun = True
        rest = b"".join(self._pieces)
        self._pieces = []
        if rest:
            self._line(rest)
        out: list[Any] = []
        self._dispatch(out, named=True)
        return out

    def _feed(self, chunk: bytes, *, named: bool) -> list[Any]:
        if not self._begun:
            chunk = self._strip_bom(chunk)
        if b"\r" in chunk or self._lf_due:
            chunk = self._only_lf(chunk)
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            if chunk:
                self._keep(chunk)
            return []
        complete = chunk
        if end != len(chunk):
            complete = chunk[:end]
        if self._pieces:
            self._size -= sum(map(len, self._pieces))
            self._pieces.append(complete)
            complete = b"".join(self._pieces)
            self._pieces = []
        out = self._events(complete, named=named)
        if end != len(chunk):
            self._keep(chunk[end:])
        return out

    def _events(self, complete: bytes, *, named: bool) -> list[Any]:
        """Events of ``complete``, which ends in a line end; whole plain ``data: ...`` blocks take the short way."""
        cut = 0
        if not self._data and not self._name and complete.startswith(b"data: "):
            cut = complete.rfind(b"\n\n") + 2
            if cut > 1:
                parts = complete[6 : cut - 2].split(b"\n\ndata: ")
                if complete.count(b"\n", 0, cut) == 2 * len(parts):
                    if len(complete) > self._max:
                        self._check(max(map(len, parts)))
                    out: list[Any] = [("", part) for part in parts] if named else parts
                    if cut != len(complete):
                        self._lines(complete[cut:], out, named=named)
                    return out
        out = []
        self._lines(complete, out, named=named)
        return out

    def _lines(self, complete: bytes, out: list[Any], *, named: bool) -> None:
        lines = complete.split(b"\n")
        lines.pop()
        for line in lines:
            if line:
                self._line(line)
            else:
                self._dispatch(out, named=named)

    def _line(self, line: bytes) -> None:
        """Take in one line that is not empty."""
        if line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
            self._take(value)
            return
        name, colon, value = line.partition(b":")
        if colon and value[:1] == b" ":
            value = value[1:]
        if name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name == b"data":  # a line "data" without a colon is an empty data line
            self._take(value)
        elif name == b"id":
            if b"\0" not in value:
                self.last_event_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= 15:
            self.retry = int(value)

    def _take(self, value: bytes) -> None:
        self._data.append(value)
        self._size += len(value) + 1
        self._check(self._size)

    def _dispatch(self, out: list[Any], *, named: bool) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            out.append((self._name, data) if named else data)
            self._data = []
        self._size = 0
        self._name = ""

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        self._check(self._size)

    def _check(self, size: int) -> None:
        if size > self._max:
            raise EventTooLargeError(
                f"One event of the stream is larger than {self._max} bytes; "
                "the other side is broken, or the bound (max_event_bytes) is too low for it."
            )

    def _strip_bom(self, chunk: bytes) -> bytes:
        if self._pieces:
            chunk = b"".join(self._pieces) + chunk
            self._pieces = []
            self._size = 0
        if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
            if chunk:
                self._keep(chunk)
            return b""
        self._begun = True
        return chunk.removeprefix(_BOM)

    def _only_lf(self, chunk: bytes) -> bytes:
        """The chunk with its line ends written as LF; a CR at its end counts at once, an LF that follows is eaten."""
        if not chunk:
            return chunk
        if self._lf_due and chunk[0] == 0x0A:
            chunk = chunk[1:]
            if not chunk:
                self._lf_due = False
                return chunk
        self._lf_due = chunk[-1] == 0x0D
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def encode_sse(data: bytes, event: str | None = None) -> bytes:
    """One event as it goes over the wire. A line end inside ``data`` begins a further ``data`` line.

    Args:
        data: UTF-8 text; the other side gets it with its line ends written as LF.
        event: the event's name, without line ends.
    """
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    if b"\n" in data or b"\r" in data:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return head + b"".join([b"data: " + line + b"\n" for line in lines]) + b"\n"
    return b"%bdata: %b\n\n" % (head, data)


def encode_comment(text: str = "keep-alive") -> bytes:
    """A comment: keeps proxies and the other side's clocks quiet without being an event."""
    return b": " + text.replace("\r", " ").replace("\n", " ").encode() + b"\n\n"
