"""An answer on its way, without a loop."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import asyncinfer

from .loop import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .. import Completion, Event, Stream, Timings, Usage


class BlockingStream:
    """See `asyncinfer.Stream`: iterate for text, or over `events`; `completion` for the whole answer.

    Leaving a loop early stops the work. Inside ``with stream`` loops may break and resume, and leaving the block stops
    it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._entered = False
        self._left: deque[Event] = deque()  # came together with what was read, and is for the next loop

    def __iter__(self) -> Iterator[str]:
        for event in self.events():
            if type(event) is asyncinfer.TextDelta and event.index == 0 and event.text:
                yield event.text

    def events(self) -> Iterator[Event]:
        """All events, one by one."""
        events = self._stream.events()
        try:
            while True:
                while self._left:
                    yield self._left.popleft()
                self._left += run(events.batch)
                if not self._left:
                    return
        finally:
            # Dropped where nothing can be waited for, at the program's end or by the loop's own thread: then the
            # iterator, which is dropped with this, stops the work.
            if not self._entered:
                with suppress(RuntimeError):
                    run(self._stream.aclose)

    def completion(self) -> Completion:
        """Read what is left and return the whole answer."""
        completion: Completion = run(self._stream.completion)
        return completion

    @property
    def usage(self) -> Usage | None:
        """Tokens of the call once it has ended."""
        return self._stream.usage

    @property
    def timings(self) -> Timings:
        """When things happened."""
        return self._stream.timings

    def __enter__(self) -> Self:
        self._entered = True
        run(self._stream.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self._stream.__aexit__, kind, error, trace)
