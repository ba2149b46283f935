"""Turns pydantic's complaints into `ConfigError`: one plain sentence for each fault, with its full path.

Every document and parameter class derives from `CheckedModel`, so that a mistake reads the same in Python, in a YAML
file, in a JSONL row and on the command line. The rule: say where, what was given, what is allowed, and the nearest
valid key; never show a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ConfigError

if TYPE_CHECKING:
    from typing import Self

    from pydantic.fields import FieldInfo

Path = tuple[str | int, ...]
Where = Callable[[Path], str | None]
"""Tells where the value at a path was written (``"line 4 of config.yaml"``), or None if that is not known."""

M = TypeVar("M", bound="CheckedModel")

SHOWN_FAULTS = 8
SHOWN_CHARACTERS = 80

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "bytes_type": "bytes",
    "none_required": "null",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number that is at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number that is at most {le}",
    "enum": "one of {expected}",
    "literal_error": "one of {expected}",
    "is_subclass_of": "a subclass of {class}",
    "string_too_short": "text that is not empty",
}

_HIDDEN = frozenset({"api_key", "extra_headers"})

_SYNONYMS = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_output_tokens": "max_new_tokens",
    "stop": "stop_strings",
    "stop_sequences": "stop_strings",
    "response_format": "guided_decoding",
    "guided_json": "guided_decoding",
    "json_schema": "json",
    "base_url": "api_url",
    "api_base": "api_url",
    "url": "api_url",
    "timeout": "connection_timeout",
    "headers": "extra_headers",
    "default_headers": "extra_headers",
    "concurrency": "num_workers",
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "model": "model_name",
    "name": "model_name",
    "model_id": "model_name",
    "dtype": "torch_dtype_str",
    "torch_dtype": "torch_dtype_str",
    "revision": "model_revision",
    "adapter": "adapter_model",
    "remote": "remote_params",
    "generation_params": "generation",
    "model_params": "model",
    "do_sample": "use_sampling",
}


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name that was probably meant by ``name``, or None if nothing is near."""
    import difflib

    known = list(names)
    plain = name.strip().lower().replace("-", "_")
    if plain in known:
        return plain
    if _SYNONYMS.get(plain) in known:
        return _SYNONYMS[plain]
    found = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
    return found[0] if found else None


def dotted(path: Iterable[str | int]) -> str:
    """A path as people write it: ``messages[0].content``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def located(path: str, place: str | None) -> str:
    """A path and where its value was written. On a command line the flag is the path already."""
    if not place or place.lstrip("-").replace("-", "_") == path:
        return place or path
    return f"{path} ({place})"


def shown(value: Any) -> str:
    """A value for an error message: short, with its type where that is what went wrong."""
    if isinstance(value, BaseModel):
        return f"a {type(value).__name__}"
    text = repr(value)
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}..."
    return text if isinstance(value, (bool, int, float, type(None))) else f"{text} ({type(value).__name__})"


def explain(
    error: ValidationError,
    model: type[BaseModel],
    section: str = "",
    where: Where | None = None,
) -> ConfigError:
    """The `ConfigError` that says what is wrong.

    Args:
        error: what pydantic raised while it validated ``model``.
        model: the class that was validated; names the valid keys.
        section: path of that class within its configuration (``"generation"``); empty for a root.
        where: tells the line or flag behind a path that is relative to ``model``.
    """
    faults: dict[Path, list[dict[str, Any]]] = {}
    for fault in error.errors(include_url=False):
        path = _walk(model, fault["loc"])[0]
        faults.setdefault(path, []).append(dict(fault))
    # A union complains once for each branch; the complaint that got furthest into the value is the useful one.
    paths = [path for path in faults if not any(len(p) > len(path) and p[: len(path)] == path for p in faults)]
    prefix: Path = tuple(section.split(".")) if section else ()
    sentences = []
    for path in paths[:SHOWN_FAULTS]:
        title = located(dotted(prefix + path) or model.__name__, where(path) if where is not None else None)
        sentences.append(f"{title}: {_sentence(faults[path], path, model)}")
    if len(paths) > SHOWN_FAULTS:
        sentences.append(f"and {len(paths) - SHOWN_FAULTS} more")
    return ConfigError("; ".join(sentences), path=dotted(prefix + paths[0]) or None)


def _sentence(faults: list[dict[str, Any]], path: Path, model: type[BaseModel]) -> str:
    fault = faults[0]
    kind = fault["type"]
    if kind in {"extra_forbidden", "no_such_attribute"}:
        return _unknown_key(str(path[-1]), _walk(model, path[:-1])[1], model)
    if kind == "missing":
        return "required, but missing"
    own = [str(f["ctx"]["error"]) for f in faults if f["type"] in {"value_error", "assertion_error"}]
    if own:
        return own[0]
    expected: list[str] = []
    for item in faults:
        words = _EXPECTED.get(item["type"])
        words = words.format(**item.get("ctx", {})) if words else str(item["msg"]).removeprefix("Input should be ")
        if words not in expected:
            expected.append(words)
    given = "a hidden value" if _HIDDEN.intersection(map(str, path)) else shown(fault["input"])
    return f"expected {' or '.join(expected)}, got {given}"


def _unknown_key(key: str, owner: type[BaseModel] | None, root: type[BaseModel]) -> str:
    names = list(owner.model_fields) if owner is not None else []
    for name, field in root.model_fields.items():
        section = nested_model(field)
        if section is not None and section is not owner and key in section.model_fields:
            return f"unknown key here; {key!r} belongs to {name!r}"
    meant = nearest(key, names)
    if meant is not None:
        return f"unknown key; did you mean {meant!r}?"
    return f"unknown key; the valid keys are {', '.join(sorted(names))}"


def nested_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model class that a field holds (directly, optionally or in a list), or None."""
    pending: list[Any] = [field.annotation]
    while pending:
        kind = pending.pop(0)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        pending.extend(get_args(kind))
    return None


