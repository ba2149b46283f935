"""The answers of a job, as they lie in the provider's files: read once, in constant memory, matched by id.

Rule: whatever a file holds (other people's rows, a row twice, a line that is no JSON), every row of the job comes out
at most once, and of a job that has ended exactly once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

import anyio

from ...completion import Failure
from ...errors import ConfigError, TransportError
from .answers import answer, index_of, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import TracebackType

    from ...completion import Completion
    from ...conversation import Conversation
    from ...request import Request
    from .door import Door
    from .flavour import Flavour
    from .lines import Lines
    from .parts import Part
    from .status import PartStatus

_log = logging.getLogger("asyncinfer.batch")

_BREAKS = 8
"""How often a download may break without a new row between."""
_PAUSE = 0.5


class Results:
    """What `BatchJob.results` gives: ``await`` it for a list in input order, or iterate for rows in the provider's
    order, each with its ``.index``. ``async with`` (or `aclose`) ends a download early.

    Args:
        begin: looks at the job; gives its parts and what is known of each.
        door, flavour: where the files come from.
        request_of: the request of a row.
        total: rows of the whole job.
        unsent: rows that could not be asked, and why.
        partial: take only the rows that are there.
    """

    def __init__(
        self,
        begin: Callable[[], Any],
        door: Door,
        flavour: Flavour,
        request_of: Callable[[int], Request],
        total: int,
        unsent: dict[int, ConfigError],
        *,
        partial: bool,
    ) -> None:
        self._begin = begin
        self._door = door
        self._flavour = flavour
        self._request_of = request_of
        self._seen = bytearray(total)
        self._unsent = unsent
        self._partial = partial
        self._parts: Iterator[tuple[Part, PartStatus]] | None = None
        self._part: tuple[Part, PartStatus] | None = None
        self._files: list[str] = []
        self._lines: Lines | None = None
        self._breaks = 0
        self._absent: Generator[Failure, None, None] | None = self._never_sent()

    def __await__(self) -> Generator[Any, Any, list[Completion | Failure]]:
        return self._all().__await__()

    async def _all(self) -> list[Completion | Failure]:
        async with self:
            found = [row async for row in self]
        found.sort(key=lambda row: row.index or 0)
        return found

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Completion | Failure:
        if self._parts is None:
            self._parts = iter(await self._begin())
        while True:
            if self._absent is not None:
                absent = next(self._absent, None)
                if absent is not None:
                    return absent
                self._absent = None
            if self._part is None and not self._next_part():
                raise StopAsyncIteration
            found = await self._next_row()
            if found is not None:
                return found

    async def aclose(self) -> None:
        """Stop reading. Idempotent."""
        self._parts, self._part, self._absent = iter(()), None, None
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _next_part(self) -> bool:
        assert self._parts is not None
        self._part = next(self._parts, None)
        if self._part is not None:
            self._files = list(self._part[1].outputs)
        return self._part is not None

    async def _next_row(self) -> Completion | Failure | None:
        """The next row of the part's files; None where a file or the part ends, or a line is no row of ours."""
        assert self._part is not None
        if self._lines is None:
            if not self._files:
                part, status = self._part
                self._part = None
                if status.state.ended or not self._partial:
                    self._absent = self._missing(part, status)
                return None
            self._lines = await self._flavour.lines(self._door, self._files[0])
        try:
            line = await self._lines.next()
        except TransportError:
            self._lines = None
            self._breaks += 1
            if self._breaks > _BREAKS:
                raise
            await anyio.sleep(_PAUSE)
            return None  # the same file again: rows that were seen are not given twice
        if line is None:
            self._lines = None
            self._files.pop(0)
            return None
        return self._read(line)

    def _read(self, line: bytes) -> Completion | Failure | None:
        assert self._part is not None
        part = self._part[0]
        try:
            row = self._flavour.read(line)
        except ValueError as error:
            _log.warning("batch %s: a line of the results is not readable (%s)", part.id, type(error).__name__)
            return None
        index = None if row is None else index_of(row.id)
        if row is None or index is None or not part.first <= index < part.end:
            _log.warning("batch %s: a line of the results belongs to no row of this job", part.id)
            return None
        if self._seen[index]:
            return None
        self._seen[index] = 1
        self._breaks = 0
        return answer(self._door.endpoint, self._request_of(index), row, index)

    def _never_sent(self) -> Generator[Failure, None, None]:
        for index, error in self._unsent.items():
            self._seen[index] = 1
            yield Failure(index=index, conversation=self._conversation(index), error=error)

    def _missing(self, part: Part, status: PartStatus) -> Generator[Failure, None, None]:
        provider = self._door.endpoint.provider.name
        for index in range(part.first, part.end):
            if not self._seen[index]:
                self._seen[index] = 1
                error = missing(part, status, provider)
                yield Failure(index=index, conversation=self._conversation(index), error=error)

    def _conversation(self, index: int) -> Conversation:
        from ...conversation import Conversation

        try:
            return self._request_of(index).conversation
        except ConfigError:  # it was never one
            return Conversation(messages=[])
