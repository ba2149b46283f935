"""Conversations: reading and writing JSON faithfully, content pieces, tools, helpers."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import sys
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.conversation import (
    ContentItem,
    Conversation,
    FunctionCall,
    FunctionDefinition,
    Message,
    Role,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Type,
    sniff_media_type,
)
from asyncinfer.errors import ConfigError

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 8


def same(line: str) -> None:
    """Reading and writing a row gives the same values, keys in the same order."""
    written = Conversation.from_json(line).to_json()
    assert json.dumps(json.loads(written)) == json.dumps(json.loads(line))


ROWS = [
    '{"messages": [{"role": "user", "content": "Hello!"}]}',
    '{"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi!"}]}',
    '{"messages": [], "conversation_id": null, "metadata": null, "tools": null, "mine": {"a": [1, null]}}',
    '{"metadata": {}, "messages": [{"content": "x", "role": "developer", "name": "n", "id": null}]}',
    (
        '{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",'
        ' "function": {"arguments": "{\\"a\\": 1}", "name": "f"}, "extra_content": {"google": "z"}}]}]}'
    ),
    (
        '{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, 2.5]}},'
        ' "id": null}]}, {"role": "tool", "tool_call_id": "1", "content": ""}]}'
    ),
    '{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": null}}]}]}',
    (
        '{"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "e"}},'
        ' {"image_url": {"url": "https://h/x.jpg", "detail": "low"}, "type": "image_url"},'
        ' {"type": "image_url", "image_url": "https://h/y.png"}]}]}'
    ),
    (
        '{"messages": [{"role": "user", "content": [{"type": "text", "content": "a"}, {"type": "image_url",'
        ' "content": "https://h/x"}, {"content": "/etc/passwd", "type": "image_path", "binary": null}]}]}'
    ),
    (
        '{"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRgAA",'
        ' "format": "wav"}}, {"type": "file", "file": {"file_id": "f-1"}}, {"type": "video_url", "video_url": "v"},'
        ' {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}]}]}'
    ),
    (
        '{"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "reasoning_content":"",'
        ' "reasoning_details": [{"type": "t", "signature": "s"}]}]}'
    ),
    (
        '{"tools": [{"function": {"strict": null, "name": "f", "parameters": {"type": "object"}}, "type":'
        ' "function", "cache": true}, {"function": {"name": "g", "parameters": null}}], "messages": []}'
    ),
    '{"messages": [{"role": "user", "content": [{"type": "image_binary", "binary": "iVBORw0KGgo="}]}]}',
    '{"messages": [{"role": "user", "content": [{"type": "image_binary", "binary": "iVBO\\nRw0KGgo"}]}]}',
    '{"messages": [{"role": "user", "content": "\\ud800 half", "n": 1e400, "big": 123456789012345678901234567890}]}',
    '{"messages": [{"role": "user", "content": "x", "to_dict": 1, "_keys": 2, "__class__": 3, "": 5}]}',
]


@pytest.mark.parametrize("line", ROWS)
def test_rows_come_back_as_they_were(line):
    same(line)
    row = json.loads(line)
    before = copy.deepcopy(row)
    conversation = Conversation.from_dict(row)
    assert conversation.to_dict() == before
    conversation.to_dict()["messages"].append("x")
    assert row == before
    for clone in (copy.deepcopy(conversation), pickle.loads(pickle.dumps(conversation)), conversation.model_copy()):
        assert clone == conversation
        assert clone.to_json() == conversation.to_json()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
EXTRA = st.dictionaries(st.text(max_size=5).map(lambda key: f"x{key}"), JSON, max_size=2)


@st.composite
def shuffled(draw, required, optional):
    row = {key: draw(value) for key, value in required.items()}
    for key, value in optional.items():
        if draw(st.booleans()):
            row[key] = draw(value)
    row.update(draw(EXTRA))
    return {key: row[key] for key in draw(st.permutations(list(row)))}


TEXT = st.text(max_size=12)
BASE64 = st.binary(min_size=1, max_size=20).map(lambda data: base64.b64encode(data).decode())
URL = st.text(min_size=1, max_size=8).map(lambda text: f"https://h/{text}")
ITEM = st.one_of(
    shuffled({"type": st.just("text"), "text": TEXT}, {}),
    shuffled({"type": st.just("text"), "content": TEXT}, {"binary": st.none()}),
    shuffled({"type": st.just("image_url"), "image_url": shuffled({"url": URL}, {"detail": st.just("low")})}, {}),
    shuffled({"type": st.sampled_from(["image_url", "image_path"]), "content": URL}, {"binary": BASE64 | st.none()}),
    shuffled({"type": st.just("image_binary"), "binary": BASE64}, {"content": st.none() | TEXT}),
)
CALL = shuffled(
    {"function": shuffled({"name": TEXT}, {"arguments": TEXT | st.dictionaries(TEXT, JSON, max_size=2) | st.none()})},
    {"id": TEXT | st.none(), "type": st.just("function")},
)
SAID = shuffled(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]), "content": TEXT | st.lists(ITEM)},
    {"id": TEXT | st.none(), "name": TEXT | st.none(), "tool_call_id": TEXT | st.none(), "reasoning_content": TEXT},
)
CALLED = shuffled(
    {"role": st.just("assistant"), "tool_calls": st.lists(CALL, min_size=1, max_size=2)}, {"content": st.none()}
)
TOOL = shuffled(
    {
        "function": shuffled(
            {"name": st.text(min_size=1, max_size=5)},
            {"description": TEXT | st.none(), "parameters": st.none() | EXTRA, "strict": st.none() | st.booleans()},
        )
    },
    {"type": st.just("function")},
)
ROW = shuffled(
    {"messages": st.lists(SAID | CALLED, max_size=3)},
    {
        "conversation_id": TEXT | st.none(),
        "metadata": st.none() | st.dictionaries(TEXT, JSON, max_size=2),
        "tools": st.none() | st.lists(TOOL, max_size=2),
    },
)


@settings(deadline=None)
@given(ROW)
def test_any_row_comes_back_as_it_was(row):
    line = json.dumps(row)
    same(line)
    conversation = Conversation.from_json(line)
    assert Conversation.from_json(conversation.to_json()) == conversation
    assert Conversation.model_validate(conversation.model_dump()) == conversation


@settings(deadline=None)
@given(st.text() | st.binary() | JSON.map(json.dumps) | ROW.map(json.dumps).map(lambda line: line[:-1]))
def test_whatever_is_not_a_conversation_is_a_config_error(data):
    try:
        Conversation.from_json(data)
    except ConfigError:
        pass
    else:
        assert "messages" in json.loads(data)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "messages: required, but missing"),
        ({"messages": "x"}, "messages: expected a list"),
        ({"messages": [{"role": "usr", "content": "x"}]}, "messages[0].role: expected one of 'system'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content: expected text or a list, got 5"),
        ({"messages": [{"role": "user"}]}, "messages[0]: 'content' may only be missing"),
        (
            {"messages": [{"role": "user", "content": [{"type": "txt"}]}]},
            "messages[0].content[0].type: expected one of",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0]: an item of type 'text'",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_binary", "binary": "@"}]}]}, "not base64"),
        ({"messages": [{"role": "user", "content": [{"type": "image_binary"}]}]}, "non-empty 'binary'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "content": ""}]}]}, "non-empty 'content'"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": 4, "function": {"name": "f"}}]}]},
            "tool_calls[0].id",
        ),
        ({"messages": [], "tools": [{"function": {}}]}, "tools[0].function.name: required, but missing"),
    ],
)
def test_a_fault_names_its_place(row, words):
    with pytest.raises(ConfigError) as caught:
        Conversation.from_dict(row)
    assert words in str(caught.value)


def test_deep_nesting_is_an_error_not_a_crash():
    with pytest.raises(ConfigError, match="nested too deeply"):
        Conversation.from_json("[" * (sys.getrecursionlimit() * 20))


def test_metadata_and_fields_set_later_are_written():
    conversation = Conversation(messages=[Message(role=Role.USER, content="x")])
    assert conversation.to_json() == '{"messages": [{"role": "user", "content": "x"}]}'
    conversation.metadata["seen"] = 1
    conversation.conversation_id = "c"
    conversation.messages.append(Message(role=Role.ASSISTANT, content="y"))
    assert conversation.to_dict() == {
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "metadata": {"seen": 1},
        "conversation_id": "c",
    }


def test_what_is_built_in_code_writes_what_servers_look_for():
    call = ToolCall(id="1", function=FunctionCall(name="f", arguments="{}"))
    message = Message(role=Role.ASSISTANT, tool_calls=[call])
    assert message.to_dict() == {
        "role": "assistant",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        "content": None,
    }
    assert ToolDefinition(function=FunctionDefinition(name="f")).to_dict() == {
        "type": "function",
        "function": {"name": "f"},
    }
    assert FunctionCall(name="f", arguments={"a": 1}).to_dict() == {"name": "f", "arguments": '{"a": 1}'}  # type: ignore[arg-type]
    assert Message(role=Role.USER, content="x", name=None).to_dict() == {"role": "user", "content": "x"}


def test_values_that_json_lacks_are_named():
    with pytest.raises(ConfigError, match="a object is not a JSON value"):
        Conversation(messages=[], metadata={"a": object()}).to_json()


def test_with_message_leaves_the_input_alone():
    conversation = Conversation.from_json(
        '{"messages": [{"role": "user", "content": "x"}], "k": null, "metadata": {"a": 1}}'
    )
    before = conversation.to_json()
    answered = conversation.with_message(Message(role=Role.ASSISTANT, content="y"))
    answered.metadata["b"] = 2
    assert conversation.to_json() == before
    assert answered.messages[0] is conversation.messages[0]
    assert answered.to_dict() == {
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "k": None,
        "metadata": {"a": 1, "b": 2},
    }


def test_both_styles_say_the_same():
    plain = ContentItem(type=Type.IMAGE_URL, content="https://h/x.jpeg?y=1")
    part = ContentItem.from_dict({"type": "image_url", "image_url": {"url": "https://h/x.jpeg?y=1", "detail": "high"}})
    assert (part.type, part.content, part.binary) == (plain.type, plain.content, plain.binary)
    assert part.detail == "high"
    assert plain.detail is None
    assert part.media_type == plain.media_type == "image/jpeg"
    assert part.data is None


def test_media_types_are_real():
    assert ContentItem(type=Type.IMAGE_BINARY, binary=JPEG).media_type == "image/jpeg"
    url = f"data:image/jpeg;base64,{base64.b64encode(PNG).decode()}"
    item = ContentItem.from_dict({"type": "image_url", "image_url": {"url": url}})
    assert item.media_type == "image/png"
    assert item.data == PNG
    assert ContentItem(type=Type.DOCUMENT_URL, content="data:text/plain,a%20b").data == b"a b"
    assert ContentItem(type=Type.TEXT, content="data:x,y").data is None
    pdf = ContentItem.from_dict({"type": "file", "file": {"filename": "a.pdf", "file_data": "JVBERi0="}})
    assert (pdf.type, pdf.media_type, pdf.filename) == (Type.DOCUMENT_BINARY, "application/pdf", "a.pdf")
    for data, expected in [
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
        (b"RIFF\0\0\0\0WAVE", "audio/wav"),
        (b"plain", None),
        (b"", None),
    ]:
        assert sniff_media_type(data) == expected


def test_a_changed_piece_is_written_as_changed():
    part = ContentItem.from_dict({"type": "text", "text": "old", "cache_control": 1})
    assert part.model_copy(update={"content": "new"}).to_dict() == {
        "type": "text",
        "content": "new",
        "cache_control": 1,
    }
    call = FunctionCall.from_dict({"name": "f", "arguments": {"a": 1}})
    assert call.model_copy(update={"arguments": "{}"}).to_dict() == {"name": "f", "arguments": "{}"}
    assert part.to_dict()["text"] == "old"


def test_validation_opens_no_file(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    row = {"messages": [{"role": "user", "content": [{"type": "image_path", "content": str(secret)}]}]}
    item = Conversation.from_dict(row).messages[0].content_items[0]
    assert item.binary is None
    assert item.data is None
    assert PNG.hex() not in Conversation.from_dict(row).to_json()


def test_message_helpers():
    message = Message(
        role=Role.USER,
        content=[
            ContentItem(type=Type.TEXT, content="a"),
            ContentItem(type=Type.IMAGE_BINARY, binary=PNG),
            ContentItem(type=Type.TEXT, content="b"),
        ],
    )
    assert message.text == "a b"
    assert message.compute_flattened_text_content("|") == "a|b"
    assert message.count_content_items() == (3, 2, 1)
    assert message.contains_text()
    assert message.contains_images()
    assert not message.contains_text_content_items_only()
    assert [item.content for item in message.text_content_items] == ["a", "b"]
    assert "PNG" not in repr(message)
    plain = Message(role=Role.USER, content="x")
    assert plain.contains_single_text_content_item_only()
    assert not plain.contains_images()
    assert plain.get("content") == "x"
    assert plain.get("nothing", 5) == 5
    assert Message(role=Role.ASSISTANT, reasoning_content="r").text == ""
    with pytest.raises(ValueError, match="frozen"):
        plain.content = "y"  # type: ignore[misc]


def test_conversation_helpers():
    messages = [
        Message(role=role, content=str(i)) for i, role in enumerate([Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER])
    ]
    conversation = Conversation(messages=messages, conversation_id="7")
    assert conversation[1] is messages[1]
    assert conversation.first_message() is messages[0]
    assert conversation.last_message(Role.USER) is messages[3]
    assert conversation.first_message(Role.TOOL) is None
    assert conversation.filter_messages(Role.USER) == [messages[1], messages[3]]
    assert conversation.filter_messages(filter_fn=lambda m: m.text == "2") == [messages[2]]
    assert "7" in conversation.append_id_to_string("failed")


def test_equality_ignores_spelling():
    one = Message.from_dict({"role": "user", "content": "x"})
    two = Message.from_dict({"content": "x", "role": "user"})
    assert one == two
    assert hash(one) == hash(two)
    assert one != Message(role=Role.USER, content="y")
    assert one != "x"


@dataclass
class Place:
    city: str
    zip: int = 0


def weather(place: Place, unit: Literal["C", "F"] = "C", *, days: int | None = None) -> str:
    """Tell the weather.

    In words.

    Args:
        place (Place): Where,
            exactly.
        unit: C or F.
        days: How many.

    Returns:
        A forecast.
    """
    return f"{place}{unit}{days}"


def numpy_style(a: int, b: str = "x"):
    """Add.

    Parameters
    ----------
    a : int
        First.
    b : str
        Second.
    """


def sphinx_style(a: int):
    """Add.

    :param a: First,
        of one.
    :returns: nothing
    """


class Searcher:
    def __call__(self, query: str, **options: int) -> str:
        return query

    def find(self, query: str) -> str:
        """Find it."""
        return query


def test_tools_from_callables():
    conversation = Conversation(
        messages=[], tools=[weather, {"function": {"name": "g"}}, ToolDefinition.of(numpy_style)]
    )
    assert conversation.tools is not None
    function = conversation.tools[0].function
    assert (function.name, function.description) == ("weather", "Tell the weather.\n\nIn words.")
    assert function.parameters is not None
    properties = function.parameters["properties"]
    assert function.parameters["required"] == ["place"]
    assert properties["place"]["description"] == "Where, exactly."
    assert properties["unit"] == {"default": "C", "description": "C or F.", "enum": ["C", "F"], "type": "string"}
    assert properties["days"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    numpy = conversation.tools[2].function.parameters
    assert numpy is not None
    assert [p["description"] for p in numpy["properties"].values()] == ["First.", "Second."]
    sphinx = ToolDefinition.of(sphinx_style).function
    assert sphinx.description == "Add."
    assert sphinx.parameters is not None
    assert sphinx.parameters["properties"]["a"]["description"] == "First, of one."
    assert ToolDefinition.of(Searcher()).function.name == "Searcher"
    assert ToolDefinition.of(Searcher().find).function.parameters == {
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
        "type": "object",
    }
    same(conversation.to_json())


def test_tools_that_no_model_could_call():
    def star(*names: str): ...

    def odd(a: Searcher): ...

    def unknown(a: Nowhere): ...  # noqa: F821

    for function in (star, odd, unknown):
        with pytest.raises(ConfigError, match=function.__name__):
            ToolDefinition.of(function)
    with pytest.raises(ConfigError, match="got int"):
        ToolDefinition.of(5)  # type: ignore[arg-type]


def test_arguments():
    assert FunctionCall(name="f").get_arguments_dict() == {}
    assert FunctionCall(name="f", arguments='{"a": 1}').get_arguments_dict() == {"a": 1}
    for bad in ("{", "[1]"):
        with pytest.raises(ValueError, match="'f'"):
            FunctionCall(name="f", arguments=bad).get_arguments_dict()
    assert ToolResult(output={"a": 1}).to_message_content() == '{"a": 1}'
    assert ToolResult(output="x").to_message_content() == "x"
