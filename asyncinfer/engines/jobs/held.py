"""The last rows read, kept back: a provider may refuse a job of very few rows, and no job may end up as that."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...errors import ConfigError


class Held:
    """Rows on their way to a file. ``least`` of them are behind every one that `ripe` lets go.

    Args:
        least: rows that a provider job must have; with 0 nothing is kept back.

    Attributes:
        good: rows in it that can be sent.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._rows: deque[bytes | ConfigError] = deque()
        self.good = 0

    def add(self, row: bytes | ConfigError) -> None:
        """Append a line, or the reason why there is none."""
        self._rows.append(row)
        self.good += isinstance(row, bytes)

    def ripe(self) -> Iterator[bytes | ConfigError]:
        """The rows that need not be kept any longer."""
        while self._rows and (not self._least or self.good > self._least):
            yield self._take()

    def rest(self) -> Iterator[bytes | ConfigError]:
        """All others, in the end."""
        while self._rows:
            yield self._take()

    @property
    def size(self) -> int:
        """Bytes of the lines in it."""
        return sum(len(row) for row in self._rows if isinstance(row, bytes))

    def _take(self) -> bytes | ConfigError:
        row = self._rows.popleft()
        self.good -= isinstance(row, bytes)
        return row
