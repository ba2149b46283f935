"""JSON Schemas as Claude's structured outputs take them.

The API compiles a schema into a grammar and refuses what it cannot compile: every object must be closed, and bounds,
rarer formats and all but simple patterns are unknown to it. Those are told to the model in words instead
(``description``), which is what the official client does too; the answer is validated against the whole schema when it
is there.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf")
# Characters, groups, classes, small counts; no assertions, back references or other classes of characters.
_SIMPLE = re.compile(r"(?:[^\\{}(]|\\[dwsnrt.^$*+?()\[\]{}|/\\-]|\((?!\?)|\{\d{1,2}(?:,\d{1,2})?\})*")
_PLAIN = {"type", "title", "description", "$ref", "enum", "const", "required", "default"}


def closed_schema(schema: Any) -> Any:
    """A copy in which every object allows no further properties and everything that the API refuses is said in the
    description instead."""
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _PLAIN:
            kept[key] = value
        elif key in _MAPS and isinstance(value, dict):
            kept[key] = {name: closed_schema(inner) for name, inner in value.items()}
        elif key in _LISTS and isinstance(value, list):
            kept[key] = [closed_schema(inner) for inner in value]
        elif key == "oneOf" and isinstance(value, list) and "anyOf" not in schema:
            kept["anyOf"] = [closed_schema(inner) for inner in value]
        elif key == "items":
            kept[key] = closed_schema(value)
        elif (
            (key == "format" and value in _FORMATS)
            or (key == "minItems" and value in {0, 1})
            or (key == "pattern" and isinstance(value, str) and _SIMPLE.fullmatch(value))
        ):
            kept[key] = value
        elif key not in {"additionalProperties", "discriminator", "$schema", "$id"}:
            told[key] = value
    if schema.get("type") == "object" or "properties" in schema:
        kept["additionalProperties"] = False
    if told:
        words = msgspec.json.encode(told).decode()
        kept["description"] = f"{kept['description']}\n\n{words}" if kept.get("description") else words
    return kept
