r"""The journal of a batch: finished rows, appended as they finish, read back after a crash.

Rule: append only, one writer, one `write` for each row. What it guarantees:

* The process may be killed at any moment (``kill -9``, out of memory): every row whose `append` returned is kept,
  because its bytes are the operating system's by then. At most the row being written is torn, and asked again.
* The machine may lose power: rows are forced to the disk every few seconds (`Journal.sync`, called by the runner) and
  at the end, so at most those seconds are lost. Damaged lines are found by their checksum and skipped, never believed.
* An answer is found only under the digest of the settings it was made with and of the bytes of the row it answers
  (`keys`), so different parameters or an edited row never meet an old answer. Records of other settings stay in the
  file untouched: going back to those settings finds them again.

Layout: the line `MAGIC`, then records, one a line::

    <crc32, 8 hex digits> <kind> <digest, 32 hex digits> <JSON>\n

The checksum (zlib's CRC-32) covers everything after its space. Kinds: ``=`` the settings of a run, ``+`` an answer,
``-`` a failure. The JSON never holds a credential.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .index import AnswerIndex
from .lock import open_locked
from .summary import BatchError

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"asyncinfer-journal 1\n"
SETTINGS, ANSWER, FAILURE = "=", "+", "-"

_encode = json.JSONEncoder(separators=(",", ":")).encode
_HEAD = 8 + 1 + 1 + 1 + 32 + 1
_TYPICAL = 200
"""Bytes of a small record: a guess that saves the index from growing step by step."""


def encode(kind: str, digest: bytes, value: dict[str, Any]) -> bytes:
    """One record, with its line end."""
    body = f"{kind} {digest.hex()} {_encode(value)}".encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(body), body)


def decode(line: bytes) -> tuple[str, bytes] | None:
    """Kind and digest of a record (with or without its line end), or None if it is torn or damaged."""
    line = line.removesuffix(b"\n")
    if len(line) < _HEAD or line[8:9] != b" ":
        return None
    try:
        if int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        return line[9:10].decode("ascii"), bytes.fromhex(line[11:43].decode("ascii"))
    except ValueError:
        return None


class Journal:
    """One open, locked journal.

    Args:
        path: the file; created if it is missing.

    Raises:
        BatchError: another process holds it, it cannot be written, or the file is something else.

    Attributes:
        found: records of any kind that were there when it was opened.
        damaged: lines that were there, but are not believed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = 0
        self.damaged = 0
        self._answers = AnswerIndex()
        try:
            fd = open_locked(path)
        except OSError as error:
            raise BatchError(f"cannot write the journal {path}: {error.strerror}") from error
        if fd is None:
            raise BatchError(
                f"another process is working on this output: it holds the journal {path}; wait for it, or stop it first"
            )
        self._fd = fd
        self._unsynced = False
        try:
            self._end = self._recover()
        except OSError as error:
            os.close(fd)
            raise BatchError(f"cannot read the journal {path}: {error.strerror}") from error
        except BaseException:
            os.close(fd)
            raise

    # -- opening -----------------------------------------------------------------------------------------------------

    def _recover(self) -> int:
        """Check the file, note its answers, cut a torn end off; return where the next record begins."""
        size = os.fstat(self._fd).st_size
        with open(self._fd, "rb", buffering=1 << 18, closefd=False) as file:
            file.seek(0)
            head = file.readline(len(MAGIC))
            if head != MAGIC:
                if not MAGIC.startswith(head):
                    raise BatchError(f"{self.path} is no journal of this version of asyncinfer: move it away")
                os.ftruncate(self._fd, 0)  # killed while it wrote its very first line
                self._write(MAGIC)
                return len(MAGIC)
            end = len(MAGIC)
            self._answers = AnswerIndex(min(size // _TYPICAL, 1 << 20))
            for line in file:
                if not line.endswith(b"\n"):
                    return self._mend(end, line)
                self._note(line, end)
                end += len(line)
        return end

    def _note(self, line: bytes, offset: int) -> None:
        record = decode(line)
        if record is None:
            self.damaged += 1
            return
        self.found += 1
        if record[0] == ANSWER:
            self._answers.add(record[1], offset)

    def _mend(self, end: int, tail: bytes) -> int:
        """The last line has no end: keep it if only the end is missing, else cut it off."""
        if decode(tail) is None:
            self.damaged += 1
            os.ftruncate(self._fd, end)
            return end
        self._write(b"\n")
        self._note(tail, end)
        return end + len(tail) + 1

    def take(self, digest: bytes) -> int | None:
        """Where an answer to this digest lies that was there when the journal was opened; each is given out once."""
        return self._answers.take(digest)

    def forget_index(self) -> None:
        """Free the index: every row has been looked up."""
        self._answers = AnswerIndex()

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, kind: str, digest: bytes, value: dict[str, Any]) -> int:
        """Write one record; when this returns, killing the process cannot lose it. Returns its offset.

        Raises:
            BatchError: the disk is full, or the file cannot be written. Everything before it is kept.
        """
        record = encode(kind, digest, value)
        offset = self._end
        try:
            self._write(record)
        except OSError as error:
            with suppress(OSError):  # a torn end that stays is cut off at the next opening
                os.ftruncate(self._fd, offset)
            raise BatchError(
                f"cannot write the journal {self.path}: {error.strerror}; every row written so far is kept: make room "
                "and run the same command again"
            ) from error
        self._end = offset + len(record)
        self._unsynced = True
        return offset

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        """Force what was written to the disk. May be called from any thread.

        Raises:
            BatchError: the disk refuses.
        """
        if self._unsynced:
            self._unsynced = False
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise BatchError(f"cannot write the journal {self.path} to the disk: {error.strerror}") from error

    # -- reading back ------------------------------------------------------------------------------------------------

    def reader(self) -> JournalReader:
        """For reading records by offset."""
        return JournalReader(self.path)

    # -- closing -----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything: the user asked to start over."""
        os.ftruncate(self._fd, len(MAGIC))
        self._end = len(MAGIC)
        self.found = 0
        self._answers = AnswerIndex()

    def remove(self) -> None:
        """Delete the file; its job is done. Call before `close`, so that nobody else takes it over in between."""
        if os.name == "nt":  # an open file cannot be deleted there
            self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Force to disk, give the lock back. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if self._unsynced:
                with suppress(OSError):  # an error is on its way already, or the next run will meet this one
                    os.fsync(fd)
            os.close(fd)


class JournalReader:
    """Reads records by their offsets; its own descriptor, so that a thread may use it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=1 << 16)

    def read(self, offset: int) -> dict[str, Any]:
        """The JSON of the record at ``offset``. Raises `BatchError` if it is damaged."""
        self._file.seek(offset)
        line = self._file.readline()
        if decode(line) is None:
            raise BatchError(f"the journal was damaged at byte {offset} while the batch was running; run it again")
        value: dict[str, Any] = json.loads(line[_HEAD:])
        return value

    def close(self) -> None:
        self._file.close()
