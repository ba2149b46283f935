"""Requests as they go out: what the format and each model want, checked against the official client's own types."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from asyncinfer.errors import ConfigError, UnsupportedParameterError
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.anthropic.models import rules_of
from asyncinfer.wire.anthropic.schema import closed_schema

from ..requests import make_request
from .sdk_types import validate

DIALECT = PROVIDERS["anthropic"].dialect
CODEC = codec("anthropic_messages")
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
JPEG = b"\xff\xd8\xff\xe0rest"
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZW5j"}
WEATHER = {
    "type": "function",
    "function": {"name": "wx", "description": "Weather.", "parameters": {"type": "object", "properties": {"c": {}}}},
}


def encode(
    messages: Any = None, *, valid: bool = True, model: str = "claude-sonnet-4-5", **more: Any
) -> dict[str, Any]:
    request = make_request(messages, model=model, **more)
    wire = CODEC.encode(request, DIALECT)
    assert wire.path == "/messages"
    assert wire.headers["content-type"] == "application/json"
    body: dict[str, Any] = json.loads(wire.body)
    if valid:
        validate(body)
    return body


def unsupported(**more: Any) -> list[str]:
    return CODEC.unsupported(make_request(**more), DIALECT)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content) if not isinstance(content[0], str) else content[0]}


def call(call_id: str, name: str = "wx", arguments: str = '{"c":"Oslo"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


# -- messages ----------------------------------------------------------------------------------------------------------


def test_the_least_there_is():
    assert encode() == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 64_000,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }
    assert "stream" not in encode(stream=False)


def test_system_messages():
    one = encode([{"role": "system", "content": "Be brief."}, user("hi")])
    assert one["system"] == "Be brief."
    two = encode([{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}, user("hi")])
    assert two["system"] == [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]


def test_a_system_message_between_the_turns():
    messages = [
        user("a"),
        {"role": "assistant", "content": "b"},
        {"role": "system", "content": "Now in French."},
        user("c"),
    ]
    old = encode(messages)
    assert old["system"] == "Now in French."
    assert [turn["role"] for turn in old["messages"]] == ["user", "assistant", "user"]
    new = encode(messages, model="claude-opus-5-5")
    assert "system" not in new
    assert new["messages"][2:] == [  # the API takes it right behind a user's turn
        {"role": "user", "content": "c"},
        {"role": "system", "content": "Now in French."},
    ]


def test_images_and_documents():
    body = encode(
        [
            user(
                {"type": "text", "content": "What is this?"},
                {"type": "image_url", "content": "https://x/y.png"},
                {"type": "image_binary", "binary": b64(JPEG)},
                {"type": "image_url", "image_url": {"url": f"data:image/gif;base64,{b64(PNG)}"}},
                {"type": "document_binary", "binary": b64(b"%PDF-1.7 x")},
                {"type": "document_url", "content": "https://x/a/report.pdf"},
                {"type": "document_binary", "binary": b64("naïve text".encode())},
                {"type": "document_id", "content": "file_1"},
            )
        ]
    )
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": b64(JPEG)}},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": b64(PNG)},
        },  # not what it says
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": b64(b"%PDF-1.7 x")},
        },
        {"type": "document", "source": {"type": "url", "url": "https://x/a/report.pdf"}, "title": "report.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "naïve text"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "image_path", "content": "/tmp/x.png"},
        {"type": "document_path", "content": "/tmp/x.pdf"},
        {"type": "video_url", "content": "https://x/y.mp4"},
        {"type": "audio_binary", "binary": b64(b"ID3x")},
    ],
)
def test_what_cannot_be_sent_is_named(item):
    with pytest.raises(ConfigError) as caught:
        encode([user(item)])
    assert caught.value.path == "messages.content"


def test_the_format_s_own_keys_pass_through():
    cached = {"type": "ephemeral", "ttl": "1h"}
    body = encode(
        [
            {"role": "system", "content": "long", "cache_control": cached},
            user(
                {"type": "text", "content": "a", "cache_control": cached},
                {"type": "document_url", "content": "https://x/y", "citations": {"enabled": True}, "title": "T"},
            ),
        ],
        tools=[{**WEATHER, "cache_control": cached}],
        extra_body={"cache_control": {"type": "ephemeral"}},
    )
    assert body["system"] == [{"type": "text", "text": "long", "cache_control": cached}]
    first, document = body["messages"][0]["content"]
    assert first["cache_control"] == cached
    assert (document["title"], document["citations"]) == ("T", {"enabled": True})
    assert body["tools"][0]["cache_control"] == cached
    assert body["cache_control"] == {"type": "ephemeral"}


def test_tools_their_calls_and_results():
    body = encode(
        [
            user("weather?"),
            {
                "role": "assistant",
                "content": "Looking.",
                "tool_calls": [call("toolu_1"), call("call.2:x", arguments="")],
                "reasoning_content": "Hm.",
                "reasoning_details": [THOUGHT, REDACTED],
            },
            {"role": "tool", "content": "rain", "tool_call_id": "toolu_1"},
            {
                "role": "tool",
                "content": [
                    {"type": "text", "content": "see"},
                    {"type": "image_binary", "binary": b64(PNG)},
                ],
                "tool_call_id": "call.2:x",
                "is_error": True,
            },
            user("And?"),
        ],
        tools=[WEATHER, {"type": "function", "function": {"name": "now"}}],
    )
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == [
        THOUGHT,
        REDACTED,
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "toolu_1", "name": "wx", "input": {"c": "Oslo"}},
        {"type": "tool_use", "id": "call_2_x", "name": "wx", "input": {}},
    ]
    first, second, rest = body["messages"][2]["content"]
    assert first == {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
    assert (second["tool_use_id"], second["is_error"]) == ("call_2_x", True)
    assert [block["type"] for block in second["content"]] == ["text", "image"]
    assert rest == {"type": "text", "text": "And?"}
    assert body["tools"] == [
        {"name": "wx", "description": "Weather.", "input_schema": {"type": "object", "properties": {"c": {}}}},
        {"name": "now", "input_schema": {"type": "object", "properties": {}}},
    ]


def test_results_come_first_in_their_turn():
    body = encode(
        [
            user("x"),
            {"role": "assistant", "content": None, "tool_calls": [call("t")]},
            user("by the way"),
            {"role": "tool", "content": "", "tool_call_id": "t"},
        ]
    )
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "t"},
        {"type": "text", "text": "by the way"},
    ]


def test_arguments_that_are_no_object_still_go_back():
    body = encode([user("x"), {"role": "assistant", "content": None, "tool_calls": [call("t", arguments='{"c":')]}])
    assert body["messages"][1]["content"][0]["input"] == {"INVALID_JSON": '{"c":'}


def test_a_result_without_its_call_is_named():
    with pytest.raises(ConfigError, match="tool_call_id"):
        encode([user("x"), {"role": "tool", "content": "y"}])


def test_neighbours_become_one_turn_and_empty_answers_none():
    body = encode([user("a"), {"role": "assistant", "content": ""}, user("b"), {"role": "assistant", "content": "c"}])
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
    ]


WHOLE = [
    THOUGHT,
    {"type": "text", "text": "I search."},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {"type": "text", "text": " Found."},
    {"type": "tool_use", "id": "toolu_1", "name": "wx", "input": {"c": "Oslo"}},
]


def test_a_turn_of_an_order_of_its_own_goes_back_as_it_came():
    turn = {
        "role": "assistant",
        "content": "I search. Found.",
        "tool_calls": [call("toolu_1")],
        "reasoning_content": "Hm.",
        "reasoning_details": WHOLE,
    }
    body = encode([user("x"), turn])
    assert body["messages"][1]["content"] == WHOLE
    edited = encode([user("x"), {**turn, "content": "I found."}])
    assert edited["messages"][1]["content"] == [
        THOUGHT,
        {"type": "text", "text": "I found."},
        {"type": "tool_use", "id": "toolu_1", "name": "wx", "input": {"c": "Oslo"}},
    ]


def test_reasoning_without_a_signature_is_kept_from_claude_only():
    turn = {"role": "assistant", "content": "b", "reasoning_content": "Hm."}
    assert encode([user("a"), turn, user("c")])["messages"][1] == {"role": "assistant", "content": "b"}
    other = {**turn, "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "index": 0}]}
    assert encode([user("a"), other, user("c")])["messages"][1] == {"role": "assistant", "content": "b"}
    own = encode([user("a"), turn, user("c")], model="qwen3")
    assert own["messages"][1]["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": ""}


# -- parameters --------------------------------------------------------------------------------------------------------


def test_parameters_by_their_names():
    body = encode(
        max_new_tokens=77,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        stop_strings=["END"],
        user_id="u-1",
        seed=3,
        extra_body={"service_tier": "auto"},
    )
    assert (
        body.items()
        >= {
            "max_tokens": 77,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 7,
            "stop_sequences": ["END"],
            "metadata": {"user_id": "u-1"},
            "service_tier": "auto",
        }.items()
    )
    assert "seed" not in body
    assert unsupported(model="claude-sonnet-4-5", seed=3, temperature=0.5, frequency_penalty=0.0) == ["seed"]


def test_values_that_say_nothing_are_not_said():
    body = encode(temperature=0.5, top_p=1.0, top_k=-1, stop_strings=[])
    assert not {"top_p", "top_k", "stop_sequences"} & body.keys()


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("claude-opus-5-5", 128_000),
        ("claude-haiku-5-5", 128_000),
        ("claude-opus-4-6", 128_000),
        ("claude-opus-4-5-20251101", 64_000),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000),
        ("claude-opus-4-20250514", 32_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-sonnet-4@20250514", 64_000),
        ("claude-3-7-sonnet-latest", 64_000),
        ("claude-3-5-haiku-20241022", 8192),
        ("claude-3-haiku-20240307", 4096),
        ("claude-zephyr-9", 64_000),
        ("my-llama", 4096),
    ],
)
def test_max_tokens_is_the_model_s_own_where_nobody_says(model, most):
    assert encode(model=model)["max_tokens"] == most


@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-sonnet-5", "claude-haiku-5-5", "claude-fable-5-1"])
def test_models_that_take_no_sampling(model):
    body = encode(model=model, temperature=0.3, top_k=4)
    assert not {"temperature", "top_k"} & body.keys()
    assert unsupported(model=model, temperature=0.3, top_k=4) == ["temperature", "top_k"]
    assert unsupported(model=model, temperature=1.0, top_p=1.0) == []  # the same as leaving them out


def test_the_newer_version_of_the_api_takes_no_sampling():
    request = make_request(model="claude-sonnet-4-5", temperature=0.3)
    request.remote = type(request.remote)(extra_headers={"Anthropic-Version": "2026-10-21"})
    assert "temperature" not in json.loads(CODEC.encode(request, DIALECT).body)
    assert CODEC.unsupported(request, DIALECT) == ["temperature"]


ADAPTIVE = {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "level"),
    [
        ("claude-opus-5-5", "high", ADAPTIVE, "high"),
        ("claude-opus-5-5", "minimal", ADAPTIVE, "low"),
        ("claude-opus-5-5", "none", None, "low"),  # it always thinks; this is the least
        ("claude-fable-5", "none", None, "low"),
        ("claude-sonnet-5", "none", {"type": "disabled"}, None),
        ("claude-opus-4-7", "xhigh", ADAPTIVE, "xhigh"),
        ("claude-opus-4-6", "xhigh", ADAPTIVE, "high"),  # the level below, not one it does not know
        ("claude-opus-4-6", "max", ADAPTIVE, "max"),
        ("claude-opus-4-5", "max", {"type": "enabled", "budget_tokens": 32000}, "high"),
        ("claude-sonnet-4-5", "low", {"type": "enabled", "budget_tokens": 2048}, None),
        ("claude-sonnet-4-5", "none", {"type": "disabled"}, None),
        ("claude-3-5-sonnet-latest", "high", None, None),
        ("my-llama", "high", None, "high"),
    ],
)
def test_effort_becomes_what_the_model_understands(model, effort, thinking, level):
    body = encode(model=model, reasoning_effort=effort)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == level
    heard = thinking is not None or (level is not None and effort != "none")
    assert unsupported(model=model, reasoning_effort=effort) == ([] if heard else ["reasoning_effort"])


def test_a_budget_leaves_room_for_the_answer():
    body = encode(reasoning_effort="high", max_new_tokens=4000)
    assert body["thinking"]["budget_tokens"] == 2000
    with pytest.raises(ConfigError, match="1024"):
        encode(reasoning_effort="high", max_new_tokens=1000)
    with pytest.raises(ConfigError, match="reasoning_effort"):
        encode(reasoning_effort="enormous")


def test_sampling_is_refused_while_thinking():
    assert "temperature" not in encode(temperature=0.3, reasoning_effort="low")
    assert "temperature" not in encode(
        temperature=0.3, extra_body={"thinking": {"type": "enabled", "budget_tokens": 2000}}
    )
    assert encode(temperature=0.3, reasoning_effort="none")["temperature"] == 0.3


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "wx"}}}, {"type": "tool", "name": "wx"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": True}, None),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ],
)
def test_tool_choice(asked, sent):
    assert encode(tools=[WEATHER], **asked).get("tool_choice") == sent
    assert "tool_choice" not in encode(**asked)


def test_a_strict_tool_is_closed():
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    tool = encode(tools=[strict])["tools"][0]
    assert tool["strict"] is True
    assert tool["input_schema"]["additionalProperties"] is False


# -- the form of the answer --------------------------------------------------------------------------------------------


class Part(BaseModel):
    name: str
    sizes: list[int] = Field(min_length=2, max_length=3)


class Answer(BaseModel):
    """An answer."""

    age: int = Field(ge=0, le=150, description="In years.")
    part: Part | None = None
    labels: dict[str, int] = {}


def test_structured_output():
    body = encode(guided_decoding={"json": Answer}, reasoning_effort="max", model="claude-opus-4-8")
    assert body["output_config"]["effort"] == "max"
    schema = body["output_config"]["format"]["schema"]
    assert body["output_config"]["format"]["type"] == "json_schema"
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Part"]["additionalProperties"] is False
    assert schema["properties"]["age"] == {
        "type": "integer",
        "title": "Age",
        "description": 'In years.\n\n{"maximum":150,"minimum":0}',
    }
    assert schema["$defs"]["Part"]["properties"]["sizes"]["description"] == '{"maxItems":3,"minItems":2}'


def test_an_effort_beside_does_not_take_the_schema_away():
    body = encode(guided_decoding={"json": {"type": "object"}}, extra_body={"output_config": {"effort": "low"}})
    assert body["output_config"].keys() == {"format", "effort"}


def test_old_models_and_other_constraints_are_errors():
    old, shape = "claude-3-7-sonnet-latest", {"json": {"type": "object"}}
    own = {"type": "function", "function": {"name": "f"}}
    for against in (
        {"tools": [own]},
        {"reasoning_effort": "high"},
        {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 2048}}},
        {"extra_body": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}},
        {"guided_decoding": {"json": {"type": "array"}}},
        {"model": "claude-2.1"},
    ):
        asked = {"model": old, "guided_decoding": shape, **against}
        with pytest.raises(UnsupportedParameterError, match="schema") as caught:
            encode(**asked)
        assert caught.value.path == "generation.guided_decoding.json"
    with pytest.raises(UnsupportedParameterError, match="grammar"):
        encode(guided_decoding={"grammar": "a+"})


def test_old_models_answer_by_a_call():
    for more in ({}, {"reasoning_effort": "none"}):
        body = encode(model="claude-3-7-sonnet-latest", guided_decoding={"json": Answer}, **more)
        assert "output_config" not in body
        (tool,) = body["tools"]
        assert (tool["name"], tool["input_schema"]) == ("answer", Answer.model_json_schema())
        assert body["tool_choice"] == {"type": "tool", "name": "answer", "disable_parallel_tool_use": True}


def test_texts_travel_in_an_object():
    schema = encode(guided_decoding={"choice": ["yes", "no", "yes"]})["output_config"]["format"]["schema"]
    assert schema == {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    told = encode(guided_decoding={"regex": "a+"})["output_config"]["format"]["schema"]["properties"]["answer"]
    assert told == {"type": "string", "pattern": "^a+$"}
    for beyond in (r"\bword", r"(a)\1", "(?=a)a", "a{1,500}", r"\p{Lu}", "(?:a|b)"):
        told = encode(guided_decoding={"regex": beyond})["output_config"]["format"]["schema"]["properties"]["answer"]
        assert told.keys() == {"type", "description"}
        assert json.loads(told["description"]).keys() == {"pattern"}
    for known in (r"\d{4}-\d{2,3}", r"(a|b)+\.[^x-z]?\s*", r"[\w-]+@[\w.]+"):
        told = encode(guided_decoding={"regex": known})["output_config"]["format"]["schema"]["properties"]["answer"]
        assert told["pattern"].strip("^$()") in known or known in told["pattern"]
    old = encode(model="claude-3-7-sonnet-latest", guided_decoding={"regex": "a+"})["tools"][0]["input_schema"]
    assert old["properties"] == {"answer": {"type": "string", "pattern": "^a+$"}}


def test_schemas_keep_names_that_look_like_words_of_the_language():
    """A property called ``format`` or ``pattern`` is a property."""
    schema = {
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "pattern": "^(?=a)"},
            "format": {"type": "string", "format": "uuid"},
        },
        "oneOf": [{"type": "object", "properties": {}}],
    }
    closed = closed_schema(schema)
    assert set(closed["properties"]) == {"pattern", "format"}
    assert closed["properties"]["pattern"] == {"type": "string", "description": '{"pattern":"^(?=a)"}'}
    assert closed["properties"]["format"] == {"type": "string", "format": "uuid"}
    assert closed["anyOf"] == [{"type": "object", "properties": {}, "additionalProperties": False}]


def test_every_model_of_the_official_client_is_in_the_table():
    import typing

    from anthropic.types.model_param import ModelParam

    for name in typing.get_args(typing.get_args(ModelParam)[0]):
        assert rules_of(name).prefixes != ("claude",), name
