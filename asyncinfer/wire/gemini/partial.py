"""Arguments of a function call that Vertex streams piece by piece (``partialArgs``), put together.

Each piece names a place by a JSON path (``$.city.name``, ``$.list[0]``) and gives a value, or a further part of a
string. The object is whole when a piece comes that does not say ``willContinue``.
"""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\s*['\"]([^'\"]+)['\"]\s*\]")
_MOST_ITEMS = 10_000
_VALUES = ("stringValue", "numberValue", "boolValue")


class PartialArguments:
    """The arguments of one call as far as they have come."""

    __slots__ = ("extra", "id", "name", "number", "value")

    def __init__(self, number: int) -> None:
        self.number = number
        self.id: str | None = None
        self.name: str | None = None
        self.extra: Any = None
        self.value: dict[str, Any] = {}

    def add(self, piece: dict[str, Any]) -> None:
        """Take in one piece; one that makes no sense is left out, as a client that cannot ask again must."""
        steps = _steps(piece.get("jsonPath"))
        if not steps:
            return
        name = next((name for name in _VALUES if name in piece), None)
        _set(self.value, steps, piece[name] if name is not None else None)


def _steps(path: Any) -> list[str | int]:
    """The steps of a JSON path; empty for one that is none."""
    if not isinstance(path, str):
        return []
    text = path.removeprefix("$")
    if text and text[0] not in ".[":
        text = "." + text
    steps: list[str | int] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            return []
        name, index, quoted = match.groups()
        steps.append(int(index) if index is not None else name or quoted)
        at = match.end()
    return steps


def _set(root: Any, steps: list[str | int], value: Any) -> None:
    place = root
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if isinstance(step, int):
            if not isinstance(place, list) or step >= _MOST_ITEMS:
                return
            place.extend([None] * (step + 1 - len(place)))
        elif not isinstance(place, dict):
            return
        inner: Any = place[step] if isinstance(step, int) else place.get(step)
        if following is None:
            grown = isinstance(inner, str) and isinstance(value, str)
            place[step] = inner + value if grown else value
            return
        if inner is None:
            inner = [] if isinstance(following, int) else {}
            place[step] = inner
        place = inner
