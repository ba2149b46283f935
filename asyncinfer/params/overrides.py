"""Configuration keys on the command line: ``--generation.temperature 0.2``, ``--a.b=v``, ``key=value``.

A value is read as YAML (``0.2``, ``null``, ``[a, b]``), a key that takes text gets the text as it stands. A flag
without a value is ``true``, for a key that takes that. The section may be left out where only one has such a key:
``--seed 42``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

from ..errors import ConfigError
from ..violations import Path, dotted, nearest, nested_model
from .yaml_text import Place, Source, read_yaml

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_KEY = re.compile(r"^[A-Za-z_][\w-]*(?:\.[^.\[\]=\s]+|\[\d+\])*$")
_PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_IGNORED = ("--local-rank", "--local_rank")
"""What distributed launchers add to every command line."""

_SECTIONS = ("model.", "generation.", "remote_params.")
_TOP_LEVEL = ("engine=", "input_path=", "output_path=", "progress_path=")


@dataclass(frozen=True, slots=True)
class Override:
    """One key set on the command line.

    Attributes:
        path: its parts; a number for an index in brackets (an index after a dot is still text).
        text: the value as typed.
        flag: the key as typed, for errors.
        bare: no value was typed.
    """

    path: Path
    text: str
    flag: str
    bare: bool = False


def parse_overrides(tokens: Sequence[str]) -> list[Override]:
    """The overrides in a list of command-line words, in order.

    Raises:
        ConfigError: a word that is neither a flag, nor the value of one, nor ``key=value``.
    """
    found: list[Override] = []
    words = list(tokens)
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        flagged = key.startswith("--") or re.match(r"^-[A-Za-z_]\w", key) is not None
        bare = key.lstrip("-") if flagged else key
        if not _KEY.match(bare) or not (flagged or equals):
            raise ConfigError(f"{word!r}: expected --section.key value, --section.key=value or section.key=value")
        alone = not equals and (not words or _begins_another(words[0]))
        if not equals:
            value = "true" if alone else words.pop(0)
        if flagged and key in _IGNORED:
            continue
        parts: Path = tuple(int(index) if index else name for index, name in _PART.findall(bare))
        found.append(Override(parts, value, key, alone))
    return found


def _begins_another(word: str) -> bool:
    return word.startswith("--") or ("=" in word and word.startswith((*_SECTIONS, *_TOP_LEVEL)))


def apply_overrides(source: Source, overrides: Sequence[Override], root: type[BaseModel]) -> None:
    """Put the overrides into ``source``, in place. Later ones win. Raises `ConfigError` naming the flag."""
    for override in overrides:
        path, field = _resolve(override, root)
        if override.bare and field is not None and not _takes_flag(field):
            raise ConfigError(f"{override.flag} needs a value", path=dotted(path))
        value, places = _value(override, field)
        _put(source, path, value, override)
        for known in [known for known in source.places if known[: len(path)] == path]:
            del source.places[known]
        for inner, place in places.items():
            source.places[path + inner] = place


def _resolve(override: Override, root: type[BaseModel]) -> tuple[Path, FieldInfo | None]:
    """The path with the section filled in and ``-`` read as ``_``; the field it ends in or below."""
    path = list(override.path)
    first = str(path[0]).replace("-", "_")
    if first not in root.model_fields:
        homes = [
            name
            for name, held in root.model_fields.items()
            if (section := nested_model(held)) is not None and first in section.model_fields
        ]
        if len(homes) > 1:
            raise ConfigError(f"{override.flag}: write which one: {' or '.join(f'{h}.{first}' for h in homes)}")
        if not homes:
            names = {name: name for name in root.model_fields}
            for name, held in root.model_fields.items():
                names.update({leaf: f"{name}.{leaf}" for leaf in getattr(nested_model(held), "model_fields", {})})
            meant = nearest(first, names)
            hint = f"; did you mean --{names[meant]}?" if meant else ""
            raise ConfigError(f"{override.flag}: there is no such key{hint}", path=first)
        path.insert(0, homes[0])
    owner: type[BaseModel] | None = root
    field: FieldInfo | None = None
    for position, part in enumerate(path):
        if owner is None or not isinstance(part, str):
            break
        name = part if part in owner.model_fields else part.replace("-", "_")
        field = owner.model_fields.get(name)
        if field is None:
            break
        path[position] = name
        owner = nested_model(field)
        if _takes_list(field) and len(path) > position + 1 and str(path[position + 1]).isdigit():
            path[position + 1] = int(path[position + 1])
    return tuple(path), field


def kinds(annotation: Any) -> list[Any]:
    """The types that an annotation allows at its top, unions and ``Annotated`` opened."""
    if hasattr(annotation, "__metadata__"):
        return kinds(get_args(annotation)[0])
    from types import UnionType
    from typing import Union

    if get_origin(annotation) in {Union, UnionType}:
        return [kind for arm in get_args(annotation) for kind in kinds(arm)]
    return [annotation]


def _takes_list(field: FieldInfo) -> bool:
    return any(get_origin(kind) is list for kind in kinds(field.annotation))


def _takes_flag(field: FieldInfo) -> bool:
    """Whether ``true`` can be meant: a key that is true or false, or one below a free mapping."""
    return any(kind in {bool, Any} or get_origin(kind) is dict for kind in kinds(field.annotation))


def _value(override: Override, field: FieldInfo | None) -> tuple[Any, dict[Path, Place]]:
    text, where = override.text, override.flag
    takes_text = field is not None and str in kinds(field.annotation)
    structured = field is None or any(get_origin(kind) in {list, dict} for kind in kinds(field.annotation))
    try:
        read = read_yaml(text)
    except ConfigError as error:
        if structured and not takes_text and text.lstrip()[:1] in {"[", "{", '"', "'"}:
            raise ConfigError(f"{where}: {text[:80]!r} is {error.message.removeprefix('YAML: ')}") from None
        return text, {(): Place(where, text)}
    value = read.value
    if isinstance(value, (dict, list)) and not structured:
        return text, {(): Place(where, text)}
    if value is None and text.strip().lower() not in {"", "~", "null"}:
        return text, {(): Place(where, text)}  # nothing but a comment
    if isinstance(value, str) and text.strip()[:1] not in {'"', "'"}:
        return text, {(): Place(where, text)}  # YAML would cut "a #b" short: on a command line there are no comments
    if isinstance(value, (dict, list)):
        inner = {path: Place(where, place.text) for path, place in read.places.items()}
        return value, {(): Place(where), **inner}
    return value, {(): Place(where, None if isinstance(value, str) else text)}


def _put(source: Source, path: Path, value: Any, override: Override) -> None:
    if source.value is None:
        source.value = {}
    node = source.value
    for position, key in enumerate(path):
        part: Any = key
        if isinstance(node, list):
            index = int(part) if str(part).isdigit() else -1
            if not 0 <= index <= len(node):
                raise ConfigError(f"{override.flag}: the list has {len(node)} values; there is no place {part!r}")
            if index == len(node):
                node.append(None)
            part = index
        elif not isinstance(node, dict):
            raise ConfigError(
                f"{override.flag}: there is no {part!r} in it: what is before it is a value, not a section"
            )
        if position == len(path) - 1:
            node[part] = value
            return
        child = node[part] if isinstance(node, list) else node.get(part)
        if child is None:
            child = [] if isinstance(path[position + 1], int) else {}
            node[part] = child
        node = child
