"""A choice or a regular expression as a GBNF grammar, the notation of llama.cpp (grammars/README.md there).

The JSON-schema converter of each binding is its own; these two shapes are compiled here, so that both bindings take the
same patterns and refuse the same ones. (A grammar that llama.cpp's other grammar engine cannot compile is silently not
enforced; what is compiled here is plain GBNF, whose errors are reported.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..local.ask import Ask

_PATH = "generation.guided_decoding.regex"

_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": " \\t\\n\\r"}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_MAX_REPEAT = 2000


def shape(ask: Ask) -> str | None:
    """The grammar of a request whose answer must have a shape, other than a JSON schema. Raises `ConfigError`."""
    if ask.choice is not None:
        return from_choice(ask.choice)
    return from_regex(ask.regex) if ask.regex is not None else ask.grammar


def from_choice(choices: Iterable[str]) -> str:
    """A grammar for exactly one of these strings. Raises `ConfigError` if there are none."""
    words = list(choices)
    if not words or not all(words):
        raise ConfigError(
            "generation.guided_decoding.choice needs at least one string, and no empty one",
            path="generation.guided_decoding.choice",
        )
    return "root ::= " + " | ".join(f'"{_escape(word)}"' for word in words)


def from_regex(pattern: str) -> str:
    """A grammar for the strings that match the whole of ``pattern``.

    Knows literals, escapes, classes, groups, alternatives and repetition. Repetition is always as the model likes, so
    lazy and greedy mean the same.

    Raises:
        ConfigError: the pattern is broken, or uses what a grammar cannot express (look-around, back references,
            word boundaries).
    """
    return "root ::= " + _Regex(pattern).compile()


def _member(char: str) -> str:
    """A character inside a GBNF class, where ``^`` and ``-`` have no escape of their own."""
    return f"\\x{ord(char):02X}" if char in "^-[]\\" or char < " " else char


def _escape(text: str) -> str:
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char < " " or char == "\x7f":
            out.append(f"\\x{ord(char):02X}")
        else:
            out.append(char)
    return "".join(out)


class _Regex:
    """Recursive descent: alternatives, sequences, one atom with its repetition."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0
        self.end = len(pattern)
        if pattern.startswith("^"):
            self.at = 1
        if pattern.endswith("$") and not self._escaped(len(pattern) - 1):
            self.end -= 1

    def _escaped(self, at: int) -> bool:
        slashes = len(self.pattern[:at]) - len(self.pattern[:at].rstrip("\\"))
        return slashes % 2 == 1

    def compile(self) -> str:
        out = self._alternatives()
        if self.at < self.end:
            self._fail("an unmatched )")
        return out

    def _fail(self, what: str) -> NoReturn:
        raise ConfigError(
            f"generation.guided_decoding.regex cannot be used: {what} at position {self.at} of {self.pattern!r}",
            path=_PATH,
        )

    def _peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at, self.end)

    def _take(self) -> str:
        if self.at >= self.end:
            self._fail("an unexpected end")
        char = self.pattern[self.at]
        self.at += 1
        return char

    def _alternatives(self) -> str:
        branches = [self._sequence()]
        while self._peek("|"):
            self.at += 1
            branches.append(self._sequence())
        return " | ".join(branches)

    def _sequence(self) -> str:
        items: list[str] = []
        while self.at < self.end and self.pattern[self.at] not in "|)":
            items.append(self._repeated(self._atom()))
        return " ".join(items) or '""'

    def _atom(self) -> str:
        char = self._take()
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == ".":
            return "[^\\n]"
        if char == "\\":
            return self._escape()
        if char in "*+?{":
            self.at -= 1
            self._fail(f"{char} with nothing to repeat")
        if char in "^$":
            self.at -= 1
            self._fail(f"the anchor {char} inside the pattern")
        return f'"{_escape(char)}"'

    def _group(self) -> str:
        if self._peek("?:"):
            self.at += 2
        elif self._peek("?P<"):
            name_end = self.pattern.find(">", self.at, self.end)
            if name_end < 0:
                self._fail("a group name without >")
            self.at = name_end + 1
        elif self._peek("?"):
            self._fail("look-around or an inline flag")
        inner = self._alternatives()
        if not self._peek(")"):
            self._fail("a ( without )")
        self.at += 1
        return f"({inner})"

    def _escape(self) -> str:
        char = self._take()
        if char.lower() in _CLASSES:
            return f"[{'^' if char.isupper() else ''}{_CLASSES[char.lower()]}]"
        return f'"{_escape(self._literal(char))}"'

    def _literal(self, char: str) -> str:
        """The character that an escape of it stands for."""
        if char in "xuU":
            digits = self.pattern[self.at : min(self.end, self.at + {"x": 2, "u": 4, "U": 8}[char])]
            try:
                value = chr(int(digits, 16))
            except (ValueError, OverflowError):
                self._fail(f"a broken \\{char} escape")
            self.at += len(digits)
            return value
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum():
            self.at -= 1
            self._fail(f"\\{char} (a back reference or an assertion)")
        return char

    def _class(self) -> str:
        out = "^" if self._peek("^") else ""
        self.at += len(out)
        first = True
        while first or not self._peek("]"):
            out += self._member()
            first = False
        self.at += 1
        return f"[{out}]"

    def _member(self) -> str:
        char = self._take()
        if char == "\\":
            char = self._take()
            if char in _CLASSES:
                return _CLASSES[char]
            if char.lower() in _CLASSES:
                self._fail(f"\\{char} inside a class")
            char = "\b" if char == "b" else self._literal(char)
        if self._peek("-") and not self._peek("-]"):
            self.at += 1
            last = self._take()
            if last == "\\":
                last = self._literal(self._take())
            if last < char:
                self._fail(f"the range {char}-{last}, which runs backwards")
            return f"{_member(char)}-{_member(last)}"
        return _member(char)

    def _repeated(self, atom: str) -> str:
        if self.at >= self.end:
            return atom
        char = self.pattern[self.at]
        if char in "*+?":
            self.at += 1
            atom += char
        elif char == "{" and (bounds := self._bounds()) is not None:
            atom += bounds
        else:
            return atom
        if self._peek("?"):
            self.at += 1
        elif self._peek("+"):
            self._fail("a possessive repetition")
        elif self._peek("*") or (self._peek("{") and self._bounds() is not None):
            self._fail("a repetition of a repetition")
        return atom

    def _bounds(self) -> str | None:
        """``{m,n}`` as it stands in GBNF; None for a brace that is a literal."""
        close = self.pattern.find("}", self.at, self.end)
        inside = self.pattern[self.at + 1 : close] if close > 0 else ""
        low, comma, high = inside.partition(",")
        if not (low.isdigit() or (comma and not low)) or (high and not high.isdigit()) or inside == ",":
            self._fail("a { that is not a repetition (write \\{ for the character)")
        if max(int(low or 0), int(high or 0)) > _MAX_REPEAT:
            self._fail(f"a repetition of more than {_MAX_REPEAT}")
        if high and int(low or 0) > int(high):
            self._fail(f"the repetition {{{inside}}}, which runs backwards")
        self.at = close + 1
        return f"{{{low or 0}{comma}{high}}}"
