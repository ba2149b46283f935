"""``engine.batch``: rows become a job, or the rest of one."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import AsyncInferError, ConfigError, EngineError
from .gate import Gate
from .job import BatchJob
from .sending import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...params import GenerationParams, InferenceConfig


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
        resume: BatchJob | None = None,
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
            resume: a job whose submission was interrupted (an error's ``.partial``, or read from JSON): only what it
                does not have yet is sent, with its own parameters unless others are given, which must say the same.
                Give the same conversations, from the first on, and the same tools.

        Returns:
            `BatchJob` (that of ``resume``, if given). Rows that the provider's format cannot say are in its ``unsent``,
            and come back as failures.

        Raises:
            ConfigError: there are no rows, a parameter is wrong, or not that of the job to go on with.
            AsyncInferError: the provider refuses, or cannot be reached; ``.partial`` is the job with the parts that
                were created before, to go on with, or None.
            EngineError: likewise, for an error of the conversations' own (``__cause__``) after the first part.
        """
        config = inference_config
        if resume is not None and config is None:
            config = resume.config
        template = replace(self.engine.plan(generation, config, response_model, tools, None).template, stream=False)
        if resume is None:
            job = BatchJob(self, template, config=self.written(template), labels=labels, limits=(max_rows, max_bytes))
        else:
            job = resume
            template = job.take_up(self, template, labels)
            if job.complete:
                return job
        if isinstance(conversations, Sequence):
            job.keep(conversations)
        self.door.check()
        most = (max_rows or job.limits[0], max_bytes or job.limits[1])
        await self._send(Sender(self, job, template, *most), job, conversations, on_part)
        if not job.total:
            raise ConfigError("there are no conversations to submit", path="conversations")
        return job

    async def _send(
        self,
        sender: Sender,
        job: BatchJob,
        conversations: Iterable[Any] | AsyncIterable[Any],
        on_part: Callable[[BatchJob], object] | None,
    ) -> None:
        """Send; whatever happens, the job is left with what the provider has, and known to the caller."""
        try:
            await sender.send(conversations, on_part)
            job.complete = True
        except AsyncInferError as error:
            error.partial = job if job.parts else None
            raise
        except Exception as error:
            if not job.parts:
                raise
            sent = job.parts[-1].end
            what = f"the conversations broke off with an error of their own ({type(error).__name__})"
            raise EngineError(
                f"{what} after {sent:,} had been submitted: go on with submit(..., resume=error.partial)",
                provider=self.provider,
                code="batch_interrupted",
                partial=job,
            ) from error
        finally:
            if not job.complete:
                job.rewind()

    def job(self, text: str) -> BatchJob:
        """The job of `BatchJob.to_json`, on this engine. Raises `ConfigError`."""
        return BatchJob.from_json(text, self.engine)
