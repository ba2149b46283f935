"""The answers of a finished batch, for one that differs from it by some rows: only these are asked.

The journal is gone when a batch is complete, but its output has the rows and their answers. Rule: an answer is taken
over only from an output that is as its receipt describes it, made with the same settings, and only for a row that says
the same; it is written into the new journal at once, as if it had just come. The output itself is left alone.
"""

from __future__ import annotations

import json
import zlib
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import ConfigError
from .index import AnswerIndex
from .journal import ANSWER
from .keys import digest_row
from .rows import InputFile, Row, messages_of, parse_row, to_line

if TYPE_CHECKING:
    from collections.abc import Generator

    from .journal import Journal
    from .plan import Plan

_STEP = 1024
"""Rows between two yields: some milliseconds."""
_OF_ANSWERS = ("usage", "finish_reason")
"""Keys of a row's metadata that an answer always brings along."""
_OF_SOME = "choices"
"""The one that it brings where there are several."""


def take_over(
    source: InputFile, plan: Plan, journal: Journal, settings: bytes, output: Path
) -> Generator[None, None, tuple[int, bool]]:
    """Give rows without an answer the ones that they have in ``output``. A generator: it yields now and then.

    Returns:
        How many were taken over, and whether every answer of the output is in the journal now.

    Raises:
        BatchError: the journal cannot be written.
        OSError: the input cannot be read.
    """
    try:
        earlier = _Earlier(output)
    except (ConfigError, OSError):
        return 0, False
    try:
        return (yield from _matched(source, plan, journal, settings, earlier))
    finally:
        earlier.close()


def _matched(
    source: InputFile, plan: Plan, journal: Journal, settings: bytes, earlier: _Earlier
) -> Generator[None, None, tuple[int, bool]]:
    try:
        yield from earlier.read()
    except (OSError, EOFError, zlib.error):
        return 0, False
    taken, found, balance = 0, 0, 0
    plan.first = None
    reader = journal.reader()
    try:
        for row in source.rows():
            if row.number >= plan.total:
                break
            # Also for a row that has an answer: of equal rows each takes its own, in whatever run it does.
            record = earlier.take(row)
            where = plan.where[row.number]
            found += record is not None
            if record is None:
                plan.first = plan.first or (None if where else row)
            elif where:
                balance += _number(reader.read(where)) - _number(record)
            else:
                plan.where[row.number] = journal.append(ANSWER, digest_row(settings, row.raw), record)
                taken += 1
            if not row.number % _STEP:
                yield
    finally:
        reader.close()
    plan.resumed += taken
    return taken, found == earlier.total and not balance  # the same answers, in whatever order


class _Earlier:
    """Where the answers of an output lie, by what they answer."""

    def __init__(self, output: Path) -> None:
        self.total = 0
        self._source = InputFile(output)
        self._index = AnswerIndex()
        self._file = output.open("rb")

    def read(self) -> Generator[None, None, None]:
        """Note every row."""
        for row in self._source.rows():
            self.total += 1
            try:
                self._index.add(_question(parse_row(row.raw), answered=True), row.offset + 1)  # 0 is no offset there
            except ConfigError:
                continue  # nothing of ours; it counts as lost, so the output is kept
            if not row.number % _STEP:
                yield

    def take(self, row: Row) -> dict[str, Any] | None:
        """The answer to an input's row, as the journal records it; each is given out once."""
        try:
            asked = parse_row(row.raw)
        except ConfigError:
            return None
        if _OF_SOME in _metadata(asked):
            return None  # in the output nobody can tell these from the answer's own
        offset = self._index.take(_question(asked, answered=False))
        if offset is None:
            return None
        self._file.seek(offset - 1)
        answered = parse_row(self._file.readline().strip())
        metadata = _metadata(answered)
        return {
            "message": answered["messages"][-1],
            "metadata": {key: metadata[key] for key in (*_OF_ANSWERS, _OF_SOME) if key in metadata},
        }

    def close(self) -> None:
        self._file.close()


def _number(record: dict[str, Any]) -> int:
    """A large number that stands for a record."""
    return int.from_bytes(blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).digest())


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    found = row.get("metadata")
    return found if isinstance(found, dict) else {}


def _question(row: dict[str, Any], *, answered: bool) -> bytes:
    """16 bytes that stand for everything in a row but its answer."""
    messages = messages_of(row)
    metadata = {key: value for key, value in _metadata(row).items() if key not in (*_OF_ANSWERS, _OF_SOME)}
    rest = {key: value for key, value in row.items() if key not in {"messages", "metadata"}}
    text = to_line([messages[:-1] if answered else messages, metadata, rest])
    return blake2b(text, digest_size=16).digest()
