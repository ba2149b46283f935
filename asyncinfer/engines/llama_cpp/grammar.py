"""A choice or a regular expression as a GBNF grammar, the notation of llama.cpp (grammars/README.md there).

Compiled here, and JSON Schemas in `schema`, so that both bindings take the same shapes and refuse the same ones. (A
grammar that llama.cpp's other grammar engine cannot compile is silently not enforced; this is plain GBNF, whose errors
are reported.)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PATH = "generation.guided_decoding.regex"

_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": " \\t\\n\\r"}
_RANGES = {"d": [(48, 57)], "w": [(48, 57), (65, 90), (97, 122), (95, 95)], "s": [(32, 32), (9, 10), (13, 13)]}
_WRITTEN = '"\\\t\n\r'
"""What stands in a JSON string as two characters. (Other control characters, which need six, are left out.)"""
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_MAX_REPEAT = 2000


def from_choice(choices: Iterable[str]) -> str:
    """A grammar for exactly one of these strings. Raises `ConfigError` if there are none."""
    words = list(choices)
    if not words or not all(words):
        raise ConfigError(
            "generation.guided_decoding.choice needs at least one string, and no empty one",
            path="generation.guided_decoding.choice",
        )
    return "root ::= " + " | ".join(f'"{escaped(word)}"' for word in words)


def from_regex(pattern: str) -> str:
    """A grammar for the strings that match the whole of ``pattern``.

    Knows literals, escapes, classes, groups, alternatives and repetition. Repetition is always as the model likes, so
    lazy and greedy mean the same.

    Raises:
        ConfigError: the pattern is broken, or uses what a grammar cannot express (look-around, back references,
            word boundaries).
    """
    return "root ::= " + _Regex(pattern).compile()


def inside_json(pattern: str, anything: str) -> str:
    """The contents of a JSON string in which ``pattern`` is found, as JSON Schema wants it: anywhere, unless anchored.

    Args:
        pattern: a regular expression.
        anything: name of the rule for any character of a JSON string.

    Raises:
        ConfigError: as `from_regex`.
    """
    regex = _Regex(pattern, in_json=True)
    before = "" if pattern.startswith("^") else f"{anything}* "
    after = "" if regex.end < len(pattern) else f" {anything}*"
    return f"{before}({regex.compile()}){after}"


def _without_special(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same characters but for those that a JSON string cannot hold as they are."""
    for low, high in ranges:
        start = max(low, 32)
        for special in (0x22, 0x5C):
            if start <= special <= high:
                if start < special:
                    yield start, special - 1
                start = special + 1
        if start <= high:
            yield start, high


def _range(low: int, high: int) -> str:
    return _member(chr(low)) if low == high else f"{_member(chr(low))}-{_member(chr(high))}"


def _member(char: str) -> str:
    """A character inside a GBNF class, where ``^`` and ``-`` have no escape of their own."""
    return f"\\x{ord(char):02X}" if char in "^-[]\\" or char < " " else char


def escaped(text: str) -> str:
    """Text as it stands between the quotes of a literal."""
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

    def __init__(self, pattern: str, *, in_json: bool = False) -> None:
        self.pattern = pattern
        self.in_json = in_json
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
            return self._of_class("\\n", [(10, 10)], without=True)
        if char == "\\":
            return self._escape()
        if char in "*+?{":
            self.at -= 1
            self._fail(f"{char} with nothing to repeat")
        if char in "^$":
            self.at -= 1
            self._fail(f"the anchor {char} inside the pattern")
        return self._of_char(char)

    def _of_char(self, char: str) -> str:
        return f'"{escaped(json.dumps(char, ensure_ascii=False)[1:-1] if self.in_json else char)}"'

    def _of_class(self, text: str, ranges: list[tuple[int, int]], *, without: bool) -> str:
        """One character of a class, or one without it."""
        if not self.in_json:
            return f"[{'^' if without else ''}{text}]"
        special = [char for char in _WRITTEN if without != any(low <= ord(char) <= high for low, high in ranges)]
        ways = [self._of_char(char) for char in special if not (without and char < " ")]
        plain = "".join(_range(low, high) for low, high in (ranges if without else _without_special(ranges)))
        if without:
            ways.insert(0, f'[^"\\\\\\x00-\\x1F{plain}]')
        elif plain:
            ways.insert(0, f"[{plain}]")
        return f"({' | '.join(ways)})"

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
            known = char.lower()
            return self._of_class(_CLASSES[known], _RANGES[known], without=char.isupper())
        return self._of_char(self._literal(char))

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
        without = self._peek("^")
        self.at += without
        text, ranges = "", []
        while not text or not self._peek("]"):
            more, found = self._member()
            text += more
            ranges += found
        self.at += 1
        return self._of_class(text, ranges, without=without)

    def _member(self) -> tuple[str, list[tuple[int, int]]]:
        """As it stands in GBNF, and the characters it means."""
        char = self._take()
        if char == "\\":
            char = self._take()
            if char in _CLASSES:
                return _CLASSES[char], _RANGES[char]
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
            return f"{_member(char)}-{_member(last)}", [(ord(char), ord(last))]
        return _member(char), [(ord(char), ord(char))]

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
