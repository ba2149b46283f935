"""What we ask Responses for: validated against the request types of OpenAI's own client, and field by field."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import BaseModel, TypeAdapter

from asyncinfer.completion import Timings
from asyncinfer.engines.fold import Fold
from asyncinfer.errors import ConfigError, UnsupportedParameterError
from asyncinfer.events import Usage
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.openai_responses import ResponsesDecoder

from ..requests import make_request
from .answers import CASES, CREATED, SEALED, added, call, done, end, message, reasoning_item, sse

OPENAI, SERVER = PROVIDERS["openai_responses"].dialect, PROVIDERS["remote_responses"].dialect
STREAMING = TypeAdapter(ResponseCreateParamsStreaming)
WHOLE = TypeAdapter(ResponseCreateParamsNonStreaming)
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
WX = {"type": "function", "function": {"name": "wx", "description": "Weather", "parameters": {"type": "object"}}}


class Answer(BaseModel):
    city: str
    degrees: int


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return (
        value if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else [plain(item) for item in value]
    )


def encode(dialect=OPENAI, *, check: bool = True, **request):
    """The body; ``check``: every key of it is known to OpenAI's types (they drop what they do not know)."""
    wire = codec("openai_responses").encode(make_request(**request), dialect)
    assert wire.path == "/responses"
    body = json.loads(wire.body)
    if check:
        adapter = STREAMING if body.get("stream") else WHOLE
        assert plain(adapter.validate_python(body)) == body
    return body


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_the_least():
    assert encode() == {
        "model": "m",
        "store": False,
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }
    assert encode(SERVER, stream=False).keys() == {"model", "store", "input"}


def test_parameters_under_their_names():
    body = encode(
        max_new_tokens=5,
        temperature=0.5,
        top_p=0.9,
        reasoning_effort="low",
        top_logprobs=3,
        tools=[WX],
        tool_choice="required",
        parallel_tool_calls=False,
        user_id="u",
        model="gpt-4o",
    )
    assert body["max_output_tokens"] == 5
    assert (body["temperature"], body["top_p"], body["top_logprobs"]) == (0.5, 0.9, 3)
    assert body["reasoning"] == {"effort": "low"}
    assert body["include"] == ["message.output_text.logprobs"]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    assert body["safety_identifier"] == "u"


def test_what_the_format_lacks_is_named():
    request = make_request(
        n=2, seed=1, stop_strings=["x"], logit_bias={"1": 2.0}, frequency_penalty=0.1, temperature=0.2
    )
    names = codec("openai_responses").unsupported(request, OPENAI)
    assert names == ["frequency_penalty", "logit_bias", "n", "seed", "stop_strings"]
    assert "temperature" not in encode(model="o3", temperature=0.2)
    assert codec("openai_responses").unsupported(make_request(model="o3", temperature=0.2), OPENAI) == ["temperature"]


def test_encrypted_reasoning_is_asked_for_where_there_is_some():
    sealed = ["reasoning.encrypted_content"]
    assert encode(model="gpt-5")["include"] == sealed
    assert encode(model="o4-mini")["include"] == sealed
    assert encode(PROVIDERS["xai_responses"].dialect, model="grok-4")["include"] == sealed
    assert "include" not in encode(model="gpt-4o")
    assert "include" not in encode(model="gpt-5-chat-latest")
    assert "include" not in encode(SERVER, model="gpt-oss-20b")


def test_extra_body_has_the_last_word_and_merges_where_objects_are_shared():
    body = encode(
        model="gpt-5",
        reasoning_effort="high",
        guided_decoding={"json": {"type": "object"}},
        extra_body={
            "reasoning": {"summary": "auto"},
            "text": {"verbosity": "low"},
            "store": True,
            "truncation": "auto",
        },
    )
    assert body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert body["text"]["verbosity"] == "low"
    assert body["text"]["format"]["type"] == "json_schema"
    assert (body["store"], body["truncation"]) == (True, "auto")


