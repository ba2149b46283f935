"""Documents that round-trip value-faithfully: what a JSON row said is what it says when it is written again.

Rule: reading may normalise (an OpenAI-style part becomes a `ContentItem`), writing gives back what was read: the same
keys in the same order, unknown ones included, a null where there was a null, nothing where there was nothing. What is
built in code is written with the keys that were given, nulls left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, PrivateAttr, model_validator

from .errors import ConfigError
from .violations import CheckedModel

if TYPE_CHECKING:
    from typing import Self

Verbatim = dict[str, Any]
"""Keys whose written form differs from the normalised value, with that form."""


class Document(CheckedModel):  # noqa: PLW1641 - pydantic makes the hash of frozen classes
    """Base of conversations and their parts: keeps unknown keys, key order and spelling."""

    model_config = ConfigDict(extra="allow")

    # The keys to write, in order, and what to write in place of a normalised value. Not annotated: pydantic would
    # evaluate the annotations again for each subclass, and importing conversations is to be cheap.
    _keys = PrivateAttr(default=())
    _verbatim = PrivateAttr(default=None)

    if not TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None:
            super().__init__(**data)
            self.__pydantic_private__["_keys"] = self._keys_in_code(data)

        __init__.__pydantic_base_init__ = True

    @model_validator(mode="wrap")
    @classmethod
    def _remember(cls, data: Any, handler: Callable[[Any], Self]) -> Self:
        if type(data) is not dict:
            return handler(data)
        read, verbatim = cls._read(data)
        document = handler(read)
        private = document.__pydantic_private__
        if private is not None:
            private["_keys"] = tuple(data)
            if verbatim:
                private["_verbatim"] = verbatim
        return document

    @classmethod
    def _read(cls, data: dict[str, Any]) -> tuple[dict[str, Any], Verbatim | None]:
        """The row as validation wants it, and what to write back in place of what was changed; ``data`` stays."""
        return data, None

    def _keys_in_code(self, data: dict[str, Any]) -> tuple[str, ...]:
        """The keys to write for a document built in code from ``data``."""
        return tuple(key for key, value in data.items() if value is not None)

    def written_fields(self) -> dict[str, Any]:
        """The keys and values to write, one level deep."""
        private = self.__pydantic_private__ or {}
        values, extra, verbatim = self.__dict__, self.__pydantic_extra__ or {}, private.get("_verbatim") or {}
        written: dict[str, Any] = {}
        for key in private.get("_keys", ()):
            if key in verbatim:
                written[key] = verbatim[key]
            elif key in values:
                written[key] = values[key]
            elif key in extra:
                written[key] = extra[key]
        return written

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, sharing nothing mutable with the document."""
        return {key: _plain(value) for key, value in self.written_fields().items()}

    def to_json(self) -> str:
        """One line of JSON, text unescaped (``ensure_ascii`` off) unless it could not be encoded as UTF-8.

        Raises:
            ConfigError: a value put in by code (metadata, unknown keys) is not one that JSON has.
        """
        import json

        try:
            text = json.dumps(self.written_fields(), ensure_ascii=False, default=_json_value)
            if not text.isascii():
                text.encode()
        except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
            return json.dumps(self.written_fields(), default=_json_value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{type(self).__name__} cannot be written as JSON: {error}") from error
        return text

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The document that a JSON object describes; ``data`` is not changed. Raises `ConfigError`."""
        if not isinstance(data, dict):
            raise ConfigError(f"{cls.__name__}: expected a JSON object, got {type(data).__name__}")
        return cls.model_validate(data)

    @classmethod
    def from_json(cls, data: str | bytes) -> Self:
        """The document in one line of JSON. Raises `ConfigError`."""
        import json

        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad UTF-8, an absurdly long number
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise ConfigError(f"{cls.__name__}: not valid JSON: {reason}") from None
        return cls.from_dict(value)

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Like pydantic's; what is updated is written as updated."""
        copied = super().model_copy(update=update, deep=deep)
        private = copied.__pydantic_private__
        if update and private is not None:
            keys = private.get("_keys", ())
            private["_keys"] = keys + tuple(key for key in update if key not in keys)
            verbatim = private.get("_verbatim")
            if verbatim:
                private["_verbatim"] = {key: value for key, value in verbatim.items() if key not in update}
        return copied

    def __eq__(self, other: object) -> bool:
        """Equal values; spelling and key order do not matter."""
        if type(self) is not type(other) or not isinstance(other, Document):
            return NotImplemented
        return self.__dict__ == other.__dict__ and (self.__pydantic_extra__ or {}) == (other.__pydantic_extra__ or {})


def _json_value(value: Any) -> Any:
    if isinstance(value, Document):
        return value.written_fields()
    if isinstance(value, (bytes, bytearray)):
        from binascii import b2a_base64

        return b2a_base64(value, newline=False).decode()
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return _json_value(value)
    if isinstance(value, str):
        return value if type(value) is str else str(getattr(value, "value", value))
    return value
