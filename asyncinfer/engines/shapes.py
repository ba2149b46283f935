"""The shape that an answer was asked to have: a class, a JSON Schema, a regular expression, one of some texts.

Rule: what a provider promises is checked here all the same: some only promise JSON, some break their word. A shape that
cannot be checked is refused before anything is sent and paid for.

JSON Schema is checked by jsonschema-rs (every draft, no recursion on our side, patterns without backtracking that never
ends; 2 µs for an answer where the pure-Python validators take 30 to 600). It is imported when the first schema is
used. A ``$ref`` to another document is never fetched: a schema that came over the network could name any address.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ConfigError
from .expressions import matcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import TypeAdapter

    from ..params import GuidedDecodingParams

_PATH = "generation.guided_decoding"
_SHOWN = 5  # faults named in one error
_STANDARD = ("http://json-schema.org/", "https://json-schema.org/")


def check_shape(guided: GuidedDecodingParams) -> None:
    """Make sure that answers can be checked against ``guided``.

    Raises:
        ConfigError: the schema or the expression is faulty; names what is wrong with it.
    """
    try:
        if guided.json is not None and not isinstance(guided.json, type):
            _schema(_text_of(guided.json))
        elif guided.regex is not None:
            matcher(guided.regex)
    except ValueError as error:
        kind = "json" if guided.json is not None else "regex"
        said = str(error).partition("\n")[0]
        what = "JSON Schema" if kind == "json" else "regular expression"
        raise ConfigError(
            f"guided_decoding.{kind}: answers cannot be checked against this {what}: {said}", path=f"{_PATH}.{kind}"
        ) from None


def read_class(kind: Any, text: str) -> Any:
    """The instance of a class (pydantic, dataclass, ``TypedDict``) that ``text`` is. Raises ValueError, which says
    where it is none."""
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(_unfenced(text))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in error.errors()]
        raise ValueError("; ".join(faults)) from error


def read_shape(guided: GuidedDecodingParams, text: str) -> Any:
    """What ``text`` says in the shape of ``guided``: the JSON value, else the text itself; None for a grammar, which
    only the engine can check.

    Raises:
        ValueError: it has another shape; says where.
    """
    if guided.json is not None:
        return _read_json(guided.json, text)
    if guided.regex is not None:
        if not matcher(guided.regex)(text):
            raise ValueError(f"it does not match {_short(guided.regex)}")
        return text
    if guided.choice is not None:
        if text not in guided.choice:
            raise ValueError(f"it is none of {_short(', '.join(map(repr, guided.choice)))}")
        return text
    return None


def _read_json(shape: Any, text: str) -> Any:
    try:
        value = msgspec.json.decode(_unfenced(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None
    faults = []
    for fault in _schema(_text_of(shape))(value):
        faults.append(fault)
        if len(faults) == _SHOWN:
            break
    if faults:
        raise ValueError("; ".join(faults))
    return value


def _unfenced(text: str) -> str:
    """What stands in a Markdown fence, where that is the whole answer: models that nobody holds to JSON write it so."""
    bare = text.strip()
    if len(bare) < 6 or not bare.startswith("```") or not bare.endswith("```"):
        return text
    language, _, inside = bare[3:-3].partition("\n")
    return inside if language.strip().lower() in {"", "json"} else text


def _text_of(shape: Any) -> str | bytes:
    if isinstance(shape, str):
        return shape
    try:
        return msgspec.json.encode(shape)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it cannot be written as JSON: {error}") from None


@lru_cache(maxsize=64)
def _schema(text: str | bytes) -> Callable[[Any], Any]:
    """A function from values to their faults. Raises ValueError for a schema that is none."""
    import jsonschema_rs

    schema = msgspec.json.decode(text)
    if isinstance(schema, dict) and not str(schema.get("$schema", "")).startswith(_STANDARD):
        schema.pop("$schema", None)  # a name of somebody's own: read as the newest draft
    validator = jsonschema_rs.validator_for(schema, retriever=_never)

    def faults(value: Any) -> Any:
        if not validator.is_valid(value):
            for error in validator.iter_errors(value):
                yield f"{'.'.join(map(str, error.instance_path)) or 'answer'}: {_short(error.message)}"

    return faults


def _never(uri: str) -> Any:
    raise LookupError(f"schemas of other documents are not fetched; put {uri} under $defs")


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