def test_structured_output():
    loose = encode(SERVER, guided_decoding={"json": Answer})["text"]["format"]
    assert (loose["name"], loose["strict"], loose["schema"]) == ("Answer", False, Answer.model_json_schema())
    strict = encode(guided_decoding={"json": Answer, "strict": True})["text"]["format"]
    assert strict["strict"] is True
    assert strict["schema"]["additionalProperties"] is False
    with pytest.raises(UnsupportedParameterError, match="cannot guide an answer by grammar"):
        encode(guided_decoding={"grammar": "a+"})


def test_tools_are_flat_and_say_whether_they_are_strict():
    assert encode(tools=[WX])["tools"] == [
        {"type": "function", "name": "wx", "description": "Weather", "parameters": {"type": "object"}, "strict": False}
    ]
    bare = {"type": "function", "function": {"name": "f", "strict": True}}
    assert encode(tools=[bare])["tools"] == [
        {"type": "function", "name": "f", "strict": True, "parameters": {"type": "object", "properties": {}}}
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"type": "function", "function": {"name": "wx"}}, {"type": "function", "name": "wx"}),
        ({"name": "wx"}, {"type": "function", "name": "wx"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "wx"}}]},
            },
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "wx"}]},
        ),
    ],
)
def test_tool_choice_in_its_own_spelling(ours, theirs):
    assert encode(tools=[WX], tool_choice=ours)["tool_choice"] == theirs
    assert "tool_choice" not in encode(tool_choice=ours)


def test_system_messages():
    system = {"role": "system", "content": "Be brief."}
    body = encode(messages=[system, user("hi"), {"role": "system", "content": "Now."}])
    assert body["instructions"] == "Be brief."
    assert [(item["role"], item["content"]) for item in body["input"]] == [("user", "hi"), ("system", "Now.")]
    assert encode(messages=[system])["input"] == [{"type": "message", "role": "system", "content": "Be brief."}]
    developer = {"role": "developer", "content": "Be brief."}
    assert encode(messages=[developer, user("hi")])["input"][0]["role"] == "developer"
    assert encode(SERVER, messages=[developer, user("hi")])["instructions"] == "Be brief."


def test_pieces():
    data = base64.b64encode(PNG).decode()
    [item] = encode(
        messages=[
            user(
                [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                    {"type": "image_binary", "binary": data},
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                    },
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "document_url", "content": "https://x/a.pdf"},
                ]
            )
        ]
    )["input"]
    assert item["content"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{data}", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "file_url": "https://x/a.pdf"},
    ]


def test_pieces_that_cannot_go():
    for part, words in (
        ({"type": "image_path", "content": "/x/y.png"}, "was not read"),
        ({"type": "video_url", "content": "https://x/y.mp4"}, "no videos"),
        ({"type": "audio_path", "content": "/x/y.wav"}, "was not read"),
    ):
        with pytest.raises(ConfigError, match=words):
            encode(messages=[user([part])])
    with pytest.raises(ConfigError, match="does not fetch images"):
        encode(
            PROVIDERS["ollama_responses"].dialect, messages=[user([{"type": "image_url", "content": "https://x/y"}])]
        )


def test_calls_and_results():
    calls = [{"id": "c1", "type": "function", "function": {"name": "wx", "arguments": '{"c":"Oslo"}'}}]
    image = {"type": "image_url", "content": "https://x/y.png"}
    body = encode(
        messages=[
            user("hi"),
            {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "content": "map"}, image]},
        ]
    )
    assert body["input"][1:] == [
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "c1", "name": "wx", "arguments": '{"c":"Oslo"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [
                {"type": "input_text", "text": "map"},
                {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
            ],
        },
    ]


# -- what an answer says goes back as it was ---------------------------------------------------------------------------


def answered(body: bytes, **request):
    """The messages of a conversation after one more answer, through JSON."""
    asked = make_request(**request)
    decoder, fold = ResponsesDecoder(), Fold()
    fold.add(decoder.feed(body))
    fold.add(decoder.close())
    completion = fold.completion(asked, Usage(), Timings(), None)
    return json.loads(completion.conversation.to_json())["messages"]


