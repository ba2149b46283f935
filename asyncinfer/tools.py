"""What a model may call, and the calls it makes, in the shape of the OpenAI API."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field

from .documents import Document, Verbatim
from .errors import ConfigError

if TYPE_CHECKING:
    from typing import Self


class FunctionDefinition(Document):
    """A function that a model may call. Immutable; unknown keys are kept.

    Attributes:
        name: how the model calls it.
        description: when and what for; the model reads it.
        parameters: JSON Schema of the arguments, an object schema; None for none.
        strict: whether the arguments must follow the schema exactly, where a provider offers that.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(default=None, strict=True)


class ToolDefinition(Document):
    """A tool offered to a model. Immutable; unknown keys are kept."""

    model_config = ConfigDict(frozen=True)

    type: Literal["function"] = "function"
    function: FunctionDefinition

    def _keys_in_code(self, data: dict[str, Any]) -> tuple[str, ...]:
        keys = super()._keys_in_code(data)
        return keys if "type" in keys else ("type", *keys)

    @classmethod
    def of(cls, tool: ToolDefinition | dict[str, Any] | Callable[..., Any]) -> ToolDefinition:
        """The definition of whatever may stand for a tool: a definition, an OpenAI dictionary, a Python callable."""
        if isinstance(tool, ToolDefinition):
            return tool
        if isinstance(tool, dict):
            return cls.model_validate(tool)
        if callable(tool):
            return cls.from_callable(tool)
        raise ConfigError(f"tools: expected a ToolDefinition, a mapping or a callable, got {type(tool).__name__}")

    @classmethod
    def from_callable(cls, function: Callable[..., Any]) -> Self:
        """The definition of a Python function: schema from its type hints, descriptions from its docstring.

        Raises:
            ConfigError: a type hint has no JSON Schema, or the function takes positional-only or ``*args`` parameters.
        """
        from .signatures import describe  # inspect is only needed here

        name, description, parameters = describe(function)
        definition: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
        return cls(function=FunctionDefinition(**definition))


class FunctionCall(Document):
    """The function of a `ToolCall`. Immutable.

    Attributes:
        name: the function's name.
        arguments: JSON text of the arguments. A row may hold an object instead, and gets it back so.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    arguments: str = ""

    @classmethod
    def _read(cls, data: dict[str, Any]) -> tuple[dict[str, Any], Verbatim | None]:
        arguments = data.get("arguments", "")
        if isinstance(arguments, str):
            return data, None
        import json  # most rows hold text already

        text = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
        return {**data, "arguments": text}, {"arguments": arguments}

    def _keys_in_code(self, data: dict[str, Any]) -> tuple[str, ...]:
        private = self.__pydantic_private__
        if private is not None:
            private["_verbatim"] = None  # built in code, arguments are written as the API has them: JSON text
        keys = super()._keys_in_code(data)
        return keys if "arguments" in keys else (*keys, "arguments")

    def get_arguments_dict(self) -> dict[str, Any]:
        """The arguments as a dictionary, empty if there are none.

        Raises:
            ValueError: the model wrote something that is not a JSON object.
        """
        import json

        if not self.arguments.strip():
            return {}
        try:
            value = json.loads(self.arguments)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"arguments of {self.name!r} are not valid JSON: {error}") from None
        if isinstance(value, dict):
            return value
        raise ValueError(f"arguments of {self.name!r} are not a JSON object: {self.arguments[:80]!r}")


class ToolCall(Document):
    """A call that a model made. Immutable; unknown keys (thought signatures ...) are kept and travel back.

    ``id`` pairs the call with the tool message that answers it; ``""`` where a provider gives none.
    """

    model_config = ConfigDict(frozen=True)

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall

    @classmethod
    def _read(cls, data: dict[str, Any]) -> tuple[dict[str, Any], Verbatim | None]:
        if "id" in data and data["id"] is None:
            return {**data, "id": ""}, {"id": None}
        return data, None

    def _keys_in_code(self, data: dict[str, Any]) -> tuple[str, ...]:
        rest = tuple(key for key in super()._keys_in_code(data) if key not in {"id", "type"})
        return ("id", "type", *rest)

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name

    def get_arguments_dict(self) -> dict[str, Any]:
        """The arguments as a dictionary; see `FunctionCall.get_arguments_dict`."""
        return self.function.get_arguments_dict()


class ToolResult(Document):
    """What a tool gave back.

    Attributes:
        output: the result that the model is told; text, or a JSON value.
        updated_state: the tool's state after the call, for tools that keep one.
    """

    output: Any = None
    updated_state: dict[str, Any] | None = None

    def to_message_content(self) -> str:
        """``output`` as the text of a tool message: text as it is, anything else as JSON."""
        import json

        if isinstance(self.output, str):
            return self.output
        try:
            return json.dumps(self.output, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"output: cannot be written as JSON: {error}", path="output") from None
