"""How far a job is, whatever the provider calls it. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class BatchState(StrEnum):
    """Where a job stands. Of the ended states `EXPIRED` and `CANCELLED` still have the answers that were finished."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will change."""
        return self not in {BatchState.QUEUED, BatchState.RUNNING, BatchState.CANCELLING}


_WORST_FIRST = (BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED, BatchState.COMPLETED)
_WHILE_RUNNING = (BatchState.CANCELLING, BatchState.RUNNING, BatchState.QUEUED)


@dataclass(slots=True)
class PartStatus:
    """One provider job of a `BatchJob`.

    Attributes:
        id: the provider's id of it.
        state: where it stands.
        said: the provider's own word for that.
        total, completed, failed: rows.
        outputs: result files that are there, the answers first, as `Flavour.lines` takes them; no URLs that run out.
        reason: why it failed, in the provider's words; None if it did not.
    """

    id: str
    state: BatchState
    said: str
    total: int
    completed: int = 0
    failed: int = 0
    outputs: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(slots=True)
class BatchStatus:
    """A whole job.

    Attributes:
        state: of all parts together: the worst of the ended ones when all have ended.
        total, completed, failed: rows; ``failed`` counts those that were never sent, too.
        parts: the provider jobs.
    """

    state: BatchState
    total: int
    completed: int = 0
    failed: int = 0
    parts: list[PartStatus] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether every row has its answer, or will have none."""
        return self.state.ended

    @property
    def fraction(self) -> float:
        """Share of the rows that are done, 0 to 1."""
        return (self.completed + self.failed) / self.total if self.total else 1.0


def summed(parts: list[PartStatus], total: int, unsent: int) -> BatchStatus:
    """The status of all parts together; ``unsent`` rows could not be asked at all."""
    states = {part.state for part in parts}
    order = _WORST_FIRST if all(state.ended for state in states) else _WHILE_RUNNING
    return BatchStatus(
        state=next((state for state in order if state in states), BatchState.COMPLETED),
        total=total,
        completed=sum(part.completed for part in parts),
        failed=unsent + sum(part.failed for part in parts),
        parts=parts,
    )
