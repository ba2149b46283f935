"""From the bytes of tokens to text that may be shown: what every local engine does between its sampler and its stream.

Rule: pure, no clock, no library, and indifferent to how the input is cut. A character is shown when its last byte is
there, a stop string is never shown, not even its beginning, and markup that stands for something else (a tool call, a
train of thought) is taken out before the text that follows it.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Utf8Pieces:
    """Bytes in, whole characters out. Bytes that can never become a character turn into U+FFFD."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """The characters that ``piece`` completes."""
        return self._decoder.decode(piece)

    def close(self) -> str:
        """What is left of a character that never ended: U+FFFD, or nothing."""
        return self._decoder.decode(b"", final=True)


def held_back(text: str, words: Iterable[str]) -> int:
    """Length of the longest end of ``text`` that one of ``words`` may still grow from."""
    longest = 0
    for word in words:
        for size in range(min(len(word) - 1, len(text)), longest, -1):
            if text.endswith(word[:size]):
                longest = size
                break
    return longest


class StopStrings:
    """Cuts an answer right before the first stop string.

    First means: completed first, as the text is written; of two that end at the same character, the longer one. What
    may still become a stop string is held back until it is decided, so nothing shown is ever taken back.

    Attributes:
        matched: the stop string that was found, or None. Once set, nothing more comes out.
    """

    __slots__ = ("_held", "_stops", "matched")

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.matched: str | None = None

    def __bool__(self) -> bool:
        return bool(self._stops)

    def feed(self, text: str) -> str:
        """The text that may be shown now."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.matched = min(found)
            self._held = ""
            return text[:at]
        keep = held_back(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def close(self) -> str:
        """The answer ended: what was held back, and is text after all."""
        held, self._held = self._held, ""
        return held


class Tagged:
    """Splits text into what stands outside and what stands inside a pair of tags; the tags themselves vanish.

    Attributes:
        inside: whether the opening tag was the last one seen.
    """

    __slots__ = ("_close", "_held", "_open", "inside")

    def __init__(self, opening: str, closing: str, *, inside: bool = False) -> None:
        self._open = opening
        self._close = closing
        self._held = ""
        self.inside = inside

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Pieces in order, each with whether it stands inside. An empty inside piece marks a closing tag."""
        text = self._held + text
        pieces: list[tuple[bool, str]] = []
        while True:
            tag = self._close if self.inside else self._open
            before, found, after = text.partition(tag)
            if not found:
                break
            if before:
                pieces.append((self.inside, before))
            if self.inside:
                pieces.append((True, ""))
            self.inside = not self.inside
            text = after
        keep = held_back(text, (tag,))
        self._held = text[len(text) - keep :]
        if keep < len(text):
            pieces.append((self.inside, text[: len(text) - keep]))
        return pieces

    def close(self) -> list[tuple[bool, str]]:
        """The answer ended: what was held back."""
        held, self._held = self._held, ""
        return [(self.inside, held)] if held else []
