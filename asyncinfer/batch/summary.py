"""What a batch tells its caller: how far it is, how it ended, why it stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .. import AsyncInferError

if TYPE_CHECKING:
    from pathlib import Path


class BatchError(AsyncInferError):
    """The batch could not start or go on: a file that cannot be written, another process at work, a provider that
    refuses every row. Rows that were finished are kept; the same command goes on from there.
    """


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        phase: ``"reading"`` the input and the journal, ``"running"``, ``"writing"`` the output.
        total: rows of the input.
        completed: rows that have an answer, resumed ones included.
        failed: rows that failed in this run.
        resumed: rows whose answer was there already.
        in_flight: rows handed to the engine that have not come back.
        input_tokens, output_tokens: of the answers of this run.
        elapsed: seconds since the first row was asked.
    """

    phase: Literal["reading", "running", "writing"] = "reading"
    total: int = 0
    completed: int = 0
    failed: int = 0
    resumed: int = 0
    in_flight: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    elapsed: float = 0.0

    @property
    def rows_per_second(self) -> float:
        """Rows finished in this run, per second."""
        return (self.completed - self.resumed + self.failed) / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens generated in this run, per second."""
        return self.output_tokens / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time to the last row at the present rate; None while no rate is known."""
        rate = self.rows_per_second
        return (self.total - self.completed - self.failed) / rate if rate > 0 else None


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """How a batch ended.

    Attributes:
        total: rows of the input.
        completed: rows with an answer in the output.
        failed: rows without one; they are in ``failures_path``.
        resumed: rows whose answer an earlier run had made.
        input_tokens, output_tokens: spent by this run.
        elapsed: seconds, all of it.
        output_path: the output; in input order, without the failed rows.
        failures_path: file of the failed rows, or None if every row has an answer.
        already_complete: nothing had to be done: the output was there, made from this input with these parameters.
        replaced: where an earlier, different file of the output's name is kept now, or None.
    """

    total: int
    completed: int
    failed: int
    resumed: int
    input_tokens: int
    output_tokens: int
    elapsed: float
    output_path: Path
    failures_path: Path | None
    already_complete: bool = False
    replaced: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether every row has an answer."""
        return self.failed == 0
