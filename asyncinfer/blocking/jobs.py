"""Provider batch jobs without a loop: the same calls as those of ``engine.batch`` and its jobs, waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import asyncinfer

from .loop import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .. import BatchStatus, Completion, Failure

_AT_ONCE = 64
"""Rows for one trip to the background loop."""


class BlockingBatch:
    """See ``engine.batch`` of the async engine.

    Raises:
        ConfigError: the engine has no batch API.
    """

    def __init__(self, engine: Any) -> None:
        self._view: Any = getattr(engine, "batch", None)
        if self._view is None:
            name = getattr(engine, "name", type(engine).__name__)
            raise asyncinfer.ConfigError(f"{name} has no batch API: use engine.generate_many", path="engine")

    def submit(
        self,
        conversations: Iterable[Any],
        *,
        on_part: Callable[[BatchJob], object] | None = None,
        resume: BatchJob | None = None,
        **options: Any,
    ) -> BatchJob:
        """Give conversations to the provider; arguments and errors as for the async call, but that an error's
        ``.partial`` is a job of this room."""

        def tell(job: asyncinfer.BatchJob) -> None:
            if on_part is not None:
                on_part(BatchJob(job))

        async def call() -> asyncinfer.BatchJob:
            before = None if resume is None else resume.job
            job: asyncinfer.BatchJob = await self._view.submit(conversations, on_part=tell, resume=before, **options)
            return job

        try:
            return BatchJob(run(call))
        except asyncinfer.AsyncInferError as error:
            if isinstance(error.partial, asyncinfer.BatchJob):
                error.partial = BatchJob(error.partial)
            raise

    def job(self, text: str) -> BatchJob:
        """The job of `BatchJob.to_json`, on this engine. Raises `ConfigError`."""
        return BatchJob(self._view.job(text))


class BatchJob:
    """See `asyncinfer.BatchJob`; what it knows (``id``, ``total``, ``parts``, ``unsent``, ``complete`` ...), this does.

    Attributes:
        job: the async one.
    """

    def __init__(self, job: asyncinfer.BatchJob) -> None:
        self.job = job

    def __repr__(self) -> str:
        return repr(self.job)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "job":
            raise AttributeError(name)
        return getattr(self.job, name)

    def status(self) -> BatchStatus:
        """How far it is."""
        status: BatchStatus = run(self.job.status)
        return status

    def wait(self, **options: Any) -> BatchStatus:
        """Return when it has ended. Ctrl-C leaves the job alone. ``on_progress`` is called on another thread."""

        async def call() -> BatchStatus:
            return await self.job.wait(**options)

        status: BatchStatus = run(call)
        return status

    def cancel(self) -> BatchStatus:
        """Ask the provider to stop what has not ended."""
        status: BatchStatus = run(self.job.cancel)
        return status

    def results(
        self, conversations: Sequence[Any] | Callable[[int], Any] | None = None, **options: Any
    ) -> BlockingResults:
        """The answers: iterate for rows in the provider's order, or take `BlockingResults.all`."""
        return BlockingResults(self.job, conversations, options)

    def to_json(self) -> str:
        """The job as one line of JSON; no secrets, no conversations."""
        return self.job.to_json()

    @classmethod
    def from_json(cls, text: str, engine: Any = None) -> Self:
        """The job that `to_json` wrote; ``engine`` may be a blocking one. Raises `ConfigError`."""
        return cls(asyncinfer.BatchJob.from_json(text, getattr(engine, "_engine", engine)))

    def close(self) -> None:
        """Let go of the engine that `from_json` made."""
        run(self.job.engine.aclose)


class BlockingResults:
    """The answers of a job; each iteration reads them anew, in constant memory."""

    def __init__(self, job: asyncinfer.BatchJob, conversations: Any, options: dict[str, Any]) -> None:
        self._job = job
        self._conversations = conversations
        self._options = options

    def __iter__(self) -> Iterator[Completion | Failure]:
        """Rows as the provider's files have them, each with its ``.index``. Leaving the loop ends the download."""
        results = self._begin()
        found: list[Completion | Failure] = []
        broken: list[Exception] = []

        async def some() -> bool:
            try:
                while len(found) < _AT_ONCE:
                    found.append(await anext(results))
            except StopAsyncIteration:
                return False
            except Exception as error:  # noqa: BLE001 -- told when the rows before it have been
                broken.append(error)
                return False
            return True

        more = True
        try:
            while more:
                more = run(some)
                yield from found
                found.clear()
            if broken:
                raise broken[0]
        finally:
            run(results.aclose)

    def all(self) -> list[Completion | Failure]:
        """Every row, in input order."""

        async def call() -> list[Completion | Failure]:
            found: list[Completion | Failure] = await self._begin()
            return found

        rows: list[Completion | Failure] = run(call)
        return rows

    def _begin(self) -> Any:
        return self._job.results(self._conversations, **self._options)
