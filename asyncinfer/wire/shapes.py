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

# What OpenAI's strict mode documents, less what depends on the model.
_SAYS_WHAT = {"type", "$ref", "anyOf", "enum", "const"}
_STRICT_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"}
_STRUCTURE = {"properties", "required", "additionalProperties", "items", "$defs"}
_STRICT = _SAYS_WHAT | _STRUCTURE | _BOUNDS | {"title", "description", "pattern", "format", "default"}


class ClassSchema(dict[str, Any]):
    """The schema of a class that is not at hand: what is sent is what would be sent for the class.

    Attributes:
        name: the class's.
    """

    def __init__(self, schema: dict[str, Any], name: str) -> None:
        super().__init__(schema)
        self.name = name


def shape_kind(guided: Any) -> str | None:
    """Which of ``json``, ``regex``, ``choice`` and ``grammar`` is set in a `GuidedDecodingParams` (or None)."""
    return next((kind for kind in _KINDS if getattr(guided, kind, None) is not None), None)


def named_schema(guided: Any, *, closable: bool = False) -> dict[str, Any]:
    """``name``, ``schema`` and, where asked for, ``strict``: a JSON Schema as OpenAI's formats have it.

    Args:
        guided: a `GuidedDecodingParams` with a schema.
        closable: nobody having said otherwise, a class's schema is strict where that does not change what it means.
    """
    shape = guided.json
    schema = class_schema(shape) if isinstance(shape, type) else guided.json_schema()
    name = schema_name(shape, schema)
    if guided.strict:
        return {"name": name, "schema": _closed(schema), "strict": True}
    if closable and isinstance(shape, (type, ClassSchema)) and "strict" not in guided.model_fields_set:
        closed = _class_closed(shape) if isinstance(shape, type) else _without_a_loss(schema)
        if closed is not None:
            return {"name": name, "schema": closed, "strict": True}
    return {"name": name, "schema": schema}


def schema_name(shape: Any, schema: dict[str, Any]) -> str:
    """What a schema is called where it must have a name: as the class that it is of, else by its title."""
    title = shape.__name__ if isinstance(shape, type) else getattr(shape, "name", schema.get("title"))
    return re.sub(r"[^a-zA-Z0-9_-]", "_", title)[:64] if isinstance(title, str) and title else "response"


@lru_cache(maxsize=64)
def class_schema(kind: Any) -> dict[str, Any]:
    """A class's schema, made once: it takes longer than everything else in a request."""
    from ..params.guided import schema_of

    return schema_of(kind)


@lru_cache(maxsize=64)
def _class_closed(kind: Any) -> dict[str, Any] | None:
    return _without_a_loss(class_schema(kind))


def _without_a_loss(schema: dict[str, Any]) -> dict[str, Any] | None:
    """A class's schema as strict mode takes it, or None where it would mean something else then."""
    if schema.get("type") != "object" or not _closable(schema):
        return None
    closed: dict[str, Any] = _closed(_without_null_defaults(schema))
    return closed


def _closable(schema: Any) -> bool:
    """Whether strict mode knows every word of a schema, and naming all properties as required changes nothing: one that
    may be left out must default to null, and take null."""
    if not isinstance(schema, dict) or not schema.keys() & _SAYS_WHAT or not schema.keys() <= _STRICT:
        return False
    if "$ref" in schema and len(schema) > 1:
        return False
    if schema.get("format", "uuid") not in _STRICT_FORMATS or "(?" in schema.get("pattern", ""):
        return False
    if schema.get("type") == "object" or "properties" in schema:
        named = schema.get("properties")
        if not isinstance(named, dict) or schema.get("additionalProperties", False) is not False:
            return False
        required = schema.get("required", ())
        if not all(name in required or _null_anyway(inner) for name, inner in named.items()):
            return False
    elif "default" in schema and schema["default"] is not None:
        return False
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    return all(_closable(each) for each in ([*inner, schema["items"]] if "items" in schema else inner))


def _null_anyway(schema: Any) -> bool:
    return (
        isinstance(schema, dict)
        and schema.get("default", "") is None
        and any(option.get("type") == "null" for option in schema.get("anyOf", ()) if isinstance(option, dict))
    )


def _without_null_defaults(schema: Any) -> Any:
    """A copy of a closable schema without the defaults, of which strict mode knows nothing."""
    if isinstance(schema, list):
        return [_without_null_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _without_null_defaults(item) for name, item in value.items()}
        if key in _NAMED
        else value
        if key in _VERBATIM
        else _without_null_defaults(value)
        for key, value in schema.items()
        if key != "default"
    }


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
