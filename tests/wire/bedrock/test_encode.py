"""Requests of Converse, validated by the service's own model as botocore has it."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pydantic
import pytest
from botocore.model import Shape
from botocore.session import Session
from botocore.validate import ParamValidator

from asyncinfer.conversation import ContentItem, Conversation, Message, Role, Type
from asyncinfer.errors import ConfigError, UnsupportedParameterError
from asyncinfer.params import GuidedDecodingParams
from asyncinfer.providers import PROVIDERS
from asyncinfer.request import Request
from asyncinfer.wire.bedrock import encode_request, unsupported
from tests.wire.requests import make_request

DIALECT = PROVIDERS["bedrock"].dialect
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
OLD_CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
MID_CLAUDE = "eu.anthropic.claude-sonnet-4-6"
NEW_CLAUDE = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-opus-4-8"
WX = {"type": "function", "function": {"name": "wx", "description": "Weather.", "parameters": {"type": "object"}}}


@cache
def input_shape(operation: str) -> Shape:
    return Session().get_service_model("bedrock-runtime").operation_model(operation).input_shape


def encode(request: Request) -> dict[str, Any]:
    """The arguments, after botocore has found nothing wrong with them."""
    before = copy.deepcopy(request)
    body = encode_request(request, DIALECT)
    operation = "ConverseStream" if request.stream else "Converse"
    report = ParamValidator().validate(body, input_shape(operation))
    assert not report.has_errors(), report.generate_report()
    assert request.conversation == before.conversation
    assert request.generation == before.generation
    assert request.model == before.model
    return body


def content(*items: ContentItem, role: Role = Role.USER) -> list[dict[str, Any]]:
    request = make_request(model=OLD_CLAUDE)
    request.conversation = Conversation(messages=[Message(role=role, content=list(items))])
    blocks: list[dict[str, Any]] = encode(request)["messages"][0]["content"]
    return blocks


def test_only_what_was_set_is_sent() -> None:
    assert encode(make_request(model="m.x")) == {
        "modelId": "m.x",
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
    }


def test_parameters() -> None:
    body = encode(
        make_request(
            model=OLD_CLAUDE, max_new_tokens=9, temperature=0.5, top_p=0.9, stop_strings=["a", "b"], top_k=40, seed=1
        )
    )
    assert body["inferenceConfig"] == {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["a", "b"]}
    assert body["additionalModelRequestFields"] == {"top_k": 40}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (OLD_CLAUDE, {"top_k": 7}),
        ("us.amazon.nova-lite-v1:0", {"inferenceConfig": {"topK": 7}}),
        ("cohere.command-r-v1:0", {"k": 7}),
        ("mistral.mistral-large-2402-v1:0", {"top_k": 7}),
        ("meta.llama3-8b-instruct-v1:0", None),
        (NEW_CLAUDE, None),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc", {"top_k": 7}),
    ],
)
def test_top_k_has_a_name_at_every_vendor(model: str, fields: dict[str, Any] | None) -> None:
    request = make_request(model=model, top_k=7)
    assert encode(request).get("additionalModelRequestFields") == fields
    assert unsupported(request, DIALECT) == ([] if fields else ["top_k"])
    assert unsupported(make_request(model=model, top_k=0), DIALECT) == []


@pytest.mark.parametrize(
    ("model", "effort", "more", "fields"),
    [
        (OLD_CLAUDE, "low", {}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        (OLD_CLAUDE, "high", {"max_new_tokens": 4000}, {"thinking": {"type": "enabled", "budget_tokens": 3000}}),
        (OLD_CLAUDE, "high", {"max_new_tokens": 1100}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        (OLD_CLAUDE, "none", {}, None),
        (MID_CLAUDE, "max", {}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
        (NEW_CLAUDE, "none", {}, {"thinking": {"type": "disabled"}}),
        (MID_CLAUDE, "xhigh", {}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
        (MID_CLAUDE, "none", {}, None),
        ("anthropic.claude-3-haiku-20240307-v1:0", "none", {}, None),
        (
            "us.amazon.nova-2-lite-v1:0",
            "low",
            {},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
        ),
        ("openai.gpt-oss-120b-1:0", "high", {}, {"reasoning_effort": "high"}),
        ("qwen.qwen3-32b-v1:0", "low", {}, {"reasoning_config": "low"}),
    ],
)
def test_effort_in_the_words_of_each_family(
    model: str, effort: str, more: dict[str, Any], fields: dict[str, Any] | None
) -> None:
    request = make_request(model=model, reasoning_effort=effort, **more)
    assert encode(request).get("additionalModelRequestFields") == fields
    assert unsupported(request, DIALECT) == []


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("meta.llama3-8b-instruct-v1:0", {}),
        ("us.amazon.nova-lite-v1:0", {}),
        ("anthropic.claude-3-haiku-20240307-v1:0", {}),
        (OLD_CLAUDE, {"max_new_tokens": 1024}),
        (OLD_CLAUDE, {"reasoning_effort": "enormous"}),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc", {}),
    ],
)
def test_an_effort_that_cannot_be_said_is_named(model: str, more: dict[str, Any]) -> None:
    request = make_request(model=model, **{"reasoning_effort": "high", "temperature": 0.5, **more})
    body = encode(request)
    assert "additionalModelRequestFields" not in body
    assert body["inferenceConfig"]["temperature"] == 0.5
    assert unsupported(request, DIALECT) == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("model", "effort", "dropped"),
    [(NEW_CLAUDE, None, True), (OLD_CLAUDE, "low", True), (OLD_CLAUDE, None, False), (MID_CLAUDE, "none", False)],
)
def test_sampling_that_a_model_refuses_is_left_out_and_named(model: str, effort: str | None, dropped: bool) -> None:
    request = make_request(model=model, temperature=0.5, top_p=1.0, **({"reasoning_effort": effort} if effort else {}))
    assert ("inferenceConfig" not in encode(request)) is dropped
    assert unsupported(request, DIALECT) == (["temperature"] if dropped else [])


def test_what_converse_lacks_is_named() -> None:
    request = make_request(model=OLD_CLAUDE, seed=1, n=2, min_p=0.0, frequency_penalty=0.5, parallel_tool_calls=False)
    assert unsupported(request, DIALECT) == ["frequency_penalty", "n", "parallel_tool_calls", "seed"]


def test_fields_of_the_model_and_of_the_body() -> None:
    request = make_request(
        model=OLD_CLAUDE,
        model_fields={"model_kwargs": {"anthropic_beta": ["x"], "top_k": 1}},
        top_k=5,
        max_new_tokens=5,
        user_id="u-1",
        extra_body={
            "inferenceConfig": {"temperature": 0.25},
            "additionalModelRequestFields": {"more": True},
            "guardrailConfig": {
                "guardrailIdentifier": "abc",
                "guardrailVersion": "DRAFT",
                "streamProcessingMode": "async",
            },
            "requestMetadata": {"team": "blue"},
            "additionalModelResponseFieldPaths": ["/stop_sequence"],
        },
    )
    body = encode(request)
    assert body["inferenceConfig"] == {"maxTokens": 5, "temperature": 0.25}
    assert body["additionalModelRequestFields"] == {"anthropic_beta": ["x"], "top_k": 1, "more": True}
    assert body["requestMetadata"] == {"user_id": "u-1", "team": "blue"}
    assert body["guardrailConfig"]["streamProcessingMode"] == "async"
    request.stream = False
    assert "streamProcessingMode" not in encode(request)["guardrailConfig"]
    assert "streamProcessingMode" in request.generation.extra_body["guardrailConfig"]


def test_a_user_that_cannot_be_sent() -> None:
    with pytest.raises(ConfigError, match="user_id") as caught:
        encode(make_request(user_id="näme"))
    assert caught.value.path == "remote_params.user_id"


# -- messages ----------------------------------------------------------------------------------------------------------


def test_turns() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        },
        {"role": "assistant", "content": ""},
        {
            "role": "assistant",
            "content": "Look.",
            "reasoning_content": "hm",
            "reasoning_details": [
                {"type": "reasoning.text", "text": "another provider's"},
                {"reasoningText": {"text": "unsigned"}},
                {"reasoningText": {"text": "hm", "signature": "s"}},
                {"redactedContent": "c2VhbGVk"},
            ],
            "tool_calls": [
                {"id": "t/1", "type": "function", "function": {"name": "wx", "arguments": '{"c":"Oslo"}'}},
                {"id": "x" * 80, "type": "function", "function": {"name": "now", "arguments": ""}},
            ],
        },
        {"role": "tool", "tool_call_id": "t/1", "content": "rain"},
        {"role": "tool", "tool_call_id": "x" * 80, "content": [{"type": "text", "text": "no"}], "is_error": True},
        {"role": "user", "content": "So?"},
    ]
    body = encode(make_request(messages, model=OLD_CLAUDE, tools=[WX]))
    assert body["system"] == [{"text": "Be brief."}]
    user, assistant, results = body["messages"]
    assert user == {
        "role": "user",
        "content": [{"text": "a"}, {"text": "b"}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
    }
    reasoning, sealed, said, first, second = assistant["content"]
    assert reasoning == {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}
    assert sealed == {"reasoningContent": {"redactedContent": b"sealed"}}
    assert said == {"text": "Look."}
    assert (first["toolUse"]["name"], first["toolUse"]["input"]) == ("wx", {"c": "Oslo"})
    assert second["toolUse"]["input"] == {}
    ids = [first["toolUse"]["toolUseId"], second["toolUse"]["toolUseId"]]
    assert all(len(one) <= 64 and "/" not in one for one in ids)
    assert ids[0] != ids[1]
    assert [block["toolResult"]["toolUseId"] for block in results["content"][:2]] == ids
    assert results["content"][0]["toolResult"]["content"] == [{"text": "rain"}]
    assert results["content"][1]["toolResult"]["status"] == "error"
    assert results["content"][2] == {"text": "So?"}


def test_attachments() -> None:
    pdf = b"%PDF-1.7 x"
    blocks = content(
        ContentItem(type=Type.IMAGE_BINARY, binary=PNG),
        ContentItem(type=Type.IMAGE_URL, content="data:image/webp;base64,UklGRhwAAABXRUJQ"),
        ContentItem(type=Type.IMAGE_URL, content="s3://bucket/a.jpg"),
        ContentItem(type=Type.DOCUMENT_BINARY, binary=pdf),
        ContentItem(type=Type.DOCUMENT_PATH, content="/x/Q3_report (final).docx", binary=b"PK\x03\x04"),
        ContentItem(type=Type.DOCUMENT_PATH, content="/y/Q3_report (final).docx", binary=b"PK\x03\x04"),
        ContentItem(type=Type.DOCUMENT_URL, content="s3://bucket/notes.md"),
        ContentItem(type=Type.VIDEO_URL, content="s3://bucket/clip.3gp"),
        ContentItem(type=Type.AUDIO_BINARY, binary=b"ID3\x04rest"),
    )
    assert blocks[0] == {"image": {"format": "png", "source": {"bytes": PNG}}}
    assert blocks[1]["image"]["format"] == "webp"
    assert blocks[2] == {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a.jpg"}}}}
    assert blocks[3] == {"document": {"format": "pdf", "name": "document", "source": {"bytes": pdf}}}
    assert [block["document"]["format"] for block in blocks[4:7]] == ["docx", "docx", "md"]
    assert [block["document"]["name"] for block in blocks[4:7]] == [
        "Q3 report (final)",
        "Q3 report (final) 2",
        "notes",
    ]
    assert blocks[7]["video"]["format"] == "three_gp"
    assert blocks[8]["audio"]["format"] == "mp3"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (ContentItem(type=Type.IMAGE_URL, content="https://x.example/a.png"), "web addresses"),
        (ContentItem(type=Type.IMAGE_PATH, content="/x/a.png"), "was not read"),
        (ContentItem(type=Type.IMAGE_BINARY, binary=b"BM nothing known"), "no format"),
        (ContentItem(type=Type.DOCUMENT_BINARY, binary=b"\x00\x01\x02"), "no format"),
        (ContentItem(type=Type.DOCUMENT_ID, content="file-1"), "uploaded files"),
        (ContentItem(type=Type.VIDEO_URL, content="https://x.example/a.mp4"), "web addresses"),
    ],
)
def test_what_cannot_be_sent_names_its_place(item: ContentItem, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        content(ContentItem(type=Type.TEXT, content="see"), item)
    assert caught.value.path == "messages[0].content[1]"


@pytest.mark.parametrize("written", ["{", "[1]", '"text"', '{"a": NaN}', "{" * 3000])
def test_arguments_that_are_no_object_still_go_back(written: str) -> None:
    bad = [{"id": "a", "type": "function", "function": {"name": "wx", "arguments": written}}]
    sent = encode(make_request([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": bad}]))
    assert sent["messages"][1]["content"][0]["toolUse"]["input"] == {"INVALID_JSON": written}


def test_broken_calls_are_named() -> None:
    with pytest.raises(ConfigError, match="tool_call_id"):
        encode(make_request([{"role": "tool", "content": "x"}]))
    with pytest.raises(ConfigError, match="not base64"):
        encode(make_request([{"role": "assistant", "reasoning_details": [{"redactedContent": "%"}]}]))
    with pytest.raises(ConfigError, match="model_name"):
        encode(make_request(model=""))


# -- tools and form ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (None, None),
        ("auto", {"auto": {}}),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "wx"}}, {"tool": {"name": "wx"}}),
    ],
)
def test_tools(choice: Any, written: Any) -> None:
    body = encode(make_request(model=OLD_CLAUDE, tools=[WX], **({} if choice is None else {"tool_choice": choice})))
    spec = {"name": "wx", "description": "Weather.", "inputSchema": {"json": {"type": "object"}}}
    assert body["toolConfig"]["tools"] == [{"toolSpec": spec}]
    assert body["toolConfig"].get("toolChoice") == written


def test_python_functions_are_tools() -> None:
    def look(city: str, days: int = 1) -> str:
        """Look at the sky.

        Args:
            city: where.
            days: how far ahead.
        """
        return f"{city} {days}"

    [found] = encode(make_request(model=OLD_CLAUDE, tools=[look]))["toolConfig"]["tools"]
    assert found["toolSpec"]["name"] == "look"
    assert found["toolSpec"]["inputSchema"]["json"]["required"] == ["city"]


def test_no_tools() -> None:
    assert "toolConfig" not in encode(make_request(model=OLD_CLAUDE, tools=[WX], tool_choice="none"))
    assert "toolConfig" not in encode(make_request(model=OLD_CLAUDE, tool_choice="required"))
    called = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "wx"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
    ]
    # The service refuses blocks of tools where none is defined.
    [found] = encode(make_request(called, model=OLD_CLAUDE))["toolConfig"]["tools"]
    assert found["toolSpec"]["name"] == "wx"
    with pytest.raises(UnsupportedParameterError, match="tool_choice"):
        encode(make_request(called, model=OLD_CLAUDE, tools=[WX], tool_choice="none"))


class Point(pydantic.BaseModel):
    """A place."""

    x: int
    label: str = ""


@pytest.mark.parametrize("strict", [False, True])
def test_structured_output(strict: bool) -> None:
    body = encode(make_request(model=OLD_CLAUDE, guided_decoding=GuidedDecodingParams(json=Point, strict=strict)))
    form = body["outputConfig"]["textFormat"]
    assert form["type"] == "json_schema"
    written = form["structure"]["jsonSchema"]
    assert (written["name"], written["description"]) == ("Point", "A place.")
    schema = json.loads(written["schema"])
    assert schema["additionalProperties"] is False
    assert schema["required"] == (["x", "label"] if strict else ["x"])


def test_models_that_know_no_schema() -> None:
    request = make_request(
        model="anthropic.claude-3-haiku-20240307-v1:0", guided_decoding=GuidedDecodingParams(json=Point)
    )
    tool_config = encode(request)["toolConfig"]
    (tool,) = tool_config["tools"]
    assert tool["toolSpec"]["inputSchema"]["json"] == Point.model_json_schema()
    assert tool_config["toolChoice"] == {"tool": {"name": tool["toolSpec"]["name"]}} == {"tool": {"name": "answer"}}
    for against in (
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"model": "anthropic.claude-3-7-sonnet-20250219-v1:0", "reasoning_effort": "high"},
        {"model_fields": {"model_kwargs": {"thinking": {"type": "enabled", "budget_tokens": 2048}}}},
        {"extra_body": {"toolConfig": {"tools": []}}},
        {"guided_decoding": GuidedDecodingParams(json={"type": "array"})},
        {"model": "anthropic.claude-v2:1"},
    ):
        asked = {"model": request.model.model_name, "guided_decoding": GuidedDecodingParams(json=Point), **against}
        with pytest.raises(UnsupportedParameterError, match="claude"):
            encode(make_request(**asked))


def test_models_that_always_think() -> None:
    request = make_request(model="anthropic.claude-fable-5", reasoning_effort="none")
    assert "additionalModelRequestFields" not in encode(request)
    assert unsupported(request, DIALECT) == ["reasoning_effort"]


def test_forms_that_converse_lacks() -> None:
    with pytest.raises(UnsupportedParameterError, match="json"):
        encode(make_request(model=OLD_CLAUDE, guided_decoding=GuidedDecodingParams(grammar="x")))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ({"choice": ["a", "b"]}, {"enum": ["a", "b"]}),
        ({"regex": "a+"}, {"description": "Text that matches, as a whole, the regular expression a+"}),
    ],
)
def test_texts_travel_in_an_object(shape: dict[str, Any], text: dict[str, Any]) -> None:
    body = encode(make_request(model=OLD_CLAUDE, guided_decoding=GuidedDecodingParams(**shape)))
    schema = json.loads(body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"])
    assert schema["properties"] == {"answer": {"type": "string", **text}}
    assert (schema["required"], schema["additionalProperties"]) == (["answer"], False)
