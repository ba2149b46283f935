"""The shape of an answer, as several formats ask for it: schemas, expressions, grammars.

Rule: of no format of its own; what comes back is checked by the engine, whatever was asked for here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_KINDS = ("json", "regex", "choice", "grammar")
_NAMED = {"properties", "$defs", "definitions", "patternProperties"}  # maps from names to schemas
_VERBATIM = {"enum", "const", "default", "examples", "required"}  # values, not schemas


def shape_kind(guided: Any) -> str | None:
    """Which of ``json``, ``regex``, ``choice`` and ``grammar`` is set in a `GuidedDecodingParams` (or None)."""
    return next((kind for kind in _KINDS if getattr(guided, kind, None) is not None), None)


def named_schema(guided: Any) -> dict[str, Any]:
    """``name``, ``schema`` and, where asked for, ``strict``: a JSON Schema as OpenAI's formats have it."""
    shape = guided.json
    schema = class_schema(shape) if isinstance(shape, type) else guided.json_schema()
    title = shape.__name__ if isinstance(shape, type) else schema.get("title")
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", title)[:64] if isinstance(title, str) and title else "response"
    if guided.strict:
        return {"name": name, "schema": _closed(schema), "strict": True}
    return {"name": name, "schema": schema}


@lru_cache(maxsize=64)
def class_schema(kind: Any) -> dict[str, Any]:
    """A class's schema, made once: it takes longer than everything else in a request."""
    from ..params.guided import schema_of

    return schema_of(kind)


def _closed(schema: Any) -> Any:
    """A copy in which every object names all its properties as required and allows no others: what strict mode asks."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: (
            {name: _closed(item) for name, item in value.items()}
            if key in _NAMED and isinstance(value, dict)
            else value
        )
        if key in _NAMED or key in _VERBATIM
        else _closed(value)
        for key, value in schema.items()
    }
    if schema.get("type") == "object" or "properties" in schema:
        closed.setdefault("additionalProperties", False)
        if isinstance(schema.get("properties"), dict):
            closed["required"] = list(schema["properties"])
    return closed


def alternatives(choices: list[str]) -> str:
    """A regular expression for exactly these texts."""
    return "(" + "|".join(re.sub(r"([\\.^$*+?()\[\]{}|])", r"\\\1", choice) for choice in choices) + ")"


def gbnf_choice(choices: list[str]) -> str:
    """A grammar, in the notation of llama.cpp, for exactly these texts."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    quoted = ('"' + "".join(escapes.get(letter, letter) for letter in choice) + '"' for choice in choices)
    return "root ::= " + " | ".join(quoted)