def _walk(model: type[BaseModel], location: Iterable[str | int]) -> tuple[Path, type[BaseModel] | None]:
    """The path without the names of union branches that pydantic puts in, and the model class at its end."""
    path: list[str | int] = []
    owner: type[BaseModel] | None = model
    parts = list(location)
    inside = False  # below a field, whose value may be a union, a list or a mapping
    for position, part in enumerate(parts):
        if owner is not None and isinstance(part, str):
            if part in owner.model_fields:
                path.append(part)
                owner, inside = nested_model(owner.model_fields[part]), True
                continue
            if not inside or (position == len(parts) - 1 and not _is_branch(part)):
                path.append(part)
                owner = None
                continue
        if isinstance(part, int) or not _is_branch(part):
            path.append(part)
    return tuple(path), owner


def _is_branch(part: str | int) -> bool:
    return isinstance(part, str) and (
        any(mark in part for mark in "[(")
        or part in {"str", "int", "float", "bool", "dict", "list", "none", "type"}
        or part[:1].isupper()
        or part.startswith(("function-", "lax-", "is-", "constrained-"))
    )


def section_of(model: type[BaseModel]) -> str:
    """The place of a parameter class within a configuration; ``""`` for a document."""
    section: str = getattr(model, "section", "")
    return section


class CheckedModel(BaseModel):
    """A pydantic model whose mistakes are `ConfigError`, in Python as in files.

    A class may have ``section: ClassVar[str]``, its place within a configuration, the prefix of paths. (Not declared
    here: pydantic would evaluate the annotation again for each subclass, and importing is to be cheap.)
    """

    model_config = ConfigDict(defer_build=True, hide_input_in_errors=True, protected_namespaces=())

    if not TYPE_CHECKING:  # the constructor keeps the signature that type checkers derive from the fields

        def __init__(self, /, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise explain(error, type(self), section_of(type(self))) from None

        # pydantic calls a class's own __init__ for nested values too, unless it is marked as doing nothing else.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Like pydantic's; raises `ConfigError`."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise explain(error, cls, section_of(cls)) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Like pydantic's; raises `ConfigError`."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            raise explain(error, cls, section_of(cls)) from None

    @classmethod
    def validated(cls, data: Any, where: Where) -> Self:
        """An instance made from loaded ``data``; errors say ``where`` each value was written."""
        try:
            return super().model_validate(data)
        except ValidationError as error:
            raise explain(error, cls, section_of(cls), where) from None
