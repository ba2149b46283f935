"""Guided decoding: what shape the answer must have."""

from __future__ import annotations

import warnings
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator

from .base import Params


def _schema(value: Any) -> Any:
    if isinstance(value, str):
        import json

        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected a JSON Schema; the text is not valid JSON: {error}") from None
        if isinstance(parsed, dict):
            return value
        raise ValueError(f"expected a JSON Schema, an object; the text holds a {type(parsed).__name__}")
    if value is None or isinstance(value, (dict, type)):
        return value
    raise ValueError(f"expected a JSON Schema as a mapping, JSON text or class, got a {type(value).__name__}")


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a pydantic class, dataclass or ``TypedDict``. Raises ValueError if it has none."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_json_schema()
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(kind).json_schema()
    except PydanticUserError as error:
        raise ValueError(f"{kind!r} has no JSON Schema: {str(error).splitlines()[0]}") from None


with warnings.catch_warnings():
    # pydantic warns that the documented name `json` hides its own long-deprecated `BaseModel.json`: that is meant.
    warnings.simplefilter("ignore", UserWarning)

    class GuidedDecodingParams(Params):
        """What the answer must look like; at most one of `json`, `regex`, `choice` and `grammar`.

        Attributes:
            json: JSON Schema as a mapping or as text, or a class (pydantic, dataclass, TypedDict) that has one.
            regex: regular expression that the whole answer matches.
            choice: the texts that may be answered.
            grammar: context-free grammar in the engine's own notation (GBNF for llama.cpp, EBNF for vLLM and SGLang).
            strict: ask the provider to enforce the schema: objects closed, every property required.
        """

        section: ClassVar[str] = "generation.guided_decoding"
        whole: ClassVar[bool] = True

        json: Annotated[Any, BeforeValidator(_schema)] = None
        regex: str | None = None
        choice: list[str] | None = None
        grammar: str | None = None
        strict: bool = False

        def check(self) -> None:
            """At most one shape, and a choice that leaves one."""
            given = [name for name in ("json", "regex", "choice", "grammar") if getattr(self, name) is not None]
            if len(given) > 1:
                raise ValueError(f"only one of json, regex, choice and grammar can be set, got {' and '.join(given)}")
            if self.choice is not None and not self.choice:
                raise ValueError("choice is empty: name at least one text")

        def json_schema(self) -> dict[str, Any] | None:
            """The JSON Schema as a mapping, whatever form it was given in; None if there is none."""
            shape: Any = self.json
            if isinstance(shape, str):
                import json

                parsed: dict[str, Any] = json.loads(shape)
                return parsed
            return shape if shape is None or isinstance(shape, dict) else schema_of(shape)

        def _written(self, values: dict[str, Any]) -> dict[str, Any]:
            return {name: schema_of(value) if isinstance(value, type) else value for name, value in values.items()}

        def canonical(self) -> dict[str, Any]:
            """The explicit fields as plain JSON values; the schema as a mapping."""
            plain = super().canonical()
            if plain.get("json") is not None:
                plain["json"] = self.json_schema()
            return plain