def test_three_turns_keep_every_item_in_its_place():
    second = reasoning_item("Again", encrypted="gBBB", item_id="rs_2")
    first = sse(
        CREATED,
        added(reasoning_item(), 0),
        done(SEALED, 0),
        *message("Looking. ", at=1, phase="commentary"),
        *call('{"c":"Oslo"}', at=2, call_id="a"),
        added(reasoning_item(item_id="rs_2"), 3),
        done(second, 3),
        *call('{"c":"Rome"}', at=4, call_id="b"),
        end(),
    )
    messages = answered(first, messages=[user("weather?")], tools=[WX])
    messages += [{"role": "tool", "tool_call_id": name, "content": "rain"} for name in ("a", "b")]
    final = sse(CREATED, *message("Rain everywhere.", phase="final_answer"), end())
    messages = answered(final, messages=messages, tools=[WX])
    messages.append(user("thanks"))
    assert encode(messages=messages, tools=[WX], model="gpt-5")["input"] == [
        {"type": "message", "role": "user", "content": "weather?"},
        SEALED,
        {"type": "message", "role": "assistant", "content": "Looking. ", "phase": "commentary"},
        {"type": "function_call", "call_id": "a", "name": "wx", "arguments": '{"c":"Oslo"}'},
        second,
        {"type": "function_call", "call_id": "b", "name": "wx", "arguments": '{"c":"Rome"}'},
        {"type": "function_call_output", "call_id": "a", "output": "rain"},
        {"type": "function_call_output", "call_id": "b", "output": "rain"},
        {"type": "message", "role": "assistant", "content": "Rain everywhere.", "phase": "final_answer"},
        {"type": "message", "role": "user", "content": "thanks"},
    ]


def test_a_plain_answer_leaves_nothing_beside_its_text():
    assert answered(CASES["text"].body)[1:] == [{"role": "assistant", "content": "Hello"}]


def test_reasoning_without_its_encrypted_form_stays_behind_unless_the_provider_stores_it():
    bare = reasoning_item("hm")
    messages = answered(sse(CREATED, added(reasoning_item()), done(bare), *message("x", at=1), end()))
    assert messages[1]["reasoning_content"] == "hm"
    assert [item["type"] for item in encode(messages=messages)["input"]] == ["message", "message"]
    assert bare in encode(messages=messages, extra_body={"store": True})["input"]


def test_reasoning_in_clear_goes_back():
    messages = answered(CASES["reasoning in clear, as open models give it"].body)
    item = encode(SERVER, messages=messages)["input"][1]
    assert item["content"] == [{"type": "reasoning_text", "text": "hm"}]


def test_text_that_was_edited_goes_as_one_and_nothing_is_lost():
    messages = answered(CASES["phases"].body)
    messages[1]["content"] = "Something else"
    said = [item["content"] for item in encode(messages=messages)["input"] if item["role"] == "assistant"]
    assert said == ["Something else"]


def test_the_blocks_of_other_providers_stay_behind():
    details = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "reasoning.encrypted", "data": "q"},
        {"type": "google.part", "text": "x"},
        "odd",
    ]
    turn = {"role": "assistant", "content": "x", "reasoning_details": details}
    assert encode(messages=[user("hi"), turn])["input"][1:] == [
        {"type": "message", "role": "assistant", "content": "x"}
    ]


def test_custom_tools_and_the_providers_own():
    messages = answered(CASES["a custom tool"].body)
    messages.append({"role": "tool", "tool_call_id": "c", "content": "1"})
    assert encode(messages=messages)["input"][1:] == [
        {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "select 1"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "1"},
    ]
    messages = answered(CASES["the provider's own tools"].body)
    assert [item["type"] for item in encode(messages=messages)["input"]] == ["message", "web_search_call", "message"]
