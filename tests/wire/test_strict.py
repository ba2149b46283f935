"""Which classes are sent as strict schemas by themselves: those that mean the same when every property is required."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from asyncinfer.params import GuidedDecodingParams
from asyncinfer.wire.shapes import named_schema


class Inner(BaseModel):
    """An inner thing."""

    kind: Literal["a", "b"]
    size: Annotated[int, Field(ge=0, le=9)]


class Colour(Enum):
    RED = "red"


class Node(BaseModel):
    value: int
    next: Node | None = None
    all: list[Node]


class Tree(BaseModel):
    root: Node


class Whole(BaseModel):
    name: str = Field(pattern="^[a-z]+$", description="A name.")
    inner: Inner
    colours: Annotated[list[Colour], Field(max_length=3)]
    either: int | Inner | None
    id: UUID
    nothing: str | None = None
    default: float


class Rows(TypedDict):
    a: int


def model(name: str, **fields: Any) -> type[BaseModel]:
    return type(
        name,
        (BaseModel,),
        {"__annotations__": {key: kind for key, (kind, _) in fields.items()}}
        | {key: value for key, (_, value) in fields.items() if value is not ...},
    )


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Pet(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Described(BaseModel):
    inner: Inner = Field(description="A reference with words beside it is refused.")


def sent(kind: Any, **more: Any) -> dict[str, Any]:
    return named_schema(GuidedDecodingParams(json=kind, **more), closable=True)


def words(schema: Any) -> set[str]:
    """Every key of a schema that is a word of the language."""
    if isinstance(schema, list):
        return set().union(*map(words, schema))
    if not isinstance(schema, dict):
        return set()
    found = set(schema)
    for key, value in schema.items():
        found |= words(list(value.values())) if key in {"properties", "$defs"} else words(value)
    return found


def objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [each for item in schema for each in objects(item)]
    if not isinstance(schema, dict):
        return []
    mine = [schema] if schema.get("type") == "object" else []
    return mine + [each for value in schema.values() for each in objects(value)]


@pytest.mark.parametrize("kind", [Inner, Whole, Tree, Rows])
def test_a_class_that_can_be_closed_is(kind: Any) -> None:
    written = sent(kind)
    assert written["strict"] is True
    assert "default" not in words(written["schema"])
    for each in objects(written["schema"]):
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])


def test_nothing_else_is_changed() -> None:
    schema = sent(Whole)["schema"]
    own = Whole.model_json_schema()
    assert schema["properties"]["name"] == own["properties"]["name"]
    assert schema["properties"]["nothing"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert "default" in schema["properties"]  # a property of that name
    assert own == Whole.model_json_schema()


@pytest.mark.parametrize(
    "kind",
    [
        Open,
        Node,  # its schema is a reference at the root
        Pet,
        Described,
        model("Defaulted", a=(int, 3)),
        model("Labels", a=(dict[str, int], ...)),
        model("Pair", a=(tuple[int, str], ...)),
        model("Anything", a=(Any, ...)),
        model("Bare", a=(dict, ...)),
        model("Ahead", a=(str, Field(json_schema_extra={"pattern": "^(?!x)"}))),
        model("Short", a=(Annotated[str, Field(max_length=3)], ...)),
        model("Bytes", a=(bytes, ...)),
    ],
    ids=lambda kind: kind.__name__,
)
def test_a_class_that_would_mean_something_else_is_sent_as_it_is(kind: type[BaseModel]) -> None:
    written = sent(kind)
    assert "strict" not in written
    assert written["schema"] == kind.model_json_schema()


def test_the_caller_has_the_last_word() -> None:
    assert "strict" not in sent(Inner, strict=False)
    assert sent(Open, strict=True)["strict"] is True
    assert "strict" not in sent(Inner.model_json_schema())
    assert "strict" not in named_schema(GuidedDecodingParams(json=Inner))
