"""Requests as providers get them: what was asked for, in each dialect's words, and nothing else."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import pytest
from pydantic import BaseModel

from asyncinfer.conversation import ContentItem, Conversation, Message, Role, Type
from asyncinfer.dialect import Dialect
from asyncinfer.errors import ConfigError, UnsupportedParameterError
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.openai_chat.encode import request_body, unsupported
from asyncinfer.wire.openai_chat.messages import merge_details, write_messages
from asyncinfer.wire.tokens import estimate_tokens

from .requests import make_request

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 8
WX = {"type": "function", "function": {"name": "wx", "parameters": {"type": "object", "properties": {}}}}


def body_for(provider: str, messages=None, **asked):
    return request_body(make_request(messages, **asked), PROVIDERS[provider].dialect)


def messages_for(dialect: Dialect | str, *messages):
    rows = Conversation.from_dict({"messages": list(messages)}).messages
    return write_messages(rows, PROVIDERS[dialect].dialect if isinstance(dialect, str) else dialect)


def test_an_unset_field_is_not_sent():
    wire = codec("openai_chat").encode(make_request(stream=False), PROVIDERS["openai"].dialect)
    assert wire.path == "/chat/completions"
    assert wire.method == "POST"
    assert wire.headers["content-type"] == "application/json"
    assert json.loads(wire.body) == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_a_stream_asks_for_usage_where_the_provider_knows_how():
    assert body_for("openai")["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert body_for("groq")["stream_options"] == {"include_usage": True}
    for silent in ("mistral", "together"):
        assert body_for(silent)["stream"] is True
        assert "stream_options" not in body_for(silent)
    assert "stream" not in body_for("openai", stream=False)
    assert "stream" not in request_body(make_request(), Dialect(streams=False))


def test_the_names_on_the_wire():
    asked = {"max_new_tokens": 5, "seed": 1, "stop_strings": ["a"], "temperature": 0.0, "top_p": 0.5}
    assert body_for("remote", **asked).items() >= {"max_tokens": 5, "seed": 1, "temperature": 0.0, "top_p": 0.5}.items()
    assert body_for("openai", **asked)["max_completion_tokens"] == 5
    assert "max_tokens" not in body_for("openai", **asked)
    assert body_for("mistral", **asked)["random_seed"] == 1
    assert "seed" not in body_for("mistral", **asked)
    assert body_for("remote", stop_strings=["a"])["stop"] == ["a"]
    assert body_for("openrouter", reasoning_effort="high")["reasoning"] == {"effort": "high"}
    assert body_for("llama-server", repetition_penalty=1.1)["repeat_penalty"] == 1.1
    assert (
        body_for("remote_vllm", min_new_tokens=2, top_k=3, stop_token_ids=[7]).items()
        >= {"min_tokens": 2, "top_k": 3}.items()
    )
    assert body_for("remote", logit_bias={50: -1.5})["logit_bias"] == {50: -1.5}
    assert "stop" not in body_for("remote", stop_strings=[])


def test_a_required_maximum_is_sent_though_nobody_asked():
    dialect = Dialect(default_max_tokens=4096)
    assert request_body(make_request(), dialect)["max_tokens"] == 4096
    assert request_body(make_request(max_new_tokens=3), dialect)["max_tokens"] == 3


def test_logprobs():
    assert body_for("openai", logprobs=True, top_logprobs=3).items() >= {"logprobs": True, "top_logprobs": 3}.items()
    assert body_for("remote", top_logprobs=3).items() >= {"logprobs": True, "top_logprobs": 3}.items()
    assert "top_logprobs" not in body_for("remote", logprobs=False, top_logprobs=3)
    assert body_for("together", logprobs=True)["logprobs"] == 1
    assert body_for("together", logprobs=True, top_logprobs=4)["logprobs"] == 4
    assert "top_logprobs" not in body_for("together", top_logprobs=4)


def test_extra_body_has_the_last_word():
    body = body_for("openai", temperature=0.5, extra_body={"temperature": 0.7, "service_tier": "flex"})
    assert (body["temperature"], body["service_tier"]) == (0.7, "flex")


def test_user_adapter_and_template_arguments():
    assert body_for("openai", user_id="u1")["safety_identifier"] == "u1"
    assert body_for("fireworks", user_id="u1")["user"] == "u1"
    assert "user" not in body_for("mistral", user_id="u1")
    fields = {"adapter_model": "lora", "chat_template_kwargs": {"enable_thinking": False}}
    vllm = body_for("remote_vllm", model_fields=fields)
    assert (vllm["model"], vllm["chat_template_kwargs"]) == ("lora", {"enable_thinking": False})
    assert "chat_template_kwargs" not in body_for("openai", model_fields=fields)
    assert body_for("openai", model_fields=fields)["model"] == "m"


# -- models that refuse parameters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("gpt-4o", None, True),
        ("gpt-5", None, False),
        ("openai/gpt-5-mini", None, False),
        ("ft:gpt-5-mini:org", None, False),
        ("gpt-5-chat-latest", None, True),
        ("gpt-5.1", None, True),
        ("gpt-5.1", "none", True),
        ("gpt-5.1", "low", False),
        ("gpt-5.1-chat-latest", None, False),
        ("gpt-5.4-pro", None, False),
        ("gpt-5.5", None, False),
        ("gpt-5.5", "none", True),
        ("gpt-5.5-pro", "none", False),
        ("gpt-6-sol", "none", True),
        ("gpt-6-astra", "none", False),
        ("gpt-7-whatever", None, True),
        ("o3-mini", None, False),
        ("o1", None, False),
    ],
)
def test_openai_models_while_they_reason(model, effort, sent):
    asked = {"temperature": 0.5, "top_p": 0.9, "logprobs": True, "logit_bias": {1: 2.0}, "max_new_tokens": 9}
    if effort is not None:
        asked["reasoning_effort"] = effort
    request = make_request(model=model, **asked)
    dialect = PROVIDERS["openai"].dialect
    body = request_body(request, dialect)
    assert body["max_completion_tokens"] == 9
    for name in ("temperature", "top_p", "logprobs", "logit_bias"):
        assert (name in body) is sent
        assert (name in unsupported(request, dialect)) is not sent


def test_dropping_what_changes_nothing_is_not_reported():
    request = make_request(model="gpt-5", temperature=1.0, frequency_penalty=0.0, logprobs=False, logit_bias={})
    assert unsupported(request, PROVIDERS["openai"].dialect) == []


def test_a_stop_that_a_model_refuses_is_reported():
    assert unsupported(make_request(model="o3", stop_strings=["x"]), PROVIDERS["openai"].dialect) == ["stop_strings"]
    assert unsupported(make_request(model="grok-4", presence_penalty=1.0), PROVIDERS["xai"].dialect) == [
        "presence_penalty"
    ]
    assert "reasoning_effort" not in body_for("openai", model="gpt-5-chat-latest", reasoning_effort="low")


def test_unsupported_names_what_does_not_reach_the_provider():
    asked = {"top_k": 3, "n": 2, "use_sampling": True, "temperature": 0.5, "seed": None, "min_p": 0.0}
    assert unsupported(make_request(**asked), PROVIDERS["groq"].dialect) == ["n", "top_k", "use_sampling"]
    assert unsupported(make_request(), PROVIDERS["groq"].dialect) == []
    assert unsupported(make_request(n=1, num_beams=1), PROVIDERS["groq"].dialect) == []
    assert unsupported(make_request(logprobs=True, top_logprobs=2), PROVIDERS["together"].dialect) == []


def test_supported_params_are_what_can_be_sent():
    supported = PROVIDERS["remote_vllm"].dialect.supported
    assert supported >= {"temperature", "top_k", "guided_decoding", "max_new_tokens", "min_new_tokens"}
    assert "use_cache" not in supported


# -- the form of the answer --------------------------------------------------------------------------------------------


class Point(BaseModel):
    x: int
    y: int = 0


@dataclass
class Plain:
    x: int


def test_a_schema_from_a_class_a_mapping_or_text():
    for shape, name in ((Point, "Point"), (Plain, "Plain"), ({"title": "My shape!", "type": "object"}, "My_shape_")):
        wanted = body_for("openai", guided_decoding={"json": shape})["response_format"]
        assert wanted["type"] == "json_schema"
        assert wanted["json_schema"]["name"] == name
        assert wanted["json_schema"]["schema"]["type"] == "object"
    wanted = body_for("remote_vllm", guided_decoding={"json": '{"type":"integer"}'})["response_format"]["json_schema"]
    assert wanted == {"name": "response", "schema": {"type": "integer"}}


def test_a_strict_schema_is_closed_and_the_given_one_untouched():
    inner = {"type": "object", "properties": {"required": {"type": "string"}}, "default": {"type": "object"}}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/P"}, "b": {"anyOf": [inner]}},
        "$defs": {"P": inner},
    }
    before = json.dumps(schema)
    strict = body_for("openai", guided_decoding={"json": schema, "strict": True})["response_format"]["json_schema"]
    assert json.dumps(schema) == before
    assert strict["strict"] is True
    closed = {**inner, "additionalProperties": False, "required": ["required"]}
    assert strict["schema"] == {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/P"}, "b": {"anyOf": [closed]}},
        "$defs": {"P": closed},
        "additionalProperties": False,
        "required": ["a", "b"],
    }


def test_other_kinds_go_where_each_server_takes_them():
    assert body_for("remote_vllm", guided_decoding={"regex": "a+"})["structured_outputs"] == {"regex": "a+"}
    assert body_for("remote_vllm", guided_decoding={"choice": ["a", "b"]})["structured_outputs"] == {
        "choice": ["a", "b"]
    }
    assert body_for("llama-server", guided_decoding={"choice": ['a"', "b\n"]})["grammar"] == 'root ::= "a\\"" | "b\\n"'
    assert body_for("fireworks", guided_decoding={"choice": ["a"]})["response_format"] == {
        "type": "grammar",
        "grammar": 'root ::= "a"',
    }
    assert body_for("deepseek", guided_decoding={"json": Point})["response_format"] == {"type": "json_object"}
    assert unsupported(make_request(guided_decoding={"json": Point}), PROVIDERS["deepseek"].dialect) == [
        "guided_decoding.json"
    ]


def test_who_promises_json_only_is_told_the_schema():
    rows = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]
    before, told, asked = body_for("deepseek", rows, guided_decoding={"json": Point})["messages"]
    assert (before, asked) == (rows[0], rows[1])
    assert told["role"] == "system"
    head, schema = told["content"].split("\n")
    assert "JSON" in head and json.loads(schema) == Point.model_json_schema()
    assert body_for("openai", rows, guided_decoding={"json": Point})["messages"] == rows


def test_what_tools_show_follows_their_messages():
    image = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "see", "arguments": "{}"}} for n in (1, 2, 3)]
    rows = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "one"}, image]},
        {"role": "tool", "tool_call_id": "c2", "content": [image, image]},
        {"role": "tool", "tool_call_id": "c3", "content": "three"},
    ]
    _, one, two, three, shown, after = messages_for("openai", *rows, {"role": "user", "content": "Well?"})
    assert [turn["content"] for turn in (one, two, three)] == [[{"type": "text", "text": "one"}], "", "three"]
    kinds = [part["text"] if part["type"] == "text" else part for part in shown["content"]]
    assert kinds == ["What the call c1 has returned:", image, "What the call c2 has returned:", image, image]
    assert (shown["role"], after["content"]) == ("user", "Well?")
    assert messages_for("openai", *rows)[-1] == shown
    assert messages_for("remote_vllm", *rows)[2]["content"] == [image, image]


def test_a_choice_as_a_regular_expression_matches_exactly_the_choices():
    import re

    from asyncinfer.wire.shapes import alternatives

    choices = ["a.b", "c|d", "(e)", "f g", "h\\i", "[j]{2}", "k^$*+?"]
    pattern = re.compile(alternatives(choices))
    assert all(pattern.fullmatch(choice) for choice in choices)
    assert not any(pattern.fullmatch(other) for other in ("axb", "c", "d", "e", "hi", "jj"))


def test_a_form_that_cannot_be_asked_for_is_an_error_naming_it():
    with pytest.raises(UnsupportedParameterError, match="by grammar; it knows: json, choice, regex") as caught:
        body_for("openai", guided_decoding={"grammar": "a+"})
    assert caught.value.path == "generation.guided_decoding.grammar"
    # An error says it all: no warning that the form was ignored goes before it.
    assert unsupported(make_request(guided_decoding={"grammar": "a"}), PROVIDERS["openai"].dialect) == []


# -- messages ----------------------------------------------------------------------------------------------------------


def test_text_and_parts():
    assert messages_for("openai", {"role": "user", "content": [{"type": "text", "content": "a"}]}) == [
        {"role": "user", "content": "a"}
    ]
    parts = [{"type": "text", "content": "a"}, {"type": "text", "text": "b"}]
    assert messages_for("openai", {"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert messages_for("deepseek", {"role": "user", "content": parts})[0]["content"] == "a\nb"


def test_the_developer_keeps_its_role_where_it_is_known():
    turn = {"role": "developer", "content": "x"}
    assert messages_for("openai", turn)[0]["role"] == "developer"
    assert messages_for("remote", turn)[0]["role"] == "system"
    assert messages_for("openai", {"role": "system", "content": "x"})[0]["role"] == "system"


def test_images_go_out_with_their_real_media_type():
    message = Message(
        role=Role.USER,
        content=[
            ContentItem(type=Type.IMAGE_BINARY, binary=JPEG),
            ContentItem(type=Type.IMAGE_PATH, content="/no/such.gif", binary=PNG),
            ContentItem(type=Type.IMAGE_URL, content="https://example.org/a.png"),
            ContentItem.from_dict({"type": "image_url", "content": "https://example.org/b.png", "detail": "low"}),
        ],
    )
    urls = [part["image_url"] for part in write_messages([message], Dialect())[0]["content"]]
    assert urls == [
        {"url": "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()},
        {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()},
        {"url": "https://example.org/a.png"},
        {"url": "https://example.org/b.png", "detail": "low"},
    ]


def test_parts_in_openais_style_go_out_as_they_came():
    parts = [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "high"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
    ]
    assert messages_for("openai", {"role": "user", "content": parts})[0]["content"] == parts


def test_audio_and_documents_from_bytes():
    message = Message(
        role=Role.USER,
        content=[
            ContentItem(type=Type.AUDIO_BINARY, binary=b"ID3" + b"\0" * 8),
            ContentItem(type=Type.DOCUMENT_BINARY, binary=b"%PDF-1.7"),
            ContentItem(type=Type.DOCUMENT_ID, content="file-1"),
            ContentItem(type=Type.VIDEO_URL, content="https://example.org/a.mp4"),
        ],
    )
    audio, document, named, video = write_messages([message], Dialect())[0]["content"]
    assert audio["input_audio"]["format"] == "mp3"
    assert document["file"]["file_data"].startswith("data:application/pdf;base64,")
    assert named == {"type": "file", "file": {"file_id": "file-1"}}
    assert video["video_url"] == {"url": "https://example.org/a.mp4"}


def test_a_document_by_url():
    content = [ContentItem(type=Type.DOCUMENT_URL, content="https://example.org/a.pdf?sig=1")]
    message = Message(role=Role.USER, content=content)
    with pytest.raises(ConfigError, match="document_binary"):
        write_messages([message], Dialect())
    sent = write_messages([message], PROVIDERS["openrouter"].dialect)[0]["content"][0]["file"]
    assert sent == {"filename": "a.pdf", "file_data": "https://example.org/a.pdf?sig=1"}

    fetched = message.model_copy(update={"content": [content[0].model_copy(update={"binary": b"%PDF-1.7"})]})
    sent = write_messages([fetched], Dialect())[0]["content"][0]["file"]
    assert sent == {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjc="}

    data = "data:application/pdf;base64,JVBERi0xLjc/Pz8/"
    inline = Message(role=Role.USER, content=[ContentItem(type=Type.DOCUMENT_URL, content=data)])
    sent = write_messages([inline], Dialect())[0]["content"][0]["file"]
    assert sent == {"filename": "document.pdf", "file_data": data}


def test_what_was_not_read_or_cannot_be_fetched_is_an_error():
    path = {"role": "user", "content": [{"type": "image_path", "content": "/etc/passwd"}]}
    with pytest.raises(ConfigError, match=r"/etc/passwd.*was not read"):
        messages_for("openai", path)
    for url in (
        {"type": "image_url", "content": "https://example.org/a.png"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ):
        with pytest.raises(ConfigError, match="does not fetch images"):
            messages_for("ollama", {"role": "user", "content": [url]})
    inline = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode()}}
    assert messages_for("ollama", {"role": "user", "content": [inline]})[0]["content"] == [inline]


def call(**more):
    return {"id": "a", "type": "function", "function": {"name": "wx", "arguments": '{"c":"Oslo"}'}, **more}


def test_tools_and_their_results():
    body = request_body(
        make_request(
            [
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": None, "tool_calls": [call()]},
                {"role": "tool", "tool_call_id": "a", "content": "rain"},
            ],
            tools=[WX],
            tool_choice="required",
            parallel_tool_calls=False,
        ),
        PROVIDERS["openai"].dialect,
    )
    assert body["tools"] == [WX]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    assert body["messages"][1] == {"role": "assistant", "content": None, "tool_calls": [call()]}
    assert body["messages"][2] == {"role": "tool", "tool_call_id": "a", "content": "rain"}
    assert "tool_choice" not in body_for(
        "openai", tool_choice="required"
    )  # without tools it is an error at most servers


def test_a_call_without_arguments_is_sent_as_an_empty_object():
    turn = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]}
    assert messages_for("remote", turn)[0]["tool_calls"][0] == {
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }


def test_extra_keys_of_a_call_travel_only_where_they_must():
    turn = {"role": "assistant", "content": None, "tool_calls": [call(extra_content={"google": {"s": "x"}})]}
    signed = Dialect(call_extras=("extra_content",))
    assert messages_for(signed, turn)[0]["tool_calls"][0]["extra_content"] == {"google": {"s": "x"}}
    assert "extra_content" not in messages_for("openai", turn)[0]["tool_calls"][0]


def test_turns_of_one_role_are_joined_where_they_must_be():
    turns = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "content": "b"}, {"type": "text", "content": "c"}]},
        {"role": "assistant", "content": "d"},
        {"role": "assistant", "content": None, "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "a", "content": "e"},
        {"role": "tool", "tool_call_id": "b", "content": "f"},
    ]
    joined = messages_for(Dialect(group_turns=True), *turns)
    assert [turn["role"] for turn in joined] == ["user", "assistant", "assistant", "tool", "tool"]
    assert [part["text"] for part in joined[0]["content"]] == ["a", "b", "c"]
    assert len(messages_for("openai", *turns)) == 6


# -- earlier reasoning -------------------------------------------------------------------------------------------------

THOUGHT = [
    {"role": "user", "content": "1"},
    {"role": "assistant", "content": "x", "reasoning_content": "old", "tool_calls": [call()]},
    {"role": "user", "content": "2"},
    {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call()]},
    {"role": "tool", "tool_call_id": "a", "content": "rain"},
    {"role": "assistant", "content": None, "tool_calls": [call()]},
    {"role": "tool", "tool_call_id": "a", "content": "sun"},
]


def test_reasoning_is_not_sent_where_nobody_asks_for_it():
    assert not any("reasoning" in key for turn in messages_for("openai", *THOUGHT) for key in turn)


def test_deepseek_wants_it_on_the_tool_turns_of_the_current_exchange():
    turns = messages_for("deepseek", *THOUGHT)
    assert [turn.get("reasoning_content") for turn in turns] == [None, None, None, "hm", None, "", None]


def test_fields_for_reasoning():
    assert [turn.get("reasoning_content") for turn in messages_for("fireworks", *THOUGHT)][1:4:2] == ["old", "hm"]
    assert [turn.get("reasoning") for turn in messages_for("remote_vllm", *THOUGHT)][1:4:2] == ["old", "hm"]
    assert messages_for("mistral", THOUGHT[1])[0]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "old"}]},
        {"type": "text", "text": "x"},
    ]


def test_openrouters_details_go_back_whole():
    details = [
        {"type": "reasoning.text", "index": 0, "text": "a", "signature": None},
        {"type": "reasoning.text", "index": 0, "text": "b", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "q"},
        {"type": "reasoning.text", "text": "no index"},
        {"type": "reasoning.text", "text": "stays apart"},
    ]
    turn = {"role": "assistant", "content": "x", "reasoning_content": "ab", "reasoning_details": details}
    before = json.dumps(details)
    sent = messages_for("openrouter", turn)[0]
    assert sent["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"},
        *details[2:],
    ]
    assert "reasoning" not in sent
    assert json.dumps(details) == before
    assert messages_for("openrouter", {**turn, "reasoning_details": None})[0]["reasoning"] == "ab"
    assert merge_details([]) == []


def test_a_turn_that_only_reasoned_has_empty_content():
    turn = {"role": "assistant", "content": None, "reasoning_content": "hm"}
    assert messages_for("openai", turn) == [{"role": "assistant", "content": ""}]


# -- the estimate ------------------------------------------------------------------------------------------------------


def test_the_estimate_errs_upwards_and_sees_everything():
    def estimate(content, **more):
        return estimate_tokens(make_request([{"role": "user", "content": content}], **more))

    empty = estimate("")
    assert estimate("word " * 300) - empty == 500  # 1500 bytes; about 300 tokens
    assert estimate("中" * 300) - empty == 300
    assert estimate([{"type": "image_url", "content": "https://example.org/a.png"}]) - empty == 1600
    assert estimate([{"type": "image_url", "image_url": {"url": "https://e.org/a", "detail": "low"}}]) - empty == 85
    assert estimate("", tools=[WX]) > empty + 20
    assert estimate("", guided_decoding={"json": {"type": "object"}}) > empty
    called = [{"role": "assistant", "content": None, "reasoning_content": "hm" * 30, "tool_calls": [call()]}]
    assert estimate_tokens(make_request(called)) > empty + 20
