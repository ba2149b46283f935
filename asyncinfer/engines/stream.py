"""What ``engine.stream(...)`` returns: a handle, and the two iterators that read it.

The iterators are classes, not async generators: a generator that is dropped half-read cannot be closed on time, and
warns on trio. The handle is not its own iterator: a local variable that still holds it must not keep an abandoned
answer alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from ..events import Event, TextDelta

if TYPE_CHECKING:
    from types import TracebackType

    from ..completion import Completion, Timings
    from ..events import Usage
    from .call import Call


class Tokens:
    """Iterates over the pieces of the answer's text (choice 0)."""

    __slots__ = ("_call", "_owner")

    def __init__(self, call: Call, owner: bool) -> None:
        self._call = call
        self._owner = owner

    def __aiter__(self) -> Tokens:
        return self

    async def __anext__(self) -> str:
        call = self._call
        buffer = call.buffer
        while True:
            while buffer:
                event = buffer.popleft()
                if type(event) is TextDelta and event.index == 0 and event.text:
                    return event.text
            if not await call.fill():
                raise StopAsyncIteration

    def __del__(self) -> None:
        if self._owner:
            self._call.abandon()


class Events:
    """Iterates over all events."""

    __slots__ = ("_call", "_owner")

    def __init__(self, call: Call, owner: bool) -> None:
        self._call = call
        self._owner = owner

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        buffer = self._call.buffer
        while not buffer:
            if not await self._call.fill():
                raise StopAsyncIteration
        return buffer.popleft()

    async def batch(self) -> list[Event]:
        """All events that are there, waiting for at least one; empty at the end."""
        buffer = self._call.buffer
        while not buffer and await self._call.fill():
            pass
        events = list(buffer)
        buffer.clear()
        return events

    def __del__(self) -> None:
        if self._owner:
            self._call.abandon()


class Objects:
    """Iterates over the states of a JSON answer while it is being written (choice 0)."""

    __slots__ = ("_events", "_reader")

    def __init__(self, events: Events) -> None:
        from ..partial_json import PartialJSON

        self._events = events
        self._reader = PartialJSON()

    def __aiter__(self) -> Objects:
        return self

    async def __anext__(self) -> Any:
        while events := await self._events.batch():
            text = "".join([event.text for event in events if type(event) is TextDelta and event.index == 0])
            if text and self._reader.feed(text):
                return self._reader.value
        raise StopAsyncIteration


class Stream:
    """An answer on its way. Nothing is sent before it is iterated or awaited.

    ``async for token in stream`` gives text; leaving the loop early stops the work. Inside ``async with stream`` the
    block owns the work instead: loops may break and resume, and leaving the block stops it.
    """

    __slots__ = ("_call", "_entered")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._entered = False

    def __aiter__(self) -> Tokens:
        self._call.must_be_readable()
        return Tokens(self._call, owner=not self._entered)

    def events(self) -> Events:
        """Iterate over `Start`, `TextDelta`, `ReasoningDelta`, `ToolCallDelta`, `UsageUpdate` and `Finish`."""
        self._call.must_be_readable()
        return Events(self._call, owner=not self._entered)

    def objects(self) -> Objects:
        """Iterate over a JSON answer as it grows: dictionaries and lists, each with what is known so far.

        It is one object that grows in place, so the work stays linear in the length of the answer; copy it to keep a
        state of it. The complete and validated object is ``completion().parsed``, which a cut answer never gives.

        Raises, while iterating:
            StructuredOutputError: the answer is not JSON.
        """
        return Objects(self.events())

    async def completion(self) -> Completion:
        """Read what is left and return the whole answer.

        Raises:
            StreamInterrupted: the stream was left early, or broke; ``.partial`` has what arrived.
            StructuredOutputError: the answer does not validate against the requested model.
            AsyncInferError: whatever else ended the call.
        """
        return await self._call.result()

    @property
    def usage(self) -> Usage | None:
        """Tokens of the call once it has ended (also early: then estimated), None before."""
        return self._call.usage

    @property
    def timings(self) -> Timings:
        """When things happened; complete once the call has ended."""
        return self._call.timings

    async def aclose(self) -> None:
        """Stop the work, if it has not ended."""
        self._call.abort()

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._call.finished:
                # Everything was said; only the usage and the end of the body may be missing.
                while await self._call.pull() is not None:
                    pass
        finally:
            self._call.abort()
