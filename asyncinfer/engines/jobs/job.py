"""`BatchJob`: the handle of a submitted batch. Rule: everything needed to find its answers again is in its JSON, except
secrets and the conversations.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ...conversation import Conversation
from ...errors import ConfigError, EngineError, RetryKind
from ..plan import as_conversation
from .gate import Gate, gate_of
from .kept import FORMAT, asked_of, class_of, config_of, engine_of, of_class, parsed_of
from .parts import Part
from .results import Results
from .status import BatchStatus, PartStatus, summed
from .waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...params import InferenceConfig
    from ...request import Request
    from ..base import Engine


class BatchJob:
    """Rows that were given to a provider's batch API: one job for the caller, one or several for the provider.

    Made by ``asyncinfer.batch.submit`` (or ``engine.batch.submit``), or by `from_json` in another program.

    Attributes:
        id: our own id of it, random.
        provider: name of the provider's row.
        base_url: the endpoint that it was sent to.
        model: name of the model.
        total: rows of the input.
        created: seconds since the epoch.
        parts: the provider's jobs.
        unsent: rows that could not be asked, and why; their results are failures.
        complete: every row of the input has been submitted. A job that is not is gone on with by
            ``submit(..., resume=job)``.
        limits: the most rows and bytes of a part that were asked for; None for the provider's own.
        labels: whatever the caller wants to remember, text by name; some providers show them.
    """

    def __init__(
        self,
        view: Gate,
        template: Request,
        *,
        config: str | None = None,
        labels: dict[str, str] | None = None,
        limits: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self.id = uuid.uuid4().hex
        self.provider = view.provider
        self.base_url = view.base_url
        self.model = template.model.model_name or ""
        self.created = time.time()
        self.total = 0
        self.parts: list[Part] = []
        self.unsent: dict[int, ConfigError] = {}
        self.labels = labels or {}
        self.complete = False
        self.limits = limits
        self.resumed = False
        self._view = view
        self._template = template
        self._config = config
        self._tools = bool(template.tools)
        self._class = class_of(template)
        self._conversations: Any = None
        self._known: dict[str, PartStatus] = {}

    def __repr__(self) -> str:
        return f"<BatchJob {self.id} of {self.total} rows at {self.provider}, {len(self.parts)} part(s)>"

    @property
    def engine(self) -> Engine:
        """The engine that speaks to the provider; yours to close."""
        return self._view.engine

    @property
    def config(self) -> InferenceConfig | None:
        """Model and parameters that its rows are asked with; no secrets."""
        return config_of(self._config)

    # -- while it is submitted -----------------------------------------------------------------------------------------

    def keep(self, conversations: Sequence[Any]) -> None:
        """Remember the input, for the results."""
        self._conversations = conversations

    def take_up(self, view: Gate, template: Request, labels: dict[str, str] | None) -> Request:
        """Be gone on with; what the rest is asked with. Raises `ConfigError` where that would send it elsewhere, or as
        something else."""
        self._check_place(view)
        if self._tools and not template.tools:
            raise ConfigError("this job was submitted with tools: give the same again", path="tools")
        if asked_of(view.written(template)) != asked_of(self._config) or (template.tools and not self._tools):
            raise ConfigError(
                "this job was submitted with another model or other parameters: give the same, or none", path="resume"
            )
        self._view, self._template, self.resumed = view, template, True
        self.labels.update(labels or {})
        return of_class(template, self._class)

    def rewind(self) -> None:
        """Forget rows that no part has."""
        self.total = self.parts[-1].end if self.parts else 0
        self.unsent = {index: error for index, error in self.unsent.items() if index < self.total}

    # -- asking the provider -------------------------------------------------------------------------------------------

    async def status(self) -> BatchStatus:
        """How far it is. Raises `AsyncInferError`."""
        for part in self.parts:
            known = self._known.get(part.id)
            if known is None or not known.state.ended:
                self._known[part.id] = await self._view.look(part)
        return summed([self._known[part.id] for part in self.parts], self.total, len(self.unsent))

    async def wait(
        self,
        *,
        interval: float = 5.0,
        longest: float = 60.0,
        timeout: float | None = None,
        on_progress: Callable[[BatchStatus], object] | None = None,
    ) -> BatchStatus:
        """Return when it has ended. Cancelling the call leaves the job alone.

        Args:
            interval: seconds between the first two looks; later ones are further apart.
            longest: seconds between two looks, at most.
            timeout: seconds to wait at most; None waits for as long as it takes.
            on_progress: called (awaited, if it is async) after each look.

        Raises:
            TotalTimeout: it has not ended within ``timeout``.
            AsyncInferError: the provider refuses to tell. Faults that may pass are waited out.
        """
        return await wait_for(self.status, interval, longest, timeout, on_progress, self.provider)

    async def cancel(self) -> BatchStatus:
        """Ask the provider to stop what has not ended; answers that are finished stay available.

        Returns:
            The status afterwards; the provider may take minutes: `wait` until it has ended.
        """
        from ...errors import APIError

        before = await self.status()
        for part, status in zip(self.parts, before.parts, strict=True):
            if status.state.ended:
                continue
            try:
                await self._view.cancel(part)
            except APIError:
                if not (await self._view.look(part)).state.ended:  # it may have ended just now
                    raise
        return await self.status()

    def results(
        self,
        conversations: Sequence[Any] | Callable[[int], Any] | None = None,
        *,
        partial: bool = False,
        response_model: type[Any] | None = None,
    ) -> Results:
        """The answers: a `Completion` or `Failure` for each row, with its ``.index``.

        ``await`` it for a list in input order; ``async for`` gives rows as the provider's files have them, in constant
        memory. A row without an answer (expired, cancelled, lost) is a `Failure`.

        Args:
            conversations: the input again, or a function from a row's index to its conversation, where the job was read
                from JSON. Without it, ``completion.conversation`` has the answer only.
            partial: the job need not have ended: only rows that the provider gives out already, and no failures for
                the others.
            response_model: the class that answers are parsed into, where the job was read from JSON.

        Raises:
            EngineError: (when read) the job has not ended and ``partial`` is False.
        """
        template = self._template
        if response_model is not None:
            template = replace(template, response_model=response_model)
        given = self._conversations if conversations is None else conversations

        def request_of(index: int) -> Request:
            conversation = Conversation(messages=[])
            if given is not None:
                conversation = as_conversation(given(index) if callable(given) else given[index])
            return replace(template, conversation=conversation)

        async def begin() -> list[tuple[Part, PartStatus]]:
            status = await self.status()
            if not status.ended and not partial:
                raise EngineError(
                    f"batch job {self.id} has not ended ({status.state}, {status.fraction:.0%} done): wait() for it, "
                    "or take what is there with results(partial=True)",
                    provider=self.provider,
                    code="batch_not_ended",
                    retry=RetryKind.TRANSIENT,
                )
            return list(zip(self.parts, status.parts, strict=True))

        door, flavour = self._view.door, self._view.flavour
        return Results(begin, door, flavour, request_of, self.total, self.unsent, partial=partial)

    # -- kept and found again ------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """The job as one line of JSON; no secrets, no conversations."""
        value = {
            "format": FORMAT,
            "id": self.id,
            "provider": self.provider,
            "base_url": self.base_url,
            "model": self.model,
            "created": self.created,
            "total": self.total,
            "parts": [asdict(part) for part in self.parts],
            "unsent": {index: [error.message, error.path] for index, error in self.unsent.items()},
            "labels": self.labels,
            "complete": self.complete,
            "limits": self.limits,
            "tools": self._tools,
            "class": self._class,
            "config": self._config,
        }
        return json.dumps(value, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, engine: Any = None) -> BatchJob:
        """The job that `to_json` wrote, perhaps in another program.

        Args:
            text: the JSON.
            engine: an engine of the same provider and endpoint; None makes one like the one that submitted it, with the
                key from the environment.

        Raises:
            ConfigError: the text is no job, or the engine speaks to another endpoint.
        """
        value = parsed_of(text)
        if engine is None:
            engine = engine_of(value.get("config"))
        view = gate_of(engine)
        try:
            template = view.template(config_of(value.get("config")))
            job = cls(view, template, config=value.get("config"), labels=dict(value["labels"]))
            job.provider, job.base_url = str(value["provider"]), str(value["base_url"])
            job._check_place(view)
            most_rows, most_bytes = value.get("limits") or (None, None)
            job.limits = (most_rows, most_bytes)
            job.complete = bool(value.get("complete", True))
            job._tools = bool(value.get("tools"))
            job._class = value.get("class")
            job.id, job.model, job.created = str(value["id"]), str(value["model"]), float(value["created"])
            job.total = int(value["total"])
            job.parts = [Part(**part) for part in value["parts"]]
            job.unsent = {
                int(index): ConfigError(message, path=path) for index, (message, path) in value["unsent"].items()
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"not a batch job: {type(error).__name__}: {error}", path="job") from error
        return job

    def _check_place(self, view: Gate) -> None:
        if (view.provider, view.base_url) != (self.provider, self.base_url):
            raise ConfigError(
                f"this job was sent to {self.base_url}, but the engine speaks to {view.base_url}: "
                "pass an engine with the same api_url",
                path="engine",
            )
