"""``${...}`` in a configuration: environment variables, and references to other keys.

==========================  =====================================================================
``${VAR}``                  the environment variable; it must be set
``${oc.env:VAR}``           the same
``${oc.env:VAR,default}``   the variable, or ``default`` (``null`` too) where it is not set
``${model.model_name}``     the value of another key of the same configuration
``$${``                     a literal ``${``
==========================  =====================================================================

It works bare, in either kind of quotes and inside longer text. Where it is the whole value, ``8`` is a number and
``true`` a truth value, for keys that take any type; a key that takes text gets the text. Every other use of braces is
left alone: chat templates are full of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..violations import Path, dotted, located
from .yaml_text import Place, Source, read_yaml

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_ENV = re.compile(r"^(?:oc\.)?env\s*:\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:,(.*))?$", re.DOTALL)
_REFERENCE = re.compile(r"^[A-Za-z_][\w-]*(?:\.[\w-]+|\[\d+\])+$")
_TYPED = re.compile(r"^(?:true|false|[-+]?(?:0|[1-9]\d*)(?:\.\d*)?(?:[eE][-+]?\d+)?)$", re.IGNORECASE)

_FORMS = "${VAR}, ${oc.env:VAR,default} and ${section.key} are known; $${ stands for a literal ${"

Templates = dict[Path, str]


def interpolate(source: Source, environment: Mapping[str, str] | None = None) -> Templates:
    """Fill in every ``${...}`` of ``source``, in place.

    Returns:
        the text that each filled-in value had.

    Raises:
        ConfigError: an unset variable, a reference to nothing or to itself, an unknown form: names variable, key path
            and line.
    """
    filler = _Filler(source, os.environ if environment is None else environment)
    source.value = filler.fill(source.value, ())
    return filler.templates


class _Filler:
    def __init__(self, source: Source, environment: Mapping[str, str]) -> None:
        self.source = source
        self.environment = environment
        self.templates: Templates = {}
        self.open: list[Path] = []

    def fill(self, value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: self.fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        filled, text = self.text(value, path)
        if "${" in value.replace("$${", ""):
            self.templates[path] = value
        place = self.source.places.get(path)
        if place is None:
            self.source.places[path] = Place(self.source.where(path) or "", text)
        else:
            place.text = text
        return filled

    def text(self, value: str, path: Path) -> tuple[Any, str | None]:
        """The filled-in value, and its text before a type was given to it."""
        if path in self.open:
            raise self._error(path, f"refers to itself: {' -> '.join(dotted(p) for p in [*self.open, path])}")
        self.open.append(path)
        try:
            parts = self._parts(value, path)
        finally:
            self.open.pop()
        if len(parts) == 1 and not isinstance(parts[0], str):
            found, text = parts[0]
            return found, text
        joined = "".join(part if isinstance(part, str) else _as_text(*part) for part in parts)
        return joined, joined

    def _parts(self, value: str, path: Path) -> list[str | tuple[Any, str | None]]:
        """Literal pieces as text, filled-in ones as (value, its text)."""
        parts: list[str | tuple[Any, str | None]] = []
        literal, at = "", 0
        while (found := value.find("$", at)) >= 0:
            literal += value[at:found]
            if value.startswith("$${", found):
                literal, at = literal + "${", found + 3
            elif value.startswith("${", found):
                end = _closing(value, found + 2)
                if end < 0:
                    raise self._error(path, f"'${{' is never closed; {_FORMS}")
                if literal:
                    parts.append(literal)
                    literal = ""
                parts.append(self._lookup(value[found + 2 : end].strip(), path))
                at = end + 1
            else:
                literal, at = literal + "$", found + 1
        literal += value[at:]
        return [*parts, literal] if literal or not parts else parts

    def _lookup(self, name: str, path: Path) -> tuple[Any, str | None]:
        env = _ENV.match(name)
        if env is not None:
            variable, default = env[1], env[2]
            text = self.environment.get(variable)
            if text is not None:
                return _typed(text), text
            if default is None:
                raise self._unset(variable, path)
            return self._default(default.strip(), path)
        if _NAME.match(name):
            text = self.environment.get(name)
            if text is not None:
                return _typed(text), text
            if isinstance(self.source.value, dict) and name in self.source.value:
                return self._reference((name,), path)
            raise self._unset(name, path)
        if _REFERENCE.match(name):
            parts: Path = tuple(int(part) if part.isdigit() else part for part in re.findall(r"[\w-]+", name))
            return self._reference(parts, path)
        raise self._error(path, f"'${{{name}}}' is not understood; {_FORMS}")

    def _default(self, text: str, path: Path) -> tuple[Any, str | None]:
        if "${" in text:
            parts = self._parts(text, path)
            if len(parts) == 1 and not isinstance(parts[0], str):
                return parts[0]
            text = "".join(part if isinstance(part, str) else _as_text(*part) for part in parts)
            return text, text
        try:
            read = read_yaml(text).value
        except ConfigError:
            return text, text
        # Quotes around a default make it text; otherwise a text field gets it as it is written.
        return read, read if isinstance(read, str) else None if read is None else text

    def _reference(self, target: Path, path: Path) -> tuple[Any, str | None]:
        value = self.source.value
        try:
            for part in target:
                value = value[part]
        except (KeyError, IndexError, TypeError):
            raise self._error(path, f"'${{{dotted(target)}}}' refers to a key that is not set here") from None
        if isinstance(value, str) and "${" in value:
            return self.text(value, target)
        if isinstance(value, (dict, list)):
            if path[: len(target)] == target:
                raise self._error(path, f"'${{{dotted(target)}}}' contains itself")
            self.open.append(path)
            try:
                if len(self.open) > 50:
                    raise self._error(path, "references go round in a circle")
                return self.fill(value, target), None
            finally:
                self.open.pop()
        place = self.source.places.get(target)
        text = place.text if place is not None else None
        return value, text if text is not None else None if value is None else str(value)

    def _unset(self, variable: str, path: Path) -> ConfigError:
        return self._error(
            path,
            f"the environment variable {variable} is not set; set it, or write ${{oc.env:{variable},default}}",
        )

    def _error(self, path: Path, problem: str) -> ConfigError:
        title = located(dotted(path), self.source.where(path))
        return ConfigError(f"{title}: {problem}", path=dotted(path))


def _closing(value: str, start: int) -> int:
    depth = 0
    for at in range(start, len(value)):
        if value[at] == "{":
            depth += 1
        elif value[at] == "}":
            if depth == 0:
                return at
            depth -= 1
    return -1


def _typed(text: str) -> Any:
    """A number or truth value where the text is plainly one; ``007`` and everything else stays text."""
    if not _TYPED.match(text):
        return text
    lowered = text.lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    try:
        return int(text)
    except ValueError:
        return float(text)


def _as_text(value: Any, text: str | None) -> str:
    return text if text is not None else "" if value is None else str(value)
