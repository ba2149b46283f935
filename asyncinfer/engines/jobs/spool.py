"""The file of one provider job while it is made and sent. Rule: on disk, never in memory.

A spool is an anonymous temporary file: it is gone when it is closed, or when the program dies.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from typing import IO, TYPE_CHECKING, Self

from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from .parts import Framing

_PIECE = 1 << 18


class Spool:
    """Collects rows up to the limits of a provider job.

    Attributes:
        rows: how many are in it.
        size: bytes of the finished file.
    """

    def __init__(self, framing: Framing, rows: int | None = None, size: int | None = None) -> None:
        self._framing = framing
        self._most_rows = min(framing.rows, rows or framing.rows)
        self._most_bytes = min(framing.size, size or framing.size)
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="asyncinfer-", buffering=_PIECE)  # noqa: SIM115
        self._file.write(framing.before)
        self._written = len(framing.before)
        self._hash = hashlib.sha256()
        self._sealed = False
        self.rows = 0

    @property
    def size(self) -> int:
        return self._written + (0 if self._sealed else len(self._framing.after))

    @property
    def most_bytes(self) -> int:
        """The most bytes of a file."""
        return self._most_bytes

    def room(self, line: bytes) -> bool:
        """Whether a row still fits."""
        between = len(self._framing.between) if self.rows else 0
        return self.rows < self._most_rows and self.size + between + len(line) <= self._most_bytes

    def takes(self, rows: int, size: int) -> bool:
        """Whether so many rows of so many bytes still fit."""
        return (
            self.rows + rows <= self._most_rows
            and self.size + size + rows * len(self._framing.between) <= self._most_bytes
        )

    def add(self, line: bytes) -> None:
        """Append a row, which fits."""
        if self.rows:
            line = self._framing.between + line
        self._file.write(line)
        self._hash.update(line)
        self._written += len(line)
        self.rows += 1

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that tell these rows from others."""
        return self._hash.hexdigest()[:12]

    def seal(self) -> None:
        """No more rows."""
        if not self._sealed:
            self._file.write(self._framing.after)
            self._written += len(self._framing.after)
            self._sealed = True
            self._file.flush()

    def body(self, start: int = 0) -> Body:
        """The file, or what follows its first ``start`` bytes, as a request's body."""
        self.seal()
        return Body(self._file, self._written, start=start)

    async def read(self, start: int, count: int) -> bytes:
        """Up to ``count`` bytes of the finished file."""
        self.seal()
        return await to_thread.run_sync(_read_at, self._file, start, count)

    def form(self, fields: Mapping[str, str], name: str) -> tuple[str, Body]:
        """The file as the field ``file`` of a form, under ``name``; content type and body."""
        self.seal()
        boundary = f"asyncinfer-{secrets.token_hex(16)}"  # 128 random bits are in nobody's rows
        parts = [
            f'--{boundary}\r\ncontent-disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n'
            "content-type: application/jsonl\r\n\r\n"
        )
        before, after = "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()
        return f"multipart/form-data; boundary={boundary}", Body(self._file, self._written, before, after)

    def close(self) -> None:
        """Forget the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Body:
    """A part of a file between two byte strings: see `transport.protocol.Upload`. Read by one request at a time."""

    __slots__ = ("_after", "_before", "_file", "_length", "_start", "size")

    def __init__(
        self, file: IO[bytes], length: int, before: bytes = b"", after: bytes = b"", *, start: int = 0
    ) -> None:
        self._file = file
        self._length = length
        self._start = start
        self._before = before
        self._after = after
        self.size = len(before) + length - start + len(after)

    def __aiter__(self) -> _Pieces:
        return _Pieces(self._file, self._start, self._length, self._before, self._after)


class _Pieces:
    """The file's own position is not used, so a walk that is dropped leaves nothing behind."""

    __slots__ = ("_after", "_at", "_before", "_file", "_length")

    def __init__(self, file: IO[bytes], start: int, length: int, before: bytes, after: bytes) -> None:
        self._file = file
        self._length = length
        self._before = before
        self._after = after
        self._at = start

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        before, self._before = self._before, b""
        if before:
            return before
        if self._at < self._length:
            piece = await to_thread.run_sync(_read_at, self._file, self._at, min(_PIECE, self._length - self._at))
            self._at += len(piece)
            return piece
        after, self._after = self._after, b""
        if after:
            return after
        raise StopAsyncIteration


def _read_at(file: IO[bytes], offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)
