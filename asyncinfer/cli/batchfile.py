"""``infer --input_path ... --output_path ...``: a file of conversations, a progress bar, an honest last line."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from ..batch import run_file
from .exits import DONE, INTERRUPTED, SOME_ROWS_FAILED, TERMINATED, say
from .setup import describe, make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .. import InferenceConfig
    from ..batch import BatchProgress, BatchSummary

_log = logging.getLogger("asyncinfer.batch")

_LOG_EVERY = 30.0
"""Seconds between two progress lines where there is no terminal."""


@dataclass(slots=True)
class BatchChoices:
    """How a file is to be worked through; see the options of ``infer``."""

    input_path: Path
    output_path: Path | None
    progress_path: Path | None
    overwrite: bool
    strict: bool
    quiet: bool


class _Stopped:
    """Which signal stopped us, and how far we were."""

    def __init__(self) -> None:
        self.by_sigterm = False
        self.progress: BatchProgress | None = None


def run(config: InferenceConfig, choices: BatchChoices) -> int:
    """Work through the file; return the exit code."""
    if choices.output_path is not None:
        return _run(config, choices, choices.output_path)
    if not choices.quiet:
        say("note: no --output_path: the answers go to stdout when all are there, and a stopped run starts over")
    with tempfile.TemporaryDirectory(prefix="asyncinfer-") as folder:
        output = Path(folder) / "answers.jsonl"
        code = _run(config, choices, output)
        if output.exists():
            with output.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        failures = output.with_name("answers.failures.jsonl")
        if failures.exists():
            say(failures.read_text(encoding="utf-8").rstrip("\n"))
    return code


def _run(config: InferenceConfig, choices: BatchChoices, output: Path) -> int:
    stopped = _Stopped()
    _stop_on_sigterm(stopped)
    engine = make_engine(config)
    if not choices.quiet:
        say(describe(engine))
    watch: Callable[[], Any] = _bar if sys.stderr.isatty() and not choices.quiet else _log_lines
    try:
        with watch() as show:

            def on_progress(progress: BatchProgress) -> None:
                stopped.progress = progress
                show(progress)

            work = partial(
                _answer_file,
                engine,
                choices.input_path,
                output,
                on_progress=on_progress,
                progress_path=choices.progress_path,
                strict=choices.strict,
                overwrite=choices.overwrite,
            )
            summary = anyio.run(work)
    except KeyboardInterrupt:
        _say_how_to_go_on(stopped.progress)
        return TERMINATED if stopped.by_sigterm else INTERRUPTED
    _report(summary, quiet=choices.quiet)
    return DONE if summary.ok else SOME_ROWS_FAILED


async def _answer_file(engine: Any, *args: Any, **kwargs: Any) -> BatchSummary:
    try:
        return await run_file(engine, *args, **kwargs)
    finally:
        with anyio.CancelScope(shield=True):
            await engine.aclose()


def _stop_on_sigterm(stopped: _Stopped) -> None:
    """Let SIGTERM end a batch as tidily as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        stopped.by_sigterm = True
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)


def _say_how_to_go_on(progress: BatchProgress | None) -> None:
    if progress is None or not progress.total:
        say("stopped before the first row; run the same command again to start")
        return
    say(
        f"stopped: {progress.completed:,} of {progress.total:,} rows have their answer and are kept; "
        "run the same command again to go on from there"
    )


def _report(summary: BatchSummary, *, quiet: bool) -> None:
    if summary.already_complete:
        if not quiet:
            say(f"already complete: {summary.output_path} has all {summary.total:,} rows, made with these parameters")
        return
    fresh = summary.completed - summary.resumed
    parts = [f"{summary.completed:,} of {summary.total:,} rows answered"]
    if summary.resumed:
        parts.append(f"{summary.resumed:,} of them earlier")
    if summary.failed:
        parts.append(f"{summary.failed:,} FAILED")
    parts.append(_duration(summary.elapsed))
    if summary.elapsed > 0 and fresh:
        parts.append(f"{fresh / summary.elapsed:.1f} rows/s")
    parts.append(f"{summary.input_tokens:,} tokens in, {summary.output_tokens:,} out")
    if not quiet or summary.failed:
        say(", ".join(parts))
    if summary.replaced is not None:
        say(f"the earlier, different {summary.output_path.name} is kept as {summary.replaced}")
    if summary.failures_path is not None:
        say(f"failed rows: {summary.failures_path}\nrun the same command again to try only them")
    if not quiet:
        say(f"output: {summary.output_path}")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


# -- how far we are ----------------------------------------------------------------------------------------------------


@contextmanager
def _bar() -> Iterator[Callable[[BatchProgress], None]]:
    """Two lines on the terminal: a bar, and the figures."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn()
    )
    bar.expand = True
    task = bar.add_task("reading", total=None)
    figures = Text(no_wrap=True, overflow="ellipsis")
    console = Console(stderr=True)
    with Live(Group(bar, figures), console=console, transient=True, refresh_per_second=5):

        def show(progress: BatchProgress) -> None:
            done = progress.completed + progress.failed
            bar.update(task, description=progress.phase, total=progress.total or None, completed=done)
            figures.plain = _rates(progress)

        yield show


@contextmanager
def _log_lines() -> Iterator[Callable[[BatchProgress], None]]:
    """A log line now and then."""
    last = time.monotonic()

    def show(progress: BatchProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOG_EVERY:
            last = now
            _log.info("%d of %d rows, %s", progress.completed + progress.failed, progress.total, _rates(progress))

    yield show


def _rates(progress: BatchProgress) -> str:
    parts = [
        f"{progress.rows_per_second:.1f} rows/s",
        f"{progress.tokens_per_second:.0f} tokens/s",
        f"{progress.in_flight} in flight",
        f"{progress.failed} failed",
    ]
    left = progress.seconds_left
    if left is not None:
        parts.append(f"{_duration(left)} left")
    return " | ".join(parts)
