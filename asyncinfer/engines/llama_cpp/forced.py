"""What an answer is forced into, as one GBNF grammar: a shape, or a call of one of the tools. For both bindings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..local.answer import TOOL_CLOSE, TOOL_OPEN
from ..local.ask import arguments
from .grammar import escaped, from_choice, from_regex
from .schema import Schemas, from_schema

if TYPE_CHECKING:
    from ..local.ask import Ask


def forced(ask: Ask) -> str | None:
    """The grammar of an answer, or None for one that is free. Raises `ConfigError`."""
    if ask.schema is not None:
        return from_schema(ask.schema)
    if ask.must_call and ask.tools:
        return Schemas().grammar(lambda schemas: _call(schemas, ask.tools or []))
    if ask.choice is not None:
        return from_choice(ask.choice)
    return from_regex(ask.regex) if ask.regex is not None else ask.grammar


def _call(schemas: Schemas, tools: list[dict[str, Any]]) -> str:
    """One call of one of the tools, in the markup that `Answer` reads."""
    calls = []
    for tool in tools:
        name = json.dumps(tool["function"]["name"], ensure_ascii=False)
        begin = f'{TOOL_OPEN}\n{{"name": {name}, "arguments": '
        calls.append(f'"{escaped(begin)}" {schemas.add(arguments(tool))} "}}\\n{TOOL_CLOSE}"')
    return " | ".join(calls)
