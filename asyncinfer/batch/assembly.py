"""The last step: the journal's rows, in input order, become the output. Rule: whole files move into place, or nothing.

A crash at any point leaves the journal, from which this step runs again. The order matters: the receipt is written
before the output appears, so an output without a receipt was not made here; the journal goes last.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .. import ConfigError
from .receipt import Receipt
from .record import answered_row
from .rows import parse_json, parse_row, to_line
from .summary import BatchError

if TYPE_CHECKING:
    from collections.abc import Generator

    from .journal import JournalReader
    from .places import Places
    from .plan import Plan
    from .rows import InputFile, Row


_STEP = 1024
"""Rows between two yields: some milliseconds."""


class Assembly:
    """Writes the output of a plan in which every row has an answer or a failure."""

    def __init__(self, source: InputFile, plan: Plan, places: Places) -> None:
        self._source = source
        self._plan = plan
        self._places = places

    def write(self, journal: JournalReader) -> Generator[None, None, int]:
        """Write output and failures beside their places; return the number of failures.

        A generator: it yields now and then. Closing it early removes what it wrote.

        Raises:
            BatchError: a file cannot be written.
            ConfigError: the input changed meanwhile.
        """
        places = self._places
        failed = 0
        try:
            with (
                places.output_part.open("wb", buffering=1 << 18) as output,
                places.failures_part.open("wb") as failures,
            ):
                for row in self._source.rows():
                    if row.number >= self._plan.total:
                        break
                    failed += self._write_row(row, journal, output, failures)
                    if not row.number % _STEP:
                        yield
                for file in (output, failures):
                    file.flush()
                    os.fsync(file.fileno())
            self._source.check_unchanged()
        except BaseException as error:
            for path in (places.output_part, places.failures_part):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise BatchError(
                    f"cannot write the output {places.output}: {error.strerror}; every answer is kept in "
                    f"{places.journal}: make room and run the same command again"
                ) from error
            raise
        return failed

    def _write_row(self, row: Row, journal: JournalReader, output: IO[bytes], failures: IO[bytes]) -> int:
        offset = self._plan.where[row.number]
        if offset > 0:
            output.write(to_line(answered_row(parse_row(row.raw), journal.read(offset))))
            return 0
        record = {"index": row.number} | journal.read(-offset)
        try:
            record["conversation"] = parse_json(row.raw)
        except ConfigError:
            record["text"] = row.raw.decode("utf-8", "replace")
        failures.write(to_line(record))
        return 1

    def move_into_place(self, failed: int, *, keep_earlier: bool) -> Path | None:
        """Rename what `write` wrote; return where an earlier output went, if it was kept.

        Raises:
            BatchError: the system refuses.
        """
        places = self._places
        replaced = None
        try:
            stat = places.output_part.stat()
            Receipt(self._plan.job, failed, stat.st_size, stat.st_mtime_ns, self._plan.settings).write(places.receipt)
            if failed:
                places.failures_part.replace(places.failures)
            else:
                places.failures_part.unlink()
            if keep_earlier and places.output.exists():
                replaced = places.backup
                places.output.replace(replaced)
            places.output_part.replace(places.output)
            if not failed:
                places.failures.unlink(missing_ok=True)
            places.sync_directory()
        except OSError as error:
            raise BatchError(
                f"cannot put the output {places.output} into place: {error.strerror}; every answer is kept in "
                f"{places.journal}: run the same command again"
            ) from error
        return replaced
