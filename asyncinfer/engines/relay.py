"""The answer of one engine passed on as another's: what engines that are made of engines share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import (
    AsyncInferError,
    AuthenticationError,
    ConnectTimeout,
    EngineError,
    FirstTokenTimeout,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
)

if TYPE_CHECKING:
    from ..events import Event
    from ..limits import RateHeaders
    from .call import Call

_ELSEWHERE = (
    AuthenticationError,
    ConnectTimeout,
    EngineError,
    FirstTokenTimeout,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
)


class Relay:
    """The answer of another engine's call, as a `Source`."""

    __slots__ = ("_call", "_first", "rate", "request_id")

    def __init__(self, call: Call, first: list[Event]) -> None:
        self._call = call
        self._first: list[Event] | None = first
        self.rate: RateHeaders = {}
        self.request_id = call.request_id

    async def pull(self) -> list[Event] | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._call.pull()

    def abort(self) -> None:
        self._call.abort()

    async def aclose(self) -> None:
        """The call has let go of everything when it ended."""


async def first_events(call: Call) -> list[Event]:
    """The events of a call up to its first delta, or all of an answer that has none."""
    events = await call.pull()
    return events if events is not None else []


def worth_another(error: AsyncInferError) -> bool:
    """Whether another engine may succeed where one failed like this: whatever is about the engine, not the request."""
    return error.retryable or isinstance(error, _ELSEWHERE)
