"""How rows become provider jobs: encoded, collected in a file up to the provider's limits, handed over.

Rule: the job knows of a part as soon as the provider has taken it, and of nothing that it has not taken.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from ...errors import ConfigError
from ..files import names_files, with_files
from ..plan import Plan
from .answers import row_id
from .held import Held
from .parts import Order, Part
from .spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...request import Request
    from .gate import Gate
    from .job import BatchJob

_STEP = 64
"""Rows between two moments at which others may run."""
_END: Any = object()


class Sender:
    """Rows to provider jobs, one file after the other. What `job` has already, is passed over.

    Raises:
        ConfigError: a limit is wrong.
    """

    def __init__(
        self, view: Gate, job: BatchJob, template: Request, max_rows: int | None, max_bytes: int | None
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
        self._taken_over = len(job.parts)
        self._again = job.resumed
        self._spool: Spool

    async def send(
        self, conversations: Iterable[Any] | AsyncIterable[Any], on_part: Callable[[BatchJob], object] | None
    ) -> None:
        """Send them all. Raises `ConfigError` where there are fewer than the job has already, `AsyncInferError`."""
        rows, held, index = _Rows(conversations), Held(self._least), self._job.total
        self._spool = self._fresh()
        try:
            await rows.skip(index)
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
        """Whether there are enough rows for the first job here; the later ones are seen to."""
        found = self._spool.rows + held
        if 0 < found < self._least and len(self._job.parts) == self._taken_over:
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
            mark=f"{job.id}-{len(job.parts)}-{spool.digest}",
            again=self._again,
        )
        try:
            found, details = await view.flavour.create(view.door, spool, order)
        finally:
            spool.close()
        self._again = False
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

    async def skip(self, count: int) -> None:
        """Pass over the first rows. Raises `ConfigError` if there are not as many."""
        for at in range(count):
            if await self.next() is _END:
                raise ConfigError(
                    f"the conversations end after {at:,}, but {count:,} were submitted already: give the same ones "
                    "again, from the first on",
                    path="conversations",
                )

    async def aclose(self) -> None:
        """No more rows are wanted."""
        close = getattr(self._async, "aclose", None)
        if close is not None:
            await close()
