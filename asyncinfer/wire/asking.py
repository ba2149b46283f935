"""What encoders of several formats share: parameters in a body.

Rule: of no format of its own; a function here has two callers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..dialect import Dialect
    from ..request import Request

JSON_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
"""Headers of a request whose body and answer are JSON, streamed or not."""


def put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set a value below a dotted path."""
    *outer, last = path.split(".")
    for name in outer:
        body = body.setdefault(name, {})
    body[last] = value


def same(value: Any, other: Any) -> bool:
    """Whether two values of a parameter ask for the same; nothing, an empty text and an empty list do."""
    return bool(value == other) or (not value and not other and not isinstance(value, (int, float)))


def dropped_params(request: Request, dialect: Dialect) -> dict[str, Any]:
    """Parameters that the model refuses, with the values that mean the same as leaving them out."""
    rule = dialect.rule(request.model.model_name or "") if dialect.model_rules else None
    if rule is None:
        return {}
    effort = request.asked("reasoning_effort")
    active = {"always": True, "unless_none": effort != "none", "if_effort": effort not in {None, "none"}}
    return rule.drops if active[rule.when] else {}
