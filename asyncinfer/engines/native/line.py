"""Who may begin: rows wait here, first come first served, until there is memory for them.

A library that runs out of memory for keys and values throws rows out and reads them anew later. So a row begins only
when there is room for all that the running ones, and it, may come to: prompts, and answers up to their limits. Of an
answer that may become very long, only the next `AHEAD` tokens are counted: most end early, and else one request
without a limit would have all the memory to itself. Where too many go on, the library does have to throw out, and the
line holds the others back until there is room again.

Pure: no threads, no library; the sizes are arguments.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .row import Row

AHEAD = 1024
"""Tokens of an answer that are counted before they are made."""


class Memory(Protocol):
    """How much there is, and how much a row takes, in the same units."""

    @property
    def capacity(self) -> int: ...

    def sectors(self, tokens: int) -> int: ...


class Line:
    """The rows that wait, and those that run, by name.

    Args:
        slots: the most rows that run at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.waiting: deque[Row] = deque()
        self.running: dict[str, Row] = {}

    def next(self, memory: Memory) -> Row | None:
        """Take the first row out of the line, if it may begin. Rows that nobody waits for leave it."""
        if any(row.cancelled for row in self.waiting):
            self.waiting = deque(row for row in self.waiting if not row.cancelled)
        if not self.waiting or len(self.running) >= self._slots:
            return None
        if self.running:
            used = sum(memory.sectors(expected(row)) for row in self.running.values())
            if used + memory.sectors(expected(self.waiting[0])) > memory.capacity:
                return None
        return self.waiting.popleft()

    def leave(self) -> list[Row]:
        """Everybody goes home."""
        rows, self.waiting = list(self.waiting), deque()
        return rows


def expected(row: Row) -> int:
    """Tokens that a row has, or may soon have. The last token of an answer is never read."""
    return len(row.prepared.tokens) + min(row.prepared.limit, row.made + AHEAD)
