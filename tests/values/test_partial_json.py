"""JSON that is still being written."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.errors import StructuredOutputError
from asyncinfer.partial_json import PartialJSON

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
).filter(lambda value: isinstance(value, (dict, list)))


def pieces(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(edges)]


def within(part: Any, whole: Any) -> bool:
    """Whether ``part`` is a state that ``whole`` may have gone through."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and len(part) <= len(whole)
            and all(within(a, b) for a, b in zip(part, whole, strict=False))
        )
    if isinstance(part, str):
        return isinstance(whole, str) and whole.startswith(part)
    return bool(part == whole)


@given(DOCUMENTS, st.lists(st.integers(min_value=0)), st.booleans(), st.sampled_from([None, 2]))
def test_every_state_is_a_beginning_of_the_whole(document: Any, cuts: list[int], ascii_only: bool, indent: Any) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    reader = PartialJSON()
    for piece in pieces(text, cuts):
        assert not reader.complete
        reader.feed(piece)
        if reader.value is not None:
            assert within(reader.value, document), (reader.value, document)
    assert reader.complete
    assert reader.value == document


@given(DOCUMENTS)
def test_character_by_character(document: Any) -> None:
    reader = PartialJSON()
    for character in json.dumps(document):
        reader.feed(character)
    assert reader.complete
    assert reader.value == document


def test_strings_grow() -> None:
    reader = PartialJSON()
    seen = []
    for piece in ['{"na', 'me": "A', "li", 'ce", "age": 3', "0}"]:
        changed = reader.feed(piece)
        seen.extend([json.dumps(reader.value)] * changed)
    assert seen == ["{}", '{"name": "A"}', '{"name": "Ali"}', '{"name": "Alice"}', '{"name": "Alice", "age": 30}']


def test_fences_around_the_value() -> None:
    reader = PartialJSON()
    reader.feed('Here it is:\n```json\n{"a": [1, 2]}\n```\nDone.')
    assert (reader.value, reader.complete) == ({"a": [1, 2]}, True)


@pytest.mark.parametrize("text", ['{"a" 1', '{"a": 1,}', "[1 2", '{"a": tru}', '{"a": }', "{a: 1}", '["\\x"]'])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(StructuredOutputError):
        PartialJSON().feed(text)


def test_linear_work() -> None:
    """Characters copied while a long string grows by single characters stay within a constant times its length."""
    copied = 0

    class Counting(PartialJSON):
        __slots__ = ()

        def _so_far(self) -> str:
            nonlocal copied
            copied += self._size
            return super()._so_far()

    reader = Counting()
    reader.feed('{"text": "')
    for _ in range(50_000):
        reader.feed("x")
    assert copied < 50 * 50_000
    reader.feed('"}')
    assert reader.value == {"text": "x" * 50_000}
