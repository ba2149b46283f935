"""Regular expressions that answers must match, in a time that is bounded whatever the expression.

Python's `re` backtracks: ``(a+)+b`` takes years over forty letters, and holds the loop and every other thread. It is
asked only where it has next to nothing to try twice. All else goes to the matcher that jsonschema-rs brings along:
linear, with a bound on steps where an expression looks around or back. Rule: what the two read differently is written
for that one as Python means it (classes of Unicode, brackets in a class).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_STEPS = 100_000
_SIZE = 64 << 20
"""Bytes of a compiled expression: ``\\w{1,1000}`` takes some of them, and a third of a second."""
_BRANCHES = 64

_WORD = r"\p{L}\p{M}\p{N}\p{Pc}"
_OUTSIDE = {"w": f"[{_WORD}]", "W": f"[^{_WORD}]", "d": r"\p{Nd}", "D": r"\P{Nd}", "Z": r"\z", "<": "<", ">": ">"}
_INSIDE = {"w": _WORD, "d": r"\p{Nd}", "D": r"\P{Nd}", "<": "<", ">": ">"}
_LITERAL_INSIDE = {"[", "]", "&", "~"}
_PIECE = re.compile(r"\\.|\(\?P=\w+\)|.", re.DOTALL)
_AGAIN = re.compile(r"[*+?]|\{\d*,\d*\}")
_GROUP_AGAIN = re.compile(r"\)[*+?{]")


@lru_cache(maxsize=64)
def matcher(pattern: str) -> Callable[[str], object]:
    """A function that says whether a whole text matches. What Python's dialect lacks (classes of Unicode, other named
    groups) is read as JSON Schema does.

    Raises:
        ValueError: it is an expression in neither dialect, or Python's only and could take for ever.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        try:
            return _bounded(pattern)
        except ValueError:
            raise ValueError(str(error)) from None
    if _tries_little(pattern):
        return compiled.fullmatch
    try:
        return _bounded(_translated(compiled))
    except ValueError:
        raise ValueError(
            "it could take for ever to match: it is too large, or has what only Python's expressions have (atomic "
            "groups, conditions, comments)"
        ) from None


def _bounded(pattern: str) -> Callable[[str], object]:
    import jsonschema_rs

    options = jsonschema_rs.FancyRegexOptions(size_limit=_SIZE, backtrack_limit=_STEPS)
    matches: Callable[[str], object] = jsonschema_rs.validator_for(
        {"pattern": f"^(?:{pattern})$"}, pattern_options=options
    ).is_valid
    return matches


def _tries_little(pattern: str) -> bool:
    """Whether an expression repeats one piece at most, and no group: its matcher never goes back far."""
    bare = "".join(_bare(piece, inside=inside) for piece, inside in _pieces(pattern)).replace("(?:", "(")
    return (
        "(?" not in bare
        and len(_AGAIN.findall(bare)) <= 1
        and not _GROUP_AGAIN.search(bare)
        and bare.count("|") <= _BRANCHES
    )


def _bare(piece: str, *, inside: bool) -> str:
    """A letter in place of an escape or a class."""
    return "" if inside or piece == "]" else "a" if piece == "[" or piece.startswith("\\") else piece


def _translated(compiled: re.Pattern[str]) -> str:
    return "".join(_written(piece, compiled.groupindex, inside=inside) for piece, inside in _pieces(compiled.pattern))


def _written(piece: str, names: Mapping[str, int], *, inside: bool) -> str:
    if piece.startswith("\\"):
        return (_INSIDE if inside else _OUTSIDE).get(piece[1:], piece)
    if piece.startswith("(?P="):
        return rf"(?:\{names[piece[4:-1]]})"  # by its number
    return f"\\{piece}" if inside and piece in _LITERAL_INSIDE else piece


def _pieces(pattern: str) -> Iterator[tuple[str, bool]]:
    """Escapes and single letters, and whether each stands inside a class; its brackets do not."""
    begun = -1  # letters into a class: its first may be a bracket that does not end it
    for piece in _PIECE.findall(pattern):
        if begun < 0:
            yield piece, False
            begun = 0 if piece == "[" else -1
        elif piece == "]" and begun:
            yield piece, False
            begun = -1
        elif piece == "^" and not begun:
            yield piece, True
        else:
            yield piece, True
            begun = 1
