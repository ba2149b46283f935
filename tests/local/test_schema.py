"""JSON Schemas as grammars: what comes out of a model that babbles follows them, and what cannot is said."""

from __future__ import annotations

import json
import re
from enum import StrEnum

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from asyncinfer import ConfigError, GenerationParams, GuidedDecodingParams, LlamaCppInferenceEngine, ModelParams
from asyncinfer.engines.llama_cpp.numerals import integers
from asyncinfer.engines.llama_cpp.schema import from_schema

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def engine():
    """Of llama-cpp-python: the other binding has a converter of its own."""
    engine = LlamaCppInferenceEngine(ModelParams(model_kwargs={"binding": "llama-cpp-python"}))
    yield engine
    anyio.run(engine.aclose)


class Node(BaseModel):
    name: str = Field(max_length=3)
    child: Node | None = None


class Colour(StrEnum):
    RED = 'r"e\\d\n'
    BLUE = "blåu😀"


class Paint(BaseModel):
    colour: Colour
    mixed_with: list[Colour] = Field(max_length=2)
    odd_name: int | None = Field(alias='a "b" \\ 😀', ge=-12, le=7)


NESTED = {
    "$defs": {"p_q": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}}}},
    "type": "object",
    "properties": {"one": {"$ref": "#/$defs/p_q"}, "two": {"allOf": [{"$ref": "#/$defs/p_q"}, {"required": ["x"]}]}},
    "required": ["two"],
    "additionalProperties": False,
}
SCHEMAS = [
    Node.model_json_schema(),
    Paint.model_json_schema(),
    NESTED,
    {"enum": ['x\n"q\\', "é日本😀", 1.5, None]},
    {"const": {"a": ["\\", '"', "\t"]}},
    {"type": "array", "maxItems": 0},
    {"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "boolean"}},
    {"type": "array", "prefixItems": [{"const": 1}, {"type": "boolean"}], "items": False, "minItems": 2},
    {"type": ["boolean", "null"]},
    {"type": "object", "properties": {"a": {"type": ["object", "null"], "properties": {"b": {"const": 1}}}}},
    {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    {"type": "object", "required": ["b"], "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}},
    {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}},
    {"anyOf": [{"type": "integer", "minimum": 5, "maximum": 5}, {"type": "string", "maxLength": 2}]},
    {"type": "object", "properties": {"a": {"const": 1}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    {"type": "string", "pattern": "^[a-c]{3}$"},
    {"type": "string", "pattern": '^["\\\\\\d]{1,4}[^a-z"]?$'},
    {"type": "string", "pattern": r"^\S\w-\s?$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "integer", "minimum": -305, "exclusiveMaximum": 4021},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
async def test_what_comes_out_follows_the_schema(engine, schema):
    """The engine checks every answer against the schema, and raises where it does not follow."""
    for seed in range(4):
        how = GenerationParams(
            temperature=3.0, seed=seed, max_new_tokens=300, guided_decoding=GuidedDecodingParams(json=schema)
        )
        await engine.generate("Hello", generation=how)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#/$defs/missing"}, "not there"),
        ({"$ref": "other.json"}, "another document"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no whole number"),
        ({"anyOf": [False]}, "among none"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "maxItems"),
        ({"type": "string", "pattern": "(?=a)"}, "look-around"),
        ({"allOf": [{"$ref": "#"}]}, "deep"),
    ],
)
def test_what_has_no_grammar_is_refused(schema, why):
    with pytest.raises(ConfigError, match=why):
        from_schema(schema)


def test_many_optional_fields_make_no_more_rules_than_a_few_each():
    grammar = from_schema({"properties": {f"field{number}": {"type": "string"} for number in range(100)}})
    assert len(grammar) < 40_000


@settings(max_examples=300, deadline=None)
@given(st.integers(-2000, 2000), st.integers(0, 3000), st.data())
def test_exactly_the_numerals_between_two_bounds(low, width, data):
    pattern = re.compile(re.sub(r'"([^"]*)"|\s', r"\1", integers({"minimum": low, "maximum": low + width})))
    number = data.draw(st.integers(low - 20, low + width + 20))
    assert bool(pattern.fullmatch(str(number))) == (low <= number <= low + width)


async def test_a_tool_whose_arguments_are_described_elsewhere(engine):
    """What a schema refers to stands in the schema itself, not in the grammar around it."""
    tool = {"type": "function", "function": {"name": "paint", "parameters": NESTED}}
    other = {"type": "function", "function": {"name": "ping"}}
    how = GenerationParams(tool_choice={"type": "function", "function": {"name": "paint"}}, max_new_tokens=200)
    answer = await engine.generate("Paint.", tools=[tool, other], generation=how)
    assert answer.message.tool_calls is None or answer.message.tool_calls[0].function.name == "paint"
