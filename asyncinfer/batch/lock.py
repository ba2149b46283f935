"""One writer for each journal. Rule: the lock belongs to the open file, so it ends with the process in any case."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_OFFSET = 1 << 62
"""Windows locks bytes, and a locked byte cannot be read: lock one that no journal reaches."""


def open_locked(path: Path) -> int | None:
    """Open ``path`` for reading and appending, creating it, and lock it against every other `open_locked`.

    Returns the file descriptor, or None if somebody else holds the lock. Raises `OSError`.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        fd = os.open(path, flags, 0o644)
        try:
            if not _lock(fd):
                os.close(fd)
                return None
            here = os.fstat(fd)
            try:
                there = path.stat()
            except FileNotFoundError:
                there = None
        except BaseException:
            os.close(fd)
            raise
        # The former holder may have removed the file between our open and our lock: then we hold a nameless file.
        if there is not None and (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev):
            return fd
        os.close(fd)


if sys.platform == "win32":

    def _lock(fd: int) -> bool:
        import msvcrt

        os.lseek(fd, _OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _lock(fd: int) -> bool:
        import fcntl

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
