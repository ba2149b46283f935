"""A progress bar as tqdm's users know it, drawn by rich on stderr; silent where stderr is no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID


class Bar:
    """Prompts done, and tokens per second.

    Args:
        total: prompts there are.
        description: what stands before the bar.
        shown: whether it is wanted at all.
    """

    def __init__(self, total: int, description: str, *, shown: bool) -> None:
        self._total = total
        self._description = description
        self._shown = shown
        self._progress: Progress | None = None
        self._task: TaskID
        self._read = self._written = 0

    def __enter__(self) -> Self:
        if self._shown and self._total:
            from rich.console import Console

            console = Console(stderr=True)
            if console.is_terminal:
                self._start(console)
        return self

    def _start(self, console: object) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Elapsed(), Remaining())
        speed = TextColumn("{task.fields[speed]}")
        self._progress = Progress(*columns, speed, console=console)  # type: ignore[arg-type]
        self._task = self._progress.add_task(self._description, total=self._total, speed="")
        self._progress.start()

    def tokens(self, read: int, written: int) -> None:
        """An answer has come that read and wrote so many tokens."""
        self._read += read
        self._written += written

    def advance(self) -> None:
        """All answers to one prompt have come."""
        progress = self._progress
        if progress is None:
            return
        seconds = progress.tasks[0].elapsed or 0.0
        speed = ""
        if seconds > 0:
            speed = f"input {self._read / seconds:.0f} tok/s, output {self._written / seconds:.0f} tok/s"
        progress.update(self._task, advance=1, speed=speed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
