"""Text that a server cut in the middle of a character.

JSON may spell a character outside the first 65,536 as two escapes, and some servers put the two into two events. What
leaves this package is always whole: the first half waits for the second, and a half that stays alone becomes U+FFFD.
"""

from __future__ import annotations


class Halves:
    """Pieces of one text in, whole characters out."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """The text that may be handed on now."""
        if self._half:
            text, self._half = self._half + text, ""
        if text and not text.isascii():
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._half = text[:-1], text[-1]
            text = mended(text)
        return text

    def close(self) -> str:
        """What is left of a character that never ended: U+FFFD, or nothing."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""


def mended(text: str) -> str:
    """``text`` with pairs of halves joined and lone halves replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
