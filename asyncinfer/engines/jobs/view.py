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
        self._path = ""
        self._first = 0

    async def send(
        self, conversations: Iterable[Any] | AsyncIterable[Any], on_part: Callable[[BatchJob], object] | None
    ) -> None:
        job = self._job
        spool = self._spool()
        rows = _Rows(conversations)
        try:
            while (conversation := await rows.next()) is not _END:
                index = job.total
                line = await self._line(index, conversation)
                if line is not None and not spool.room(line):
                    if spool.rows:
                        await self._close(spool, on_part)
                        spool = self._spool()
                    if not spool.room(line):
                        what = f"{len(line):,} bytes; a provider job takes {spool.most_bytes:,}"
                        job.unsent[index] = ConfigError(f"the row is too large for a batch: {what}", path="messages")
                        line = None
                if line is not None:
                    spool.add(line)
                job.total += 1
            if spool.rows:
                await self._close(spool, on_part)
        finally:
            spool.close()
            with anyio.CancelScope(shield=True):
                await rows.aclose()

    def _spool(self) -> Spool:
        self._first = self._job.total
        return Spool(self._view.flavour.framing, *self._limits)

    async def _line(self, index: int, conversation: Any) -> bytes | None:
        """The row's line; None (and the reason noted) for a row that cannot be asked."""
        endpoint = self._view.door.endpoint
        try:
            if isinstance(conversation, ConfigError):
                raise conversation
            request = self._plan.request(conversation, "", 1.0)
            if names_files(request):
                request = await with_files(request)
            wire = endpoint.codec.encode(request, endpoint.provider.dialect)
        except ConfigError as error:
            self._job.unsent[index] = error
            return None
        self._path = wire.path
        return self._view.flavour.line(row_id(index), wire)

    async def _close(self, spool: Spool, on_part: Callable[[BatchJob], object] | None) -> None:
        """Send what has been collected."""
        job, view = self._job, self._view
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
