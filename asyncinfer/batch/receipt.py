"""A note beside a finished output: which job made it. Rule: it says what the output *is*, never what it should be.

The journal goes when a batch is complete, so this is how the same command finds that nothing is left to do, and how a
different one finds that the file in its way is not its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Receipt:
    """What made an output file, and how to recognise the file.

    Attributes:
        job: digest of the settings and of every row, in hex.
        failed: rows that have no answer in it.
        size, mtime_ns: of the output file.
        settings: digest of the settings alone, in hex.
    """

    job: str
    failed: int
    size: int
    mtime_ns: int
    settings: str = ""

    def describes(self, output: Path) -> bool:
        """Whether ``output`` is the file that this note was written for."""
        try:
            stat = output.stat()
        except OSError:
            return False
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)

    def write(self, path: Path) -> None:
        """Put the note into place, whole. Raises `OSError`."""
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        fresh.replace(path)

    @classmethod
    def read(cls, path: Path) -> Receipt | None:
        """The note at ``path``; None if there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
