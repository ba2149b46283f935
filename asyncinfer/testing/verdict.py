"""What the suite says: one `Result` for each check, a `Report` of all, a `ConformanceError` for what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["passed", "failed", "not applicable"]

_SHOWN = 160
"""Characters of a text that a message quotes."""


class ConformanceError(AssertionError):
    """An engine does not keep a promise.

    Attributes:
        check: name of the check; of the first one that failed, where several did.
        report: everything that was found, where `check_engine` raised it; else None.
    """

    def __init__(self, seen: str, *, check: str = "", report: Report | None = None) -> None:
        super().__init__(seen)
        self.seen = seen
        self.check = check
        self.report = report

    def __str__(self) -> str:
        return f"{self.check}: {self.seen}" if self.check else self.seen


class NotApplicable(Exception):
    """A check has nothing to ask of this engine; the message says why."""


def claim(kept: object, seen: str) -> None:
    """A promise: raises `ConformanceError` with what was seen unless it was kept."""
    if not kept:
        raise ConformanceError(seen)


def show(value: object) -> str:
    """A value as a message quotes it: its repr, the middle left out where it is long."""
    text = repr(value)
    if len(text) <= _SHOWN:
        return text
    return f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


@dataclass(frozen=True, slots=True)
class Stalls:
    """For how long the event loop could not run while an engine was at work, in milliseconds.

    Measured by a task that sleeps one millisecond at a time: how much later than that it wakes.

    Attributes:
        p50, p99, max: quantiles of the lateness.
        samples: how often it slept.
    """

    p50: float
    p99: float
    max: float
    samples: int

    @classmethod
    def of(cls, late: list[float]) -> Stalls:
        """From measured latenesses, in seconds; at least one."""
        ordered = sorted(late)
        last = len(ordered) - 1
        p50, p99 = (1e3 * ordered[round(share * last)] for share in (0.5, 0.99))
        return cls(p50, p99, 1e3 * ordered[-1], len(ordered))

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms, max {self.max:.2f} ms"


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found.

    Attributes:
        check: its name.
        outcome: ``"passed"``, ``"failed"`` or ``"not applicable"``.
        seconds: how long it took.
        note: what was wrong, why it does not apply, or what was measured.
    """

    check: str
    outcome: Outcome
    seconds: float
    note: str = ""


@dataclass(slots=True)
class Report:
    """What `check_engine` found; printing it gives a table.

    Attributes:
        engine: the engine's name.
        results: one for each check, in the order they ran.
        stalls: of the event loop while 16 streams were being decoded; None if that was not measured.
        idle_stalls: of the same loop just before, with nothing to do: what the machine itself is worth.
        tokens_per_second: of those streams together; None as `stalls`.
    """

    engine: str
    results: list[Result] = field(default_factory=list)
    stalls: Stalls | None = None
    idle_stalls: Stalls | None = None
    tokens_per_second: float | None = None

    def of(self, outcome: Outcome) -> list[Result]:
        """The results with that outcome."""
        return [result for result in self.results if result.outcome == outcome]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.of("failed")

    def __str__(self) -> str:
        width = max([len(result.check) for result in self.results], default=5)
        outcomes: tuple[Outcome, ...] = ("passed", "failed", "not applicable")
        counts = [f"{len(self.of(outcome))} {outcome}" for outcome in outcomes]
        lines = [f"{self.engine}: {', '.join(counts)}"]
        lines += [
            f"  {result.check:<{width}}  {result.outcome:<14} {result.seconds:6.2f} s  {result.note}".rstrip()
            for result in self.results
        ]
        if self.stalls is not None:
            lines.append(f"  event loop late by {self.stalls} while decoding; idle: {self.idle_stalls}")
        if self.tokens_per_second is not None:
            lines.append(f"  {self.tokens_per_second:,.0f} tokens/s")
        return "\n".join(lines)
