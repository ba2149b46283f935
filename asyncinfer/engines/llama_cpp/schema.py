"""A JSON Schema as a GBNF grammar; the converters of the two bindings differ, and enforce less.

What a grammar cannot say (``not``, ``if``, ``uniqueItems``, bounds of fractions ...) is left out: the answer is checked
against the whole schema when it is complete. Between the parts of a JSON text stands one space, or a new line and its
indent, so that a model that is asked for what it does not want to say cannot go on with spaces for ever.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from .grammar import escaped, inside_json
from .numerals import integers

if TYPE_CHECKING:
    from collections.abc import Iterable

_PATH = "generation.guided_decoding.json"

_CHAR = r'[^"\\\x00-\x1F\x7F\uD800-\uDFFF\U00110000-\U001FFFFF] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})'
"""Of a string. llama.cpp reads broken bytes as characters that there are not."""
_NUMBER = '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?'
_FIXED = {
    "ws": r'(" " | "\n" [ \t]{0,16})?',
    "char": _CHAR,
    "string": r'"\"" char* "\""',
    "number": _NUMBER,
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (pair ("," ws pair)* ws)? "}"',
    "pair": 'string ":" ws value',
    "array": '"[" ws (value ("," ws value)* ws)? "]"',
}
"""Rules that every grammar may use."""
_FORMATS = {
    "date": r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
    "time": r"^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])$",
    "uuid": r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
}
_FORMATS["date-time"] = _FORMATS["date"][:-1] + "T" + _FORMATS["time"][1:]
_TELLING = {
    "object": ("properties", "required", "additionalProperties", "patternProperties", "minProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
"""Words from which a type follows where none is named."""
_NOTES = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}
_NOTES |= {"$schema", "$id", "$anchor", "$defs", "definitions", "discriminator"}
_DEEPEST = 64


def from_schema(schema: Any) -> str:
    """A grammar for the JSON texts that follow ``schema``. Raises `ConfigError` for one that has none."""
    return Schemas().grammar(lambda schemas: schemas.add(schema))


class Schemas:
    """The rules of one grammar; several schemas may take part in it."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._document: Any = None
        self._known: dict[str, str] = {}

    def grammar(self, root: Any) -> str:
        """The grammar whose root is what ``root``, called with this, says."""
        lines = [f"root ::= {root(self)}"]
        return "\n".join([*lines, *(f"{name} ::= {body}" for name, body in {**self._rules, **_FIXED}.items())])

    def add(self, schema: Any) -> str:
        """What one schema is called in the grammar. Raises `ConfigError`."""
        self._document, self._known = schema, {}
        return self._name(self._body(schema, 0))

    def _name(self, body: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules[name] = body
        return name

    def _body(self, schema: Any, depth: int) -> str:
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise _impossible("nothing follows a schema that is false" if schema is False else f"{schema!r} is none")
        if depth > _DEEPEST:
            raise _impossible(f"it is nested more than {_DEEPEST} deep")
        told = {name: value for name, value in schema.items() if name not in _NOTES}
        if "$ref" in told or "allOf" in told:
            return self._remembered(told, depth)
        if "const" in told:
            return _literal(told["const"])
        if "enum" in told:
            return " | ".join(_literal(value) for value in told["enum"])
        for word in ("anyOf", "oneOf"):
            if word in told:
                rest = {name: value for name, value in told.items() if name != word}
                choices = [self._merged([rest, one], depth) if rest else one for one in told[word]]
                return self._any(choices, depth)
        kind = told.get("type") or next((kind for kind, words in _TELLING.items() if told.keys() & {*words}), None)
        if isinstance(kind, list):
            return self._any([{**told, "type": one} for one in kind], depth)
        return self._typed(kind, told, depth)

    def _typed(self, kind: str | None, told: dict[str, Any], depth: int) -> str:
        if kind is None:
            return "value"
        if kind == "object":
            return self._object(told, depth)
        if kind == "array":
            return self._array(told, depth)
        if kind == "string":
            return _string(told)
        if kind == "integer":
            return integers(told) or "integer"
        if kind in {"number", "boolean", "null"}:
            return str(kind)
        raise _impossible(f"it has a type {kind!r}")

    def _any(self, choices: Iterable[Any], depth: int) -> str:
        possible = [choice for choice in choices if choice is not False]
        if not possible:
            raise _impossible("nothing follows a choice among none")
        return " | ".join(self._name(self._body(choice, depth + 1)) for choice in possible)

    # -- references --------------------------------------------------------------------------------------------------

    def _remembered(self, told: dict[str, Any], depth: int) -> str:
        """The rule of a schema that points elsewhere, perhaps to itself."""
        key = json.dumps(told, sort_keys=True)
        name = self._known.get(key)
        if name is None:
            self._known[key] = name = self._name("")
            meant = self._resolved(told["$ref"]) if told.keys() == {"$ref"} else self._merged([told], depth)
            self._rules[name] = self._body(meant, depth + 1)
        return name

    def _resolved(self, ref: Any) -> Any:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise _impossible(f"it refers to another document: {ref!r}")
        found = self._document
        for step in ref[1:].split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise _impossible(f"it refers to {ref!r}, which is not there") from None
        return found

    def _merged(self, parts: Iterable[Any], depth: int) -> dict[str, Any]:
        """One schema of several that all hold."""
        if depth > _DEEPEST:
            raise _impossible(f"it is nested more than {_DEEPEST} deep")
        whole: dict[str, Any] = {}
        for part in parts:
            if not isinstance(part, dict):
                continue
            told = dict(part)
            if "$ref" in told:
                told = self._merged([self._resolved(told.pop("$ref")), told], depth + 1)
            for inner in told.pop("allOf", ()):
                told = self._merged([told, inner], depth + 1)
            for name, value in told.items():
                if name == "properties":
                    whole[name] = {**whole.get(name, {}), **value}
                elif name == "required":
                    whole[name] = [*whole.get(name, ()), *value]
                else:
                    whole[name] = value
        return whole

    # -- what has parts ----------------------------------------------------------------------------------------------

    def _object(self, told: dict[str, Any], depth: int) -> str:
        fields = dict(told.get("properties") or {})
        more = told.get("additionalProperties", not fields)
        if more is False and told.get("patternProperties"):
            more = True
        needed = set(told.get("required") or ())
        for name in told.get("required") or ():
            fields.setdefault(name, True if isinstance(more, bool) else more)
        pair = self._name(f'string ":" ws {self._part(more, depth)}') if more is not False else None
        if not fields:
            low, high = int(told.get("minProperties", 0)), told.get("maxProperties")
            return _listed("{", "}", pair, low, high) if pair is not None else '"{" ws "}"'
        # The rules for what may follow from a field on: where nothing stands before it, and where something does.
        rest = f'("," ws {pair})*' if pair is not None else ""
        first = f"({pair} {rest})?" if pair is not None else ""
        for name, schema in reversed(fields.items()):
            if schema is False and name not in needed:
                continue
            one = self._name(f'{_literal(name)} ":" ws {self._part(schema, depth)}')
            if name in needed:
                first, rest = f"{one} {rest}", f'"," ws {one} {rest}'
            else:
                first, rest = f"({one} {rest} | {first or _NOTHING})", f'("," ws {one})? {rest}'
            first, rest = self._name(first), self._name(rest)
        return f'"{{" ws {first} ws "}}"'

    def _array(self, told: dict[str, Any], depth: int) -> str:
        given, item = told.get("prefixItems") or (), told.get("items", True)
        if isinstance(item, list):  # as prefixItems was called before 2020
            given, item = item, told.get("additionalItems", True)
        low, high = int(told.get("minItems", 0)), told.get("maxItems")
        if high is not None and high < low:
            raise _impossible(f"minItems is {low} and maxItems {high}")
        if not given:
            return _listed("[", "]", None if item is False else self._part(item, depth), low, high)
        parts = [self._part(one, depth) for one in given]
        parts = parts if high is None else parts[:high]
        body = ' "," ws '.join(parts)
        if item is not False and (high is None or high > len(parts)):
            least, most = max(0, low - len(parts)), "" if high is None else high - len(parts)
            body += f' ("," ws {self._part(item, depth)}){{{least},{most}}}'
        return f'"[" ws {body} ws "]"' if parts else '"[" ws "]"'

    def _part(self, schema: Any, depth: int) -> str:
        body = self._body(schema, depth + 1)
        return body if body.isalnum() else self._name(body)


_NOTHING = '""'


def _listed(opening: str, closing: str, one: str | None, low: int, high: int | None) -> str:
    """Things with commas between them."""
    if one is None or high == 0:
        return f'"{opening}" ws "{closing}"'
    most = "" if high is None else high - 1
    body = f'{one} ("," ws {one}){{{max(0, low - 1)},{most}}} ws'
    return f'"{opening}" ws {body} "{closing}"' if low else f'"{opening}" ws ({body})? "{closing}"'


def _string(told: dict[str, Any]) -> str:
    pattern = told.get("pattern") or _FORMATS.get(told.get("format", ""))
    if pattern is not None:
        return rf'"\"" {inside_json(pattern, "char")} "\""'
    low, high = int(told.get("minLength", 0)), told.get("maxLength")
    if high is not None and high < low:
        raise _impossible(f"minLength is {low} and maxLength {high}")
    return "string" if not low and high is None else rf'"\"" char{{{low},{"" if high is None else high}}} "\""'


def _literal(value: Any) -> str:
    return f'"{escaped(json.dumps(value, ensure_ascii=False))}"'


def _impossible(why: str) -> ConfigError:
    return ConfigError(f"{_PATH} cannot be made a grammar: {why}", path=_PATH)
