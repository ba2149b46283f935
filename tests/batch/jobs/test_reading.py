"""Whatever lies in a result file: a row, no row, or ValueError; and no answer but a document of its format."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer import AsyncInferError, ModelParams, ProtocolError
from asyncinfer.engines.jobs import flavour
from asyncinfer.engines.jobs.answers import index_of, row_id
from asyncinfer.wire.bedrock.rows import DocumentDecoder
from asyncinfer.wire.protocol import WireRequest

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["400", "ThrottlingException"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["code", "message", "status", "errorCode", "errorMessage"]), inner)
        | st.dictionaries(st.sampled_from(["output", "message", "content", "stopReason", "usage"]), inner)
        | st.dictionaries(st.sampled_from(["text", "toolUse", "reasoningContent", "redactedContent"]), inner)
    ),
    max_leaves=12,
)
_NAMES = st.sampled_from(["key", "response", "error", "recordId", "modelOutput", "modelInput"])


@pytest.mark.parametrize("name", ["gemini", "bedrock"])
@given(line=st.dictionaries(_NAMES, _VALUES).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_a_line_is_a_row_or_a_value_error(name: str, line: bytes) -> None:
    try:
        row = flavour(name).read(line)
    except ValueError:
        return
    assert row is None or (row.body is None) == (row.error is not None)
    assert row is None or row.error is None or isinstance(row.error, AsyncInferError)


@pytest.mark.parametrize(("name", "field"), [("gemini", "key"), ("bedrock", "recordId")])
@given(index=st.integers(0, 10**12))
def test_a_row_is_found_by_what_was_sent(name: str, field: str, index: int) -> None:
    sent = json.loads(flavour(name).line(row_id(index), WireRequest("/p", b"{}", {})))
    answer = {field: sent[field], "response": {}, "modelOutput": {}}
    row = flavour(name).read(json.dumps(answer).encode())
    assert row is not None
    assert index_of(row.id) == index


@given(document=_VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40), cut=st.integers(0, 40))
def test_a_document_of_converse_or_a_protocol_error(document: bytes, cut: int) -> None:
    decoder = DocumentDecoder(ModelParams(model_name="m").model_name or "")
    assert decoder.feed(document[:cut]) == decoder.feed(document[cut:]) == []
    try:
        events = decoder.close()
    except ProtocolError:
        events = []
    assert decoder.close() == []
    assert not events or events[0].__class__.__name__ == "Start"
