"""What the user types. Rule: the prompt mark is shown only to a person; a pipe just gives lines.

A line that ends with a backslash goes on in the next one; a line that begins with three double quotes begins a text
that goes on until they come again.
"""

from __future__ import annotations

import sys
from contextlib import suppress

_QUOTES = '"""'


class Reader:
    """Reads one entry after another from standard input."""

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty()
        if self.interactive:
            with suppress(ImportError):  # line editing and history for `input`; not on every system
                import readline  # noqa: F401 -- imported for its effect

    def read(self) -> str | None:
        """The next entry; None when there is no more. Raises KeyboardInterrupt on Ctrl-C at the prompt."""
        line = self._line("> ")
        if line is None:
            return None
        if line.lstrip().startswith(_QUOTES):
            return self._quoted(line.lstrip()[len(_QUOTES) :])
        lines = [line]
        while lines[-1].endswith("\\"):
            more = self._line(". ")
            if more is None:
                break
            lines[-1] = lines[-1][:-1]
            lines.append(more)
        return "\n".join(lines)

    def _quoted(self, line: str | None) -> str:
        lines: list[str] = []
        while line is not None:
            before, end, _ = line.partition(_QUOTES)
            lines.append(before)
            if end:
                break
            line = self._line(". ")
        return "\n".join(lines).strip("\n")

    def _line(self, mark: str) -> str | None:
        if not self.interactive:
            line = sys.stdin.readline()
            return line.rstrip("\r\n") if line else None
        if not sys.stdout.isatty():  # answers go to a file: the mark must not
            sys.stderr.write(mark)
            sys.stderr.flush()
            mark = ""
        try:
            return input(mark)
        except EOFError:
            return None
