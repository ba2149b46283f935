"""JSON that is still being written: the value so far, in time linear in the size of the text however it is cut.

Rule: pure; every character is looked at once. RFC 8259 grammar; text before the value (a Markdown fence) is skipped up
to the first ``{`` or ``[``, text after it is ignored.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .errors import StructuredOutputError

_SPACE = " \t\n\r"
_PLAIN = re.compile(r'[^"\\]*')
_WORD = re.compile(r"[^\s,\]}]*")
_BEGIN = re.compile(r"[{\[]")


class PartialJSON:
    """Feed it text; `value` is what is known.

    ``value`` is one live object that grows in place (copy it to keep a state of it). A string that is being written
    shows up as far as it is known, long ones with a delay of at most a sixteenth of their length; numbers and literals
    show up when they are complete; keys with their value.

    Attributes:
        value: the object or list so far, or None before it began.
        complete: whether its closing bracket was seen.
    """

    __slots__ = ("_expect", "_key", "_mode", "_shown", "_size", "_stack", "_text", "_word", "complete", "value")

    def __init__(self) -> None:
        self.value: Any = None
        self.complete = False
        self._stack: list[dict[str, Any] | list[Any]] = []
        self._key: str | None = None
        self._mode = "_before"
        self._expect = ""
        self._text: list[str] = []  # the raw pieces of a string that is being written
        self._size = 0
        self._shown = 0
        self._word: list[str] = []

    def feed(self, text: str) -> bool:
        """Take in a piece. Returns whether `value` changed.

        Raises:
            StructuredOutputError: it is not JSON.
        """
        changed = False
        at, end = 0, len(text)
        while at < end and not self.complete:
            at, news = getattr(self, self._mode)(text, at)
            changed |= news
        return changed

    # -- one step for each mode: (text, position) -> (position, whether the value changed) -----------------------------

    def _before(self, text: str, at: int) -> tuple[int, bool]:
        found = _BEGIN.search(text, at)
        if found is None:
            return len(text), False
        self._mode = "_value"
        return found.start(), False

    def _value(self, text: str, at: int) -> tuple[int, bool]:
        character = text[at]
        if character in _SPACE:
            return at + 1, False
        if character in "{[":
            container: dict[str, Any] | list[Any] = {} if character == "{" else []
            self._put(container)
            self._stack.append(container)
            self._mode = "_key_or_end" if character == "{" else "_item"
            return at + 1, True
        if character == '"':
            self._begin_string()
            self._put("")
            return at + 1, True
        if character in "-0123456789tfn":
            self._mode = "_read_word"
            return at, False
        raise self._wrong(character, "a value")

    def _item(self, text: str, at: int) -> tuple[int, bool]:
        """The first item of a list, or its end."""
        if text[at] in _SPACE:
            return at + 1, False
        if text[at] == "]":
            return self._pop(at)
        self._mode = "_value"
        return at, False

    def _key_or_end(self, text: str, at: int) -> tuple[int, bool]:
        character = text[at]
        if character in _SPACE:
            return at + 1, False
        if character == '"':
            self._begin_string()
            self._mode = "_key_text"
            return at + 1, False
        if character == "}" and not self._stack[-1]:
            return self._pop(at)
        raise self._wrong(character, "a key")

    def _colon(self, text: str, at: int) -> tuple[int, bool]:
        if text[at] in _SPACE:
            return at + 1, False
        if text[at] != ":":
            raise self._wrong(text[at], "a colon")
        self._mode = "_value"
        return at + 1, False

    def _after(self, text: str, at: int) -> tuple[int, bool]:
        character = text[at]
        if character in _SPACE:
            return at + 1, False
        in_list = isinstance(self._stack[-1], list)
        if character == ",":
            self._mode = "_value" if in_list else "_key_or_end"
            return at + 1, False
        if character == ("]" if in_list else "}"):
            return self._pop(at)
        raise self._wrong(character, "a comma or a closing bracket")

    def _string(self, text: str, at: int) -> tuple[int, bool]:
        at, done = self._scan_string(text, at)
        if done:
            self._replace(self._finish_string())
            self._mode = "_after"
            return at, True
        if self._size - self._shown > self._size >> 4:
            self._shown = self._size
            self._replace(self._so_far())
            return at, True
        return at, False

    def _key_text(self, text: str, at: int) -> tuple[int, bool]:
        at, done = self._scan_string(text, at)
        if done:
            self._key = self._finish_string()
            self._mode = "_colon"
        return at, False

    def _read_word(self, text: str, at: int) -> tuple[int, bool]:
        found = _WORD.match(text, at)
        assert found is not None
        self._word.append(found[0])
        if found.end() == len(text):
            return found.end(), False
        word = "".join(self._word)
        self._word.clear()
        try:
            value = json.loads(word)
        except ValueError:
            raise self._wrong(word, "a number, true, false or null") from None
        self._put(value)
        self._mode = "_after"
        return found.end(), True

    # -- strings -------------------------------------------------------------------------------------------------------

    def _begin_string(self) -> None:
        self._text.clear()
        self._expect = ""
        self._size = self._shown = 0
        self._mode = "_string"

    def _scan_string(self, text: str, at: int) -> tuple[int, bool]:
        """Take in raw text up to the closing quote or the end of the piece."""
        start = at
        if self._expect:  # the character after a backslash that ended the last piece
            at += 1
            self._expect = ""
        while True:
            found = _PLAIN.match(text, at)
            assert found is not None
            at = found.end()
            if at >= len(text):
                break
            if text[at] == '"':
                self._text.append(text[start:at])
                self._size += at - start
                return at + 1, True
            if at + 1 >= len(text):
                self._expect = "escaped"
                at += 1
                break
            at += 2
        self._text.append(text[start:at])
        self._size += at - start
        return at, False

    def _finish_string(self) -> str:
        raw = "".join(self._text)
        self._text.clear()
        try:
            value: str = json.loads(f'"{raw}"', strict=False)
        except ValueError:
            raise self._wrong(raw[-20:], "a string") from None
        return value

    def _so_far(self) -> str:
        """The text of a string that is not closed yet, without an escape sequence that is cut."""
        raw = "".join(self._text)
        for keep in range(len(raw), max(len(raw) - 12, -1), -1):
            try:
                value: str = json.loads(f'"{raw[:keep]}"', strict=False)
            except ValueError:
                continue
            # Half of a surrogate pair is no character yet.
            return value[:-1] if value and "\ud800" <= value[-1] <= "\udbff" else value
        return ""

    # -- containers ----------------------------------------------------------------------------------------------------

    def _put(self, value: Any) -> None:
        if not self._stack:
            self.value = value
            return
        container = self._stack[-1]
        if isinstance(container, list):
            container.append(value)
        else:
            assert self._key is not None
            container[self._key] = value

    def _replace(self, value: Any) -> None:
        container = self._stack[-1]
        if isinstance(container, list):
            container[-1] = value
        else:
            assert self._key is not None
            container[self._key] = value

    def _pop(self, at: int) -> tuple[int, bool]:
        self._stack.pop()
        self._mode = "_after"
        self.complete = not self._stack
        return at + 1, self.complete

    def _wrong(self, got: str, wanted: str) -> StructuredOutputError:
        return StructuredOutputError(f"the answer is not valid JSON: expected {wanted}, got {got[:20]!r}")
