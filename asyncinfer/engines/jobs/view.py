"""``engine.batch``: how rows become a job."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from ...errors import AsyncInferError, ConfigError
from ..files import names_files, with_files
from ..plan import Plan
from .answers import row_id
from .gate import Gate
from .held import Held
from .job import BatchJob
from .parts import Order, Part
from .spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...params import GenerationParams, InferenceConfig
    from ...request import Request

_STEP = 64
"""Rows between two moments at which others may run."""
_END: Any = object()


class BatchView(Gate):
    """The batch API of an engine's provider, for its users. See `Gate` for arguments and errors."""

    async def submit(
        self,
        conversations: Iterable[Any] | AsyncIterable[Any],
        *,
        generation: GenerationParams | None = None,
        inference_config: InferenceConfig | None = None,
        response_model: type[Any] | None = None,
        tools: list[Any] | None = None,
        labels: dict[str, str] | None = None,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        on_part: Callable[[BatchJob], object] | None = None,
    ) -> BatchJob:
        """Give conversations to the provider. They pass through a temporary file, never through memory as a whole, and
        are split into as many provider jobs as its limits ask for.

        Args:
            conversations: any sync or async iterable of what ``engine.stream`` takes; a `ConfigError` stands for a row
                that its source could not read.
            generation: as for ``engine.stream``.
            inference_config: as for ``engine.stream``.
            response_model: as for ``engine.stream``.
            tools: as for ``engine.stream``.
            labels: notes of yours that stay with the job (``metadata``, where the provider keeps some).
            max_rows: rows of one provider job, where less than the provider's limit is wanted.
            max_bytes: bytes of one provider job, likewise.
            on_part: called with the job whenever a provider job has been added: save its `BatchJob.to_json` then, and
                a crash loses nothing that was paid for.

        Returns:
            `BatchJob`. Rows that the provider's format cannot say are in its ``unsent``, and come back as failures.

        Raises:
            ConfigError: there are no rows, or a parameter is wrong.
            AsyncInferError: the provider refuses, or cannot be reached; ``.partial`` is the job with the parts that
                were created before, or None.
        """
        plan = self.engine.plan(generation, inference_config, response_model, tools, None)
        template = replace(plan.template, stream=False)
        job = BatchJob(
            self,
            template,
            config=self.written(template),
            labels=labels,
            conversations=conversations if isinstance(conversations, Sequence) else None,
        )
        self.door.check()
        sender = _Sender(self, job, template, max_rows, max_bytes)
        try:
            await sender.send(conversations, on_part)
        except AsyncInferError as error:
            if job.parts:
                error.partial = job
            raise
        if not job.total:
            raise ConfigError("there are no conversations to submit", path="conversations")
        return job

    def job(self, text: str) -> BatchJob:
        """The job of `BatchJob.to_json`, on this engine. Raises `ConfigError`."""
        return BatchJob.from_json(text, self.engine)


class _Sender:
    """Rows to provider jobs, one file after the other."""

    def __init__(
        self, view: BatchView, job: BatchJob, template: Request, max_rows: int | None, max_bytes: int | None
    ) -> None:
        for name, value in (("max_rows", max_rows), ("max_bytes", max_bytes)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}", path=name)
        self._view = view
        self._job = job
        self._plan = Plan(template)
        self._limits = (max_rows, max_bytes)
        self._least = view.flavour.framing.least
        if max_rows is not None and max_rows < 2 * self._least:
            raise ConfigError(
                f"max_rows must be at least {2 * self._least} here: {view.provider} takes no job of fewer than "
                f"{self._least} rows",
                path="max_rows",
            )
        self._path = ""
        self._first = 0
        self._spool: Spool

    async def send(
        self, conversations: Iterable[Any] | AsyncIterable[Any], on_part: Callable[[BatchJob], object] | None
    ) -> None:
        rows, held, index = _Rows(conversations), Held(self._least), self._job.total
        self._spool = self._fresh()
        try:
            while (conversation := await rows.next()) is not _END:
                held.add(await self._line(index, conversation))
                index += 1
                for row in held.ripe():
                    await self._put(row, on_part)
            self._check_least(held.good)
            if self._spool.rows and not self._spool.takes(held.good, held.size):
                await self._close(on_part)
            for row in held.rest():
                await self._put(row, on_part)
            if self._spool.rows:
                await self._close(on_part)
        finally:
            self._spool.close()
            with anyio.CancelScope(shield=True):
                await rows.aclose()

    def _check_least(self, held: int) -> None:
        """Whether there are enough rows for a first job; the later ones are seen to."""
        found = self._spool.rows + held
        if 0 < found < self._least and not self._job.parts:
            raise ConfigError(
                f"{self._view.provider} takes no batch of fewer than {self._least} rows, and here are {found}: use "
                "engine.generate_many",
                path="conversations",
            )

    async def _put(self, row: bytes | ConfigError, on_part: Callable[[BatchJob], object] | None) -> None:
        """Put the next row where it belongs."""
        job = self._job
        if isinstance(row, bytes) and not self._spool.room(row):
            if self._spool.rows:
                await self._close(on_part)
            if not self._spool.room(row):
                what = f"{len(row):,} bytes; a provider job takes {self._spool.most_bytes:,}"
                row = ConfigError(f"the row is too large for a batch: {what}", path="messages")
        if isinstance(row, bytes):
            self._spool.add(row)
        else:
            job.unsent[job.total] = row
        job.total += 1

    def _fresh(self) -> Spool:
        self._first = self._job.total
        return Spool(self._view.flavour.framing, *self._limits)

    async def _line(self, index: int, conversation: Any) -> bytes | ConfigError:
        """The row's line; the reason for a row that cannot be asked."""
        endpoint = self._view.door.endpoint
        try:
            if isinstance(conversation, ConfigError):
                raise conversation
            request = self._plan.request(conversation, "", 1.0)
            if names_files(request):
                request = await with_files(request)
            wire = endpoint.codec.encode(request, endpoint.provider.dialect)
        except ConfigError as error:
            return error
        self._path = wire.path
        return self._view.flavour.line(row_id(index), wire)

    async def _close(self, on_part: Callable[[BatchJob], object] | None) -> None:
        """Send what has been collected, and begin afresh."""
        job, view, spool = self._job, self._view, self._spool
        remote = self._plan.template.remote
        order = Order(
            path=self._path,
            model=job.model,
            window=None if remote is None else remote.batch_completion_window,
            labels=job.labels,
            mark=f"{job.id}-{len(job.parts)}",
        )
        try:
            found, details = await view.flavour.create(view.door, spool, order)
        finally:
            spool.close()
        job.parts.append(Part(found, self._first, job.total, spool.rows, details))
        self._spool = self._fresh()
        if on_part is not None:
            on_part(job)


class _Rows:
    """The rows of either kind of iterable; others may run now and then."""

    def __init__(self, source: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._async = aiter(source) if isinstance(source, AsyncIterable) else None
        self._sync = iter(()) if isinstance(source, AsyncIterable) else iter(source)
        self._taken = 0

    async def next(self) -> Any:
        """The next row, or `_END`."""
        if self._async is not None:
            return await anext(self._async, _END)
        self._taken += 1
        if not self._taken % _STEP:
            await anyio.lowlevel.checkpoint()
        return next(self._sync, _END)

    async def aclose(self) -> None:
        """No more rows are wanted."""
        close = getattr(self._async, "aclose", None)
        if close is not None:
            await close()
