"""What all parameter classes share: they know what was set explicitly, merge by it, and write only it.

A field is explicit if it was given to the constructor, assigned later, or is a list or mapping changed in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)

from ..errors import ConfigError
from ..violations import CheckedModel, Path, dotted, explain
from .template import Template

if TYPE_CHECKING:
    from typing import Self

P = TypeVar("P", bound="Params")


@cache
def _containers(cls: type[Params]) -> tuple[str, ...]:
    """The fields whose default is an empty list or mapping, or a section: what can change without being assigned."""
    return tuple(name for name, field in cls.model_fields.items() if field.default_factory is not None)


def _whole(value: Any) -> Any:
    if value is True or value is False:
        raise ValueError(f"expected a whole number, got {str(value).lower()}")
    if isinstance(value, str) and not value.strip().lstrip("+-").isdigit():
        try:  # 1e3 is a whole number too
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() else value
    return value


def _number(value: Any) -> Any:
    if value is True or value is False:
        raise ValueError(f"expected a number, got {str(value).lower()}")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number. True and false are not numbers here."""

Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
"""A finite number."""


class Params(CheckedModel):
    """Base of the parameter classes. Mutable and checked on every assignment; errors are `ConfigError`."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    section: ClassVar[str] = ""
    """The place of the class within a configuration, dotted; prefix of paths in errors."""

    whole: ClassVar[bool] = False
    """True for a section that an override replaces as one thing instead of field by field."""

    _templates: dict[Path, tuple[str, Any]] = PrivateAttr(default_factory=dict)
    """Where a value came from the environment: its path, the ``${...}`` text, and the value it had then."""

    @property
    def model_fields_set(self) -> set[str]:
        """The names of the fields that were set explicitly, in whatever way."""
        found = set(self.__pydantic_fields_set__)
        for name in _containers(type(self)):
            if name not in found:
                value = self.__dict__.get(name)
                if value.model_fields_set if isinstance(value, Params) else value:
                    found.add(name)
        return found

    def explicit(self) -> dict[str, Any]:
        """The explicitly set fields and their values, in the order of the class."""
        chosen = self.model_fields_set
        return {name: getattr(self, name) for name in type(self).model_fields if name in chosen}

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                super().__setattr__(name, value)
                return
            values, chosen = dict(self.__dict__), set(self.__pydantic_fields_set__)
            try:
                super().__setattr__(name, value)
            except ValidationError as error:
                # A rule that spans fields fails after pydantic has stored the value: put the old one back.
                object.__setattr__(self, "__dict__", values)
                object.__setattr__(self, "__pydantic_fields_set__", chosen)
                raise explain(error, type(self), self.section) from None

    def check(self) -> None:
        """The rules that span fields. Raises ValueError."""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        self.check()
        return self

    def canonical(self) -> dict[str, Any]:
        """The explicit fields as plain JSON values, nested sections likewise; no secrets. See `fingerprint`."""
        return {
            name: _canonical(value)
            for name, value in self._written(self.explicit()).items()
            if not (isinstance(value, Params) and not value.model_fields_set)
        }

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the canonical JSON of the explicit fields: equal parameters, equal fingerprint.

        Field order, spelling of numbers (``1`` or ``1.0`` for a number field) and secrets make no difference. Values in
        ``model_kwargs`` that are not JSON count by their ``repr``.
        """
        import hashlib
        import json

        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), default=repr)
        return hashlib.sha256(text.encode()).hexdigest()

    def _written(self, values: dict[str, Any]) -> dict[str, Any]:
        """``values`` as they are written: without secrets, for a class that has any."""
        return values

    def to_str(self) -> str:
        """The explicit fields as YAML; what came from the environment is written as its ``${...}`` again.

        A secret that did not come from the environment is left out. Raises `ConfigError` for a value in a mapping that
        YAML cannot say.
        """
        from .yaml_text import write_yaml

        return write_yaml(self.tree())

    def to_yaml(self, path: str | PathLike[str]) -> None:
        """Write `to_str` to a file. Raises `ConfigError` if the file cannot be written."""
        from pathlib import Path as File

        text = self.to_str()
        try:
            File(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error

    def tree(self, prefix: Path = ()) -> dict[str, Any]:
        """What `to_str` writes, as plain data; ``prefix`` is the path of this section, for errors."""
        explicit = self.explicit()
        kept = self._written(explicit)
        tree: dict[str, Any] = {}
        for name, value in explicit.items():
            template = self._template((name,), value)
            if isinstance(value, Params):
                tree[name] = value.tree((*prefix, name))
            elif template is not None:
                tree[name] = template
            elif isinstance(value, dict):
                # A mapping is walked even where some of it is secret: what came from ${...} is written as that.
                tree[name] = self._mapping((name,), value, kept.get(name, {}), prefix)
            elif name in kept:
                tree[name] = self._plain((name,), kept[name], prefix)
        return tree

    def note_origin(self, path: Path, template: str, value: Any) -> None:
        """Remember that the value at ``path`` was written as ``template``, a text with ``${...}``."""
        self._templates = {**self._templates, path: (template, _revealed(value))}

    def adopt_origins(self, override: Params) -> None:
        """Take over where ``override``'s values came from. One that no longer fits its value is never written."""
        self._templates = {**self._templates, **override._templates}

    def _template(self, path: Path, value: Any) -> Template | None:
        found = self._templates.get(path)
        return Template(found[0]) if found is not None and found[1] == _revealed(value) else None

    def _mapping(self, path: Path, value: dict[Any, Any], kept: dict[Any, Any], prefix: Path) -> dict[Any, Any]:
        written = {}
        for key, item in value.items():
            template = self._template((*path, key), item)
            if template is not None:
                written[key] = template
            elif key in kept:
                written[key] = self._plain((*path, key), item, prefix)
        return written

    def _plain(self, path: Path, value: Any, prefix: Path) -> Any:
        if isinstance(value, dict):
            return self._mapping(path, value, value, prefix)
        if isinstance(value, (list, tuple)):
            found: list[Any] = []
            for index, item in enumerate(value):
                template = self._template((*path, index), item)
                found.append(self._plain((*path, index), item, prefix) if template is None else template)
            return found
        plain = _canonical(value)
        if not isinstance(plain, (str, int, float, bool, type(None), dict, list)):
            where = dotted((*(prefix or tuple(filter(None, self.section.split(".")))), *path))
            raise ConfigError(f"{where}: a {type(value).__name__} cannot be written to YAML", path=where)
        return plain

    def __eq__(self, other: object) -> bool:
        """Equal values, however they came about."""
        if type(self) is not type(other):
            return NotImplemented
        return self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        kept = self._written(self.explicit())
        for name, value in self.explicit().items():
            if name in kept and not isinstance(value, dict):
                yield name, value
            elif isinstance(value, dict):
                shown = kept.get(name, {})
                yield name, {key: item if key in shown else "(hidden)" for key, item in value.items()}
            else:
                yield name, "(hidden)"


def _revealed(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _canonical(value: Any) -> Any:
    if isinstance(value, Params):
        return value.canonical()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_canonical(item) for item in value), key=repr)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, PathLike):
        return value.__fspath__()
    return value


def merge(base: P, override: P | None) -> P:
    """``base`` with what ``override`` sets explicitly, and nothing else of it.

    Neither is changed. Without anything explicit in ``override`` the result is ``base`` itself. A mapping
    (``model_kwargs``, ``extra_body``) that is set is replaced whole; sections of an `InferenceConfig` merge field by
    field.

    Raises:
        ConfigError: the two do not fit together (``min_concurrency`` above ``max_concurrency`` ...).
    """
    if override is None or not (explicit := override.explicit()):
        return base
    update: dict[str, Any] = {}
    for name, value in explicit.items():
        current = getattr(base, name)
        nested = isinstance(value, Params) and isinstance(current, Params) and not value.whole
        update[name] = merge(current, value) if nested else value
    merged = base.model_copy(update=update)
    merged.adopt_origins(override)
    try:
        merged.check()
    except ValueError as error:
        raise ConfigError(f"{base.section or type(base).__name__}: {error}", path=base.section or None) from None
    return merged
