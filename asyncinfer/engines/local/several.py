"""Several answers to one request (``n > 1``): as many voices, each an answer of its own to its engine, in one stream.

Rule: nothing waits. Voices may speak from different threads at once.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from ...events import Event, Start, Usage, UsageUpdate
from ..worker import send_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...errors import AsyncInferError
    from ..worker import Feed
    from .ask import Ask


class Voice:
    """One of several answers; it is spoken to like a `Feed`.

    Attributes:
        index: which answer, from 0.
        usage: tokens of this answer, as last reported.
    """

    __slots__ = ("_all", "index", "usage")

    def __init__(self, together: Several, index: int) -> None:
        self._all = together
        self.index = index
        self.usage = Usage()

    @property
    def cancelled(self) -> bool:
        """The caller has gone, or another answer failed: the work is for nothing."""
        return self._all.failed or self._all.feed.cancelled

    @property
    def together(self) -> Several:
        """The answers this is one of."""
        return self._all

    def send(self, events: Sequence[Event]) -> None:
        """As `Feed.send`."""
        with self._all.lock:
            self._all.feed.send(self._all.mark(self, events))

    def end(self, events: Sequence[Event] = ()) -> None:
        """As `Feed.end`, of this answer; the last one's end is that of the stream."""
        with self._all.lock:
            events, ended = self._all.mark(self, events), self._all.leave()
            if ended:
                self._all.feed.end(events)
            else:
                self._all.feed.send(events)

    def fail(self, error: AsyncInferError) -> None:
        """As `Feed.fail`: no answer goes on without the others."""
        with self._all.lock:
            if not self._all.failed:
                self._all.failed = True
                self._all.feed.fail(error)

    def letter(self, events: Sequence[Event], *, ended: bool) -> tuple[Feed, Sequence[Event], bool]:
        """For `speak`: what goes to the feed, and whether all answers have ended."""
        with self._all.lock:
            return self._all.feed, self._all.mark(self, events), self._all.leave() if ended else False


class Several:
    """All answers to one request.

    Args:
        feed: where they go, together.
        count: how many there are.

    Attributes:
        failed: one of them has failed, and so have all.
        prompt_read: the first one has read the prompt, so that the others need not.
    """

    def __init__(self, feed: Feed, count: int) -> None:
        self.feed = feed
        self.lock = threading.Lock()
        self.voices = [Voice(self, index) for index in range(count)]
        self.failed = False
        self.prompt_read = False
        self._left = count
        self._started = False

    def asks(self, ask: Ask) -> list[tuple[Ask, Voice]]:
        """The request of each voice: the same, but for the seed."""
        return [
            (replace(ask, n=1, seed=None if ask.seed is None else ask.seed + voice.index), voice)
            for voice in self.voices
        ]

    def mark(self, voice: Voice, events: Sequence[Event]) -> list[Event]:
        """With the lock held: one start for all, one count of tokens for all, and each piece with its index."""
        marked: list[Event] = []
        for event in events:
            if isinstance(event, Start):
                if not self._started:
                    marked.append(event)
                self._started = True
            elif isinstance(event, UsageUpdate):
                voice.usage = event.usage
                marked.append(UsageUpdate(self._usage()))
            else:
                event.index = voice.index
                marked.append(event)
        return marked

    def leave(self) -> bool:
        """With the lock held: one voice has ended; whether it was the last."""
        self._left -= 1
        return self._left == 0

    def _usage(self) -> Usage:
        """The prompt once, the answers all."""
        counts = [voice.usage for voice in self.voices]
        return Usage(
            input_tokens=max(count.input_tokens for count in counts),
            output_tokens=sum(count.output_tokens for count in counts),
            cached_tokens=counts[0].cached_tokens,
            reasoning_tokens=sum(count.reasoning_tokens for count in counts),
        )


def speak(step: Iterable[tuple[Feed | Voice, Sequence[Event], bool]]) -> None:
    """Any thread: what many answers have to say after one step, and whether each is complete; see `send_all`."""
    send_all(
        [
            listener.letter(events, ended=ended) if isinstance(listener, Voice) else (listener, events, ended)
            for listener, events, ended in step
        ]
    )
