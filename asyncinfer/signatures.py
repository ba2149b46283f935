"""A Python function as a tool: JSON Schema from its type hints, descriptions from its docstring.

The docstring styles of Google (``Args:``), Sphinx (``:param x:``) and NumPy (``Parameters`` underlined) are read.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError

from .errors import ConfigError

_SECTIONS = r"args|arguments|parameters|params|returns?|raises|yields?|examples?|notes?|attributes|warnings?|see also"
_HEADING = re.compile(rf"^({_SECTIONS}):?\s*$", re.IGNORECASE)
_SPHINX = re.compile(r"^:(?:param|parameter|arg)\s+(?:[^:]*\s)?\*{0,2}(\w+):\s*(.*)$")
_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def describe(function: Callable[..., Any]) -> tuple[str, str | None, dict[str, Any]]:
    """Name, description and parameter schema of ``function``. Raises `ConfigError` if a model could not call it."""
    target = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    name = getattr(function, "__name__", type(function).__name__)
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigError(f"tool {name!r}: its type hints cannot be resolved: {error}") from None
    summary, described = read_docstring(inspect.getdoc(function) or "")
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL}:
            raise ConfigError(f"tool {name!r}: a model passes arguments by name; {str(parameter)!r} cannot be")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (
            hints.get(parameter.name, Any),
            Field(default=default, description=described.get(parameter.name)),
        )
    try:
        model = create_model(name, __config__=ConfigDict(arbitrary_types_allowed=False), **fields)
        schema = model.model_json_schema()
    except (PydanticUserError, TypeError, NameError, ValueError) as error:
        raise ConfigError(f"tool {name!r}: no JSON Schema for its parameters: {str(error).splitlines()[0]}") from None
    schema.pop("title", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
    schema.setdefault("properties", {})
    return name, summary or None, schema


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The text before the first section, and what the docstring says of each parameter."""
    lines = text.splitlines()
    summary: list[str] = []
    described: dict[str, list[str]] = {}
    section, current, indent = "", "", 0
    for position, line in enumerate(lines):
        bare = line.strip()
        sphinx = _SPHINX.match(bare)
        if sphinx:
            section, current, indent = "sphinx", sphinx[1], len(line) - len(line.lstrip())
            described[current] = [sphinx[2]]
        elif bare.startswith(":") and section != "args":
            section, current = "other", ""
        elif _HEADING.match(bare) and (bare.endswith(":") or _underlined(lines, position)):
            section = "args" if bare.rstrip(":").lower() in {"args", "arguments", "parameters", "params"} else "other"
            current, indent = "", -1
        elif not section:
            summary.append(line)
        elif section == "args" and bare and set(bare) != {"-"}:
            depth = len(line) - len(line.lstrip())
            indent = depth if indent < 0 else indent
            entry = _ENTRY.match(bare)
            if depth <= indent and (entry or bare.isidentifier()):
                current = entry[1] if entry else bare
                # NumPy writes "name : type" and describes below; Google describes on the same line.
                numpy = entry is None or bool(re.match(r"^\w+ :", bare))
                described[current] = [] if numpy else [entry[2]] if entry else []
            elif current:
                described[current].append(bare)
        elif section == "sphinx" and bare and current:
            described[current].append(bare)
    told = {name: " ".join(part for part in parts if part) for name, parts in described.items()}
    return "\n".join(summary).strip(), {name: words for name, words in told.items() if words}


def _underlined(lines: list[str], position: int) -> bool:
    below = lines[position + 1].strip() if position + 1 < len(lines) else ""
    return len(below) > 2 and set(below) == {"-"}
