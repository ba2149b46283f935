"""The suite: every check by name, each callable alone, and `check_engine`, which runs them all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anyio

from .. import UnsupportedParameterError
from . import answers, leaving, limits, loops, shapes, trouble
from .expectations import Expectations
from .subject import Measured, Subject
from .verdict import ConformanceError, NotApplicable, Report, Result

if TYPE_CHECKING:
    from .. import Engine

_CLOSING = 30.0
"""Seconds that an engine which failed a check may take to close before it is left behind."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise that engines make.

    Attributes:
        name: what is promised.
        summary: the same in a sentence.
    """

    name: str
    summary: str
    run: Callable[[Subject], Awaitable[str | None]]

    async def __call__(self, engine: Engine, expect: Expectations | None = None, **expectations: Any) -> Result:
        """Check one engine, which stays open.

        Args:
            engine: the engine.
            expect: what to ask it.
            expectations: fields of `Expectations` that differ from ``expect``.

        Raises:
            ConformanceError: the promise is not kept.
        """
        return await self.of(Subject(engine, _expected(expect, expectations)))

    async def of(self, subject: Subject) -> Result:
        """As calling it, with what earlier checks have found out. Raises `ConformanceError`."""
        began = perf_counter()
        reason = subject.expect.skip.get(self.name)
        if reason is not None:
            return Result(self.name, "not applicable", 0.0, reason)
        note: str | None = None
        try:
            with anyio.move_on_after(subject.expect.patience) as scope:
                note = await self.run(subject)
        except NotApplicable as why:
            return Result(self.name, "not applicable", perf_counter() - began, str(why))
        except UnsupportedParameterError as refusal:  # said before anything was sent: honest, and nothing to check
            return Result(self.name, "not applicable", perf_counter() - began, f"refused: {refusal.message}")
        except ConformanceError as error:
            error.check = self.name
            raise
        except Exception as error:
            raise ConformanceError(f"{type(error).__name__} while {subject.doing}: {error}", check=self.name) from error
        if scope.cancelled_caught:
            raise ConformanceError(
                f"not done after {subject.expect.patience:g} s, while {subject.doing}", check=self.name
            )
        return Result(self.name, "passed", perf_counter() - began, note or "")

    def __str__(self) -> str:
        return self.name


def _check(run: Callable[[Subject], Awaitable[str | None]]) -> Check:
    name: str = getattr(run, "__name__", "")
    return Check(name, (run.__doc__ or "").strip(), run)


CHECKS: tuple[Check, ...] = tuple(
    _check(run)
    for run in (
        answers.text_is_the_fold_of_events,
        answers.generate_is_the_fold_of_stream,
        answers.a_slow_reader_loses_nothing,
        answers.known_answers_are_given,
        answers.the_first_token_is_seen_before_the_last_is_made,
        answers.many_rows_keep_their_order,
        answers.many_streams_at_once_are_each_correct,
        answers.conversations_are_never_changed,
        limits.max_tokens_cut_and_say_so,
        limits.stop_strings_cut_exactly,
        limits.unicode_is_never_shown_broken,
        limits.usage_is_counted,
        limits.seeds_repeat_answers,
        limits.several_answers_are_kept_apart,
        limits.logprobs_fit_the_answer,
        shapes.a_json_schema_is_followed,
        shapes.a_choice_is_followed,
        shapes.a_regular_expression_is_followed,
        shapes.tools_are_called,
        leaving.leaving_by_break_frees_the_sequence,
        leaving.leaving_by_exception_frees_the_sequence,
        leaving.leaving_by_cancellation_frees_the_sequence,
        trouble.unsupported_parameters_are_refused_by_name,
        trouble.a_broken_shape_is_a_typed_error,
        trouble.a_prompt_that_is_too_long_is_a_typed_error,
        loops.other_event_loops_are_served,
        loops.the_event_loop_is_not_held_up,
        leaving.closing_ends_what_runs_and_opens_again,
    )
)
"""Every check, in the order in which `check_engine` runs them."""


def _expected(expect: Expectations | None, changes: dict[str, Any]) -> Expectations:
    unknown = set(changes) - set(Expectations.__dataclass_fields__)
    if unknown:
        raise TypeError(f"Expectations has no {', '.join(sorted(unknown))}")
    return replace(expect or Expectations(), **changes)


async def check_engine(
    make_engine: Callable[[], Engine],
    *,
    expect: Expectations | None = None,
    checks: Sequence[Check] = CHECKS,
    **expectations: Any,
) -> Report:
    """Run the conformance suite. Works on asyncio and on trio.

    Args:
        make_engine: makes the engine (a class will do). One engine serves all checks, and is closed at the end; after a
            check that failed, a fresh one takes over.
        expect: what to ask the engine, and what is known of its answers.
        checks: which checks to run.
        expectations: fields of `Expectations` that differ from ``expect``.

    Returns:
        `Report`: what each check found; printing it gives a table.

    Raises:
        ConformanceError: one or more promises are not kept; it names them all, and carries the ``.report``.
        AsyncInferError: the engine cannot be opened at all.
    """
    expected = _expected(expect, expectations)
    measured = Measured()
    engine = make_engine()
    report = Report(engine.name)
    failures: list[ConformanceError] = []
    subject = Subject(engine, expected, measured)
    try:
        await engine.ready()
        for check in checks:
            began = perf_counter()
            try:
                report.results.append(await check.of(subject))
            except ConformanceError as error:
                failures.append(error)
                report.results.append(Result(check.name, "failed", perf_counter() - began, error.seen))
                await _close(subject.engine)
                subject = Subject(make_engine(), expected, measured)
    finally:
        await _close(subject.engine)
    report.stalls, report.idle_stalls = measured.stalls, measured.idle_stalls
    report.tokens_per_second = measured.tokens_per_second
    if failures:
        listed = "\n".join(f"  {failure}" for failure in failures)
        raise ConformanceError(
            f"{report.engine} fails {len(failures)} of {len(report.results)} checks:\n{listed}", report=report
        ) from failures[0]
    return report


async def _close(engine: Engine) -> None:
    with anyio.move_on_after(_CLOSING, shield=True):
        await engine.aclose()
