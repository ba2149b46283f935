"""YAML in and out, with the place of every value.

PyYAML parses; this file decides what a scalar means: YAML 1.1 as others read it (``yes`` is true), minus its traps:
``1e-3`` is a number, ``12:30`` and ``2024-01-01`` are text, a key written twice is an error. Nothing but plain data is
ever made. Each value's place keeps its line and, for an unquoted scalar, its very text, so that a text field gets
``no`` as ``"no"``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import ConfigError
from ..violations import Path, dotted
from .template import Template

MOST_VALUES = 100_000
"""More values than this are an alias bomb, not a configuration."""


@dataclass(slots=True)
class Place:
    """Where a value was written (``"line 4 of config.yaml"``, ``"--generation.seed"``), and a bare scalar's text."""

    where: str
    text: str | None = None


@dataclass(slots=True)
class Source:
    """A configuration as read: plain values, and the place of each."""

    value: Any
    places: dict[Path, Place] = field(default_factory=dict)

    def where(self, path: Path) -> str | None:
        """The place of the value at ``path``, or of the nearest value in it or around it."""
        exact = self.places.get(path)
        if exact is not None or not path:
            return exact.where if exact is not None else None
        inside = next((place.where for known, place in self.places.items() if known[: len(path)] == path), None)
        return inside if inside is not None else self.where(path[:-1])


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012 - PyYAML's own declaration


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012 - PyYAML's own declaration

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


_BOOL = re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]*|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")

for _tool in (_Loader, _Dumper):
    _tool.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("yYnNtTfFoO"))
    _tool.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    _tool.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    _tool.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])
    _tool.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    # PyYAML folds these line breaks, on writing or on reading, unless they are escaped.
    style = '"' if any(character in data for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(data), style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Template, _text)


def read_yaml(text: str, name: str = "") -> Source:
    """The one document in ``text``.

    Args:
        text: YAML.
        name: name of the file, for errors.

    Raises:
        ConfigError: not valid YAML, a key written twice, a tag that is not plain data; names line and column.
    """
    try:
        node = _Loader(text.removeprefix("\ufeff")).get_single_node()
        source = Source(None)
        if node is not None:
            reader = _Reader(source.places, f" of {name}" if name else "")
            source.value = reader.value(node, ())
        return source
    except yaml.YAMLError as error:
        raise ConfigError(f"{name or 'YAML'}: {_complaint(error, text)}") from None
    except RecursionError:
        raise ConfigError(f"{name or 'YAML'}: nested too deeply") from None


def _complaint(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if mark is None:
        return f"not valid YAML: {problem}"
    line = [*text.splitlines(), ""][min(mark.line, len(text.splitlines()))]
    hint = "; inside [ ] or { }, put ${...} in quotes" if re.search(r"[\[{,][^'\"]*\$\{", line) else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML: {problem}{hint}"


class _Reader:
    """Turns composed nodes into values, noting places."""

    def __init__(self, places: dict[Path, Place], name: str) -> None:
        self.places = places
        self.name = name
        self.count = 0
        self.open: set[int] = set()

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise ConfigError(f"more than {MOST_VALUES} values; is an alias repeated within aliases?")
        if isinstance(node, yaml.ScalarNode):
            if path:
                place = self.places.setdefault(path, self._place(node))
                place.text = node.value if node.style is None else None
            return self._scalar(node)
        if id(node) in self.open:
            raise self._error(node, "an alias that contains itself")
        self.open.add(id(node))
        try:
            if path:
                self.places.setdefault(path, self._place(node))
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return self._mapping(node, path)
        finally:
            self.open.discard(id(node))
        raise self._error(node, f"the tag {node.tag!r} is not plain data")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, "a key must be a single word or number")
            key = self._scalar(key_node)
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                key = key_node.value  # `on:`, `null:`, `1.5:` are meant as they are written
            if key in found:
                raise self._error(key_node, f"{dotted((*path, key))!r} was already set in line {lines[key]}")
            lines[key] = key_node.start_mark.line + 1
            self.places[(*path, key)] = self._place(key_node)
            found[key] = self.value(value_node, (*path, key))
        for other in merged:
            if not isinstance(other, yaml.MappingNode):
                raise self._error(other, "'<<' merges a mapping, or a list of mappings")
            for key, value in self._merged(other, path, found).items():
                found.setdefault(key, value)
        return found

    def _merged(self, node: yaml.MappingNode, path: Path, own: dict[Any, Any]) -> dict[Any, Any]:
        inner = _Reader({}, self.name)
        inner.count, inner.open = self.count, self.open
        values: dict[Any, Any] = inner.value(node, path)
        self.count = inner.count
        for place_path, place in inner.places.items():
            if len(place_path) > len(path) and place_path[len(path)] not in own:
                self.places.setdefault(place_path, place)
        return values

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), node.value
        try:
            if kind in {"str", "value", "timestamp", "binary"}:
                return text
            if kind == "null":
                return None
            if kind == "bool":
                return text.lower() in {"yes", "true", "on"}
            if kind == "int":
                return _integer(text.replace("_", ""))
            if kind == "float":
                return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise self._error(node, f"{text[:40]!r} is not a {kind}") from None
        raise self._error(node, f"the tag {node.tag!r} is not plain data")

    def _place(self, node: yaml.Node) -> Place:
        return Place(f"line {node.start_mark.line + 1}{self.name}")

    def _error(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"line {node.start_mark.line + 1}{self.name}: {problem}")


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    if digits[:2] in {"0b", "0x", "0o"}:
        return int(text, 0)
    return int(text, 8) if len(digits) > 1 and digits[0] == "0" else int(text)


def write_yaml(tree: dict[str, Any]) -> str:
    """Plain data as YAML that `read_yaml` and interpolation read back as the same values."""
    if not tree:
        return "{}\n"
    text = yaml.dump(_escaped(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return str(text)


def _escaped(value: Any) -> Any:
    if isinstance(value, Template):
        return value
    if isinstance(value, str):
        return str(value).replace("${", "$${")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_escaped(item) for item in value]
    return value
