"""A text of a given form where the provider only knows JSON Schemas: asked for as the one string in an object.

A choice is an ``enum`` there, a regular expression a ``pattern`` or, where the provider's schemas know none, words.
What comes back goes through `unwrapping`.

Rule: which forms travel so, the dialect says: ``"wrapped"``, or ``"told"`` for words (`Dialect.guided`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .shapes import shape_kind

if TYPE_CHECKING:
    from ..dialect import Dialect
    from ..params import GuidedDecodingParams
    from ..request import Request

KEY = "answer"
"""The object's one property."""
_PLACES = {"wrapped", "told"}


def is_wrapped(request: Request, dialect: Dialect) -> bool:
    """Whether the answer comes as the string in an object."""
    guided = request.asked("guided_decoding")
    return guided is not None and dialect.guided.get(shape_kind(guided) or "") in _PLACES


def only_told(request: Request, dialect: Dialect) -> list[str]:
    """The parameter's name where the provider is told of an expression and does not enforce it."""
    guided = request.asked("guided_decoding")
    kind = None if guided is None else shape_kind(guided)
    told = kind == "regex" and dialect.guided.get(kind) == "told"
    return [f"guided_decoding.{kind}"] if told else []


def as_sent(guided: GuidedDecodingParams, dialect: Dialect) -> GuidedDecodingParams:
    """The shape to send in the place of ``guided``: itself, or the schema of an object that holds the text."""
    kind = shape_kind(guided) or ""
    place = dialect.guided.get(kind)
    if place not in _PLACES:
        return guided
    value = tuple(guided.choice) if guided.choice is not None else guided.regex
    return _schema(value, told=place == "told", strict=dialect.strict != "asked")


@lru_cache(maxsize=64)
def _schema(value: Any, *, told: bool, strict: bool) -> GuidedDecodingParams:
    from ..params import GuidedDecodingParams

    text: dict[str, Any] = {"type": "string"}
    if isinstance(value, tuple):
        text["enum"] = list(dict.fromkeys(value))
    elif told:
        text["description"] = f"Text that matches, as a whole, the regular expression {value}"
    else:
        text["pattern"] = anchored(value)
    schema = {"type": "object", "properties": {KEY: text}, "required": [KEY], "additionalProperties": False}
    return GuidedDecodingParams(json=schema, strict=strict)


def anchored(pattern: str) -> str:
    """The expression for whole texts: a ``pattern`` of JSON Schema may match anywhere. Anchors that are there already
    are not doubled: some servers know them at the ends only."""
    alternatives, escaped_end = _outline(pattern)
    if alternatives:
        return f"^({pattern})$"
    begin = "" if pattern.startswith("^") else "^"
    return f"{begin}{pattern}{'' if pattern.endswith('$') and not escaped_end else '$'}"


def _outline(pattern: str) -> tuple[bool, bool]:
    """Whether an expression has alternatives outside its groups, and whether its last character is escaped."""
    depth, in_class, escaped, alternatives = 0, False, False, False
    last = False
    for letter in pattern:
        last = escaped
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif in_class:
            in_class = letter != "]"
        elif letter == "[":
            in_class = True
        else:
            depth += (letter == "(") - (letter == ")")
            alternatives = alternatives or (letter == "|" and depth == 0)
    return alternatives, last
