"""Answers that must have a shape without a class: JSON Schema, expression, choice; whole, validated, nothing lost."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from asyncinfer import (
    ConfigError,
    Failure,
    Finish,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    StructuredOutputError,
    TextDelta,
)
from asyncinfer.engines.shapes import check_shape, read_shape

from .scripted import ScriptedEngine, answer

pytestmark = pytest.mark.anyio

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^\\p{Lu}"},
        "size": {"type": "integer", "minimum": 1},
        "spot": {"$ref": "#/$defs/spot"},
    },
    "required": ["name", "size"],
    "additionalProperties": False,
    "$defs": {"spot": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}], "items": False}},
}
OSLO = '{"name": "Oslo", "size": 7, "spot": [59.9, 10.7]}'


class City(BaseModel):
    name: str
    size: int


def shaped(**shape: Any) -> GenerationParams:
    return GenerationParams(guided_decoding=GuidedDecodingParams(**shape))


async def ask(text: str, finish: FinishReason = FinishReason.STOP, **shape: Any) -> Any:
    engine = ScriptedEngine([TextDelta(text), Finish(finish)])
    return (await engine.generate("hi", generation=shaped(**shape))).parsed


@pytest.mark.parametrize("schema", [CITY, json.dumps(CITY)], ids=["mapping", "text"])
async def test_a_schema_without_a_class(schema: Any) -> None:
    before = copy.deepcopy(schema)
    assert await ask(OSLO, json=schema) == {"name": "Oslo", "size": 7, "spot": [59.9, 10.7]}
    assert schema == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"name": "Oslo"}', '"size" is a required property'),
        ('{"name": "Oslo", "size": "big"}', "size: "),
        ('{"name": "Oslo", "size": 0}', "size: 0"),
        ('{"name": "oslo", "size": 1}', "name: "),
        ('{"name": "Oslo", "size": 1, "spot": [1, 2, 3]}', "spot"),
        ('{"name": "Oslo", "size": 1, "river": 1}', "river"),
        ('["Oslo"]', "object"),
        ('{"name": "Oslo", "size": 7', "no JSON"),
        ("Sure! Here it is", "no JSON"),
        ("", "no JSON"),
        ('{"name": "Oslo", "size": NaN}', "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
async def test_an_answer_of_another_shape_says_where_and_is_kept(text: str, says: str) -> None:
    with pytest.raises(StructuredOutputError, match="JSON Schema") as caught:
        await ask(text, json=CITY)
    assert says in caught.value.message
    partial = caught.value.partial
    assert partial is not None
    assert (partial.text, partial.parsed, partial.finish_reason) == (text, None, FinishReason.STOP)
    assert partial.conversation.messages[-1].text == text


@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}```", " \n``` JSON \r\n{}\n\n```\n"])
async def test_an_answer_in_a_fence_is_read_as_objects_reads_it(fence: str) -> None:
    fenced = fence.format(OSLO)
    assert await ask(fenced, json=CITY) == json.loads(OSLO)
    assert (await ask(fenced, json=City)).name == "Oslo"
    for broken in (fenced.rstrip()[:-1], f"```yaml\n{OSLO}\n```", f"{fenced} {fenced}", "```", "``````"):
        for shape in (CITY, City):
            with pytest.raises(StructuredOutputError):
                await ask(broken, json=shape)


@pytest.mark.parametrize(
    "finish",
    [FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.ABORT, FinishReason.REFUSAL, FinishReason.ERROR],
)
async def test_what_was_cut_is_never_final_even_where_it_would_validate(finish: FinishReason) -> None:
    with pytest.raises(StructuredOutputError, match=r"max_new_tokens|finish_reason"):
        await ask("1", finish, json={"type": "integer"})  # of 12345, perhaps
    with pytest.raises(StructuredOutputError, match=r"max_new_tokens|finish_reason"):
        await ask("1", finish, regex="[0-9]+")


async def test_an_expression_matches_the_whole_answer() -> None:
    assert await ask("2026-11-21", regex=r"\d{4}-\d\d-\d\d") == "2026-11-21"
    for text in ("2026-11-21.", " 2026-11-21", "2026-11-21\n", ""):
        with pytest.raises(StructuredOutputError, match="regex") as caught:
            await ask(text, regex=r"\d{4}-\d\d-\d\d")
        assert caught.value.partial is not None


async def test_an_expression_in_the_servers_dialect() -> None:
    assert await ask("Ærø", regex=r"\p{Lu}\p{Ll}+") == "Ærø"
    for text in ("ærø", "Ærø\n", "x Ærø"):
        with pytest.raises(StructuredOutputError):
            await ask(text, regex=r"\p{Lu}\p{Ll}+")


async def test_a_choice() -> None:
    assert await ask("yes", choice=["yes", "no"]) == "yes"
    for text in ("Yes", "yes ", "maybe", ""):
        with pytest.raises(StructuredOutputError, match="choice"):
            await ask(text, choice=["yes", "no"])


async def test_a_choice_cut_behind_its_last_letter_is_whole_unless_another_goes_on() -> None:
    assert await ask("yes", FinishReason.LENGTH, choice=["yes", "no"]) == "yes"
    with pytest.raises(StructuredOutputError, match="max_new_tokens"):
        await ask("yes", FinishReason.LENGTH, choice=["yes", "yes, but"])
    with pytest.raises(StructuredOutputError, match="max_new_tokens"):
        await ask("ye", FinishReason.LENGTH, choice=["yes", "no"])


async def test_a_grammar_is_the_engines_to_check_and_calls_have_no_shape() -> None:
    assert await ask("anything", grammar='root ::= "x"') is None
    assert await ask("", FinishReason.TOOL_CALLS, json=CITY) is None


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"json": {"type": "STRING"}}, "JSON Schema"),
        ({"json": {"properties": {"a": {"pattern": "("}}}}, "JSON Schema"),
        ({"json": {"$ref": "#/$defs/nowhere"}}, "JSON Schema"),
        ({"json": {"enum": [object()]}}, "JSON Schema"),
        ({"regex": "(a"}, "regular expression"),
    ],
)
async def test_a_shape_that_cannot_be_checked_costs_nothing(shape: dict[str, Any], says: str) -> None:
    engine = ScriptedEngine(answer("x"))
    with pytest.raises(ConfigError, match=says) as caught:
        await engine.generate("hi", generation=shaped(**shape))
    assert caught.value.path == f"generation.guided_decoding.{next(iter(shape))}"
    assert not engine.requests


async def test_a_row_that_does_not_fit_is_a_failure_that_keeps_its_answer() -> None:
    engine = ScriptedEngine(answer('{"size": 1}'))
    (row,) = await engine.generate_many(["hi"], generation=shaped(json=CITY))
    assert isinstance(row, Failure)
    assert isinstance(row.error, StructuredOutputError)
    assert row.error.partial is not None
    assert row.error.partial.text == '{"size": 1}'


async def test_partial_objects_and_the_validated_one() -> None:
    engine = ScriptedEngine(answer(OSLO[:10], OSLO[10:30], OSLO[30:]))
    async with engine.stream("hi", generation=shaped(json=CITY)) as stream:
        states = [copy.deepcopy(state) async for state in stream.objects()]
        assert states[-1] == (await stream.completion()).parsed == json.loads(OSLO)


def test_no_other_document_is_ever_fetched() -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with pytest.raises(ConfigError, match="not fetched"):
            check_shape(GuidedDecodingParams(json={"$ref": f"http://127.0.0.1:{server.server_port}/s.json"}))
        server.shutdown()
        thread.join()
    with pytest.raises(ConfigError, match="not fetched"):
        check_shape(GuidedDecodingParams(json={"$ref": "file:///etc/hostname"}))
    assert not asked


def test_a_dialect_of_ones_own_is_read_as_the_newest() -> None:
    check_shape(GuidedDecodingParams(json={"$schema": "https://example.org/mine", "type": "integer"}))


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 60), 1 << 60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(_JSON)
def test_every_value_reads_as_itself_under_a_schema_that_allows_all(value: Any) -> None:
    assert read_shape(GuidedDecodingParams(json={}), json.dumps(value)) == value
    with pytest.raises(ValueError, match="not"):
        read_shape(GuidedDecodingParams(json={"not": {}}), json.dumps(value))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_a_value_or_a_typed_refusal(text: str) -> None:
    try:
        value = read_shape(GuidedDecodingParams(json=CITY), text)
    except ValueError:
        return
    assert isinstance(value["size"], int)


def test_the_validator_is_loaded_with_the_first_schema_only() -> None:
    code = (
        "import sys, asyncinfer.engines.shapes\n"
        "from asyncinfer import GuidedDecodingParams\n"
        "asyncinfer.engines.shapes.check_shape(GuidedDecodingParams(regex='a', ))\n"
        "assert 'jsonschema_rs' not in sys.modules\n"
        "asyncinfer.engines.shapes.check_shape(GuidedDecodingParams(json={}))\n"
        "assert 'jsonschema_rs' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
