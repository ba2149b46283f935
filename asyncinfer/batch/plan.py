"""What there is to do: which rows have an answer already. Rule: 8 bytes for each row stay, nothing else."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from .. import ConfigError
from .keys import digest_row
from .rows import InputFile, Row, conversation_of, parse_row

if TYPE_CHECKING:
    from collections.abc import Generator

    from .journal import Journal

_STEP = 4096
"""Rows between two yields: some milliseconds."""


@dataclass(slots=True)
class Plan:
    """The state of every row.

    Attributes:
        where: for each row the offset of its answer in the journal, minus the offset of its failure, or 0.
        resumed: rows that had an answer when the plan was made.
        first: the first row without one, or None.
        job: digest of the settings and all rows, in hex.
        settings: digest of the settings, in hex.
    """

    where: array[int]
    resumed: int
    first: Row | None
    job: str
    settings: str = ""

    @property
    def total(self) -> int:
        """Rows of the input."""
        return len(self.where)


def make_plan(source: InputFile, journal: Journal, settings: bytes, *, strict: bool) -> Generator[None, None, Plan]:
    """Read the input once and look every row up in the journal. A generator: it yields now and then, and returns.

    Args:
        source: the input.
        journal: freshly opened.
        settings: digest of the settings.
        strict: refuse the whole file if one of its rows is no conversation.

    Raises:
        ConfigError: in strict mode, naming the line.
        OSError: the input cannot be read.
    """
    where = array("q")
    job = blake2b(settings, digest_size=16)
    resumed = 0
    first: Row | None = None
    for row in source.rows():
        digest = digest_row(settings, row.raw)
        job.update(digest)
        offset = journal.take(digest) or 0
        where.append(offset)
        if offset:
            resumed += 1
        elif first is None:
            first = row
        if strict and not offset:
            _check(row, source)
        if not row.number % _STEP:
            yield
    journal.forget_index()
    return Plan(where, resumed, first, job.hexdigest(), settings.hex())


def _check(row: Row, source: InputFile) -> None:
    try:
        conversation_of(parse_row(row.raw))
    except ConfigError as error:
        raise ConfigError(f"{source.path}, line {row.line}: {error.message}", path="input_path") from error
