"""What we ask Gemini for: validated against the types of Google's own client, and field by field."""

from __future__ import annotations

import base64
import json

import pytest
from google.genai import types
from pydantic import BaseModel

from asyncinfer.completion import Timings
from asyncinfer.dialect import Dialect
from asyncinfer.engines.fold import Fold
from asyncinfer.errors import ConfigError, UnsupportedParameterError
from asyncinfer.events import Usage
from asyncinfer.params import GuidedDecodingParams
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.gemini.encode import model_path

from ..requests import make_request
from .answers import CASES, chunk, sse, text
from .test_gemini_decode import GeminiDecoder

GEMINI, VERTEX = PROVIDERS["gemini"].dialect, PROVIDERS["google_vertex"].dialect
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
PDF = b"%PDF-1.7\n"
WAV = b"RIFF0000WAVEfmt "
WX = {
    "type": "function",
    "function": {
        "name": "wx",
        "description": "Weather",
        "parameters": {
            "type": "object",
            "properties": {"c": {"$ref": "#/$defs/c"}},
            "$defs": {"c": {"type": "string"}},
        },
    },
}


class Answer(BaseModel):
    city: str
    degrees: int


def encode(dialect: Dialect = GEMINI, **request):
    wire = codec("gemini").encode(make_request(**request), dialect)
    return wire.path, json.loads(wire.body)


def checked(body):
    """The body as Google's client would type it: every key known, every value of its type."""
    for content in body["contents"]:
        types.Content.model_validate(content)
    if "systemInstruction" in body:
        types.Content.model_validate(body["systemInstruction"])
    for tool in body.get("tools", ()):
        types.Tool.model_validate(tool)
    if "toolConfig" in body:
        types.ToolConfig.model_validate(body["toolConfig"])
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))
    for setting in body.get("safetySettings", ()):
        types.SafetySetting.model_validate(setting)
    return body


def test_the_types_of_googles_client_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="nonsense"):
        types.GenerationConfig.model_validate({"nonsense": 1})


def test_only_what_was_set_is_sent():
    path, body = encode(model="gemini-2.5-flash")
    assert path == "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert checked(body) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    assert encode(model="gemini-2.5-flash", stream=False)[0] == "/models/gemini-2.5-flash:generateContent"


def test_every_parameter():
    _, body = encode(
        model="gemini-3-pro",
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_new_tokens=7,
        seed=3,
        stop_strings=["END"],
        n=2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        top_logprobs=3,
        reasoning_effort="high",
        guided_decoding=GuidedDecodingParams(json=Answer),
    )
    config = checked(body)["generationConfig"]
    assert config.pop("responseJsonSchema")["properties"].keys() == {"city", "degrees"}
    assert config == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 40,
        "maxOutputTokens": 7,
        "seed": 3,
        "stopSequences": ["END"],
        "candidateCount": 2,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "responseLogprobs": True,
        "logprobs": 3,
        "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "HIGH"},
        "responseMimeType": "application/json",
    }


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
        ("gemini-2.5-flash", "low", {"includeThoughts": True, "thinkingBudget": 1024}),
        ("gemini-2.5-pro", "4096", {"includeThoughts": True, "thinkingBudget": 4096}),
        ("gemini-2.5-flash", "auto", {"includeThoughts": True, "thinkingBudget": -1}),
        ("gemini-3-pro-preview", "low", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("gemini-3-flash", "none", {"thinkingLevel": "MINIMAL"}),
        ("google/gemini-3.5-pro", "max", {"includeThoughts": True, "thinkingLevel": "XHIGH"}),
        ("gemini-3-pro-preview", "none", {"thinkingLevel": "LOW"}),
        ("gemini-3-pro-preview", "minimal", {"includeThoughts": True, "thinkingLevel": "LOW"}),
        ("gemini-3-pro-preview", "max", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-3-pro-image-preview", "low", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-3.1-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "MEDIUM"}),
        ("gemini-3.1-pro-preview", "none", {"thinkingLevel": "LOW"}),
        ("gemini-3.7-flash", "none", {"thinkingLevel": "LOW"}),
        ("gemini-3.7-flash-lite", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.6-flash", "xhigh", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-flash-latest", "auto", {"includeThoughts": True}),
    ],
)
def test_effort_in_the_words_of_each_family(model, effort, config):
    _, body = encode(VERTEX, model=model, reasoning_effort=effort)
    assert checked(body)["generationConfig"]["thinkingConfig"] == config


def test_what_cannot_be_sent_is_named():
    request = make_request(model="gemini-2.0-flash", reasoning_effort="high", logit_bias={1: 2.0}, min_p=0.1, top_k=-1)
    found = codec("gemini").unsupported(request, GEMINI)
    assert found == ["logit_bias", "min_p", "reasoning_effort"]
    assert "generationConfig" not in json.loads(codec("gemini").encode(request, GEMINI).body)
    with pytest.raises(UnsupportedParameterError, match="grammar"):
        encode(guided_decoding=GuidedDecodingParams(grammar="a+"))


def test_a_choice():
    _, body = encode(guided_decoding=GuidedDecodingParams(choice=["yes", "no"]))
    assert checked(body)["generationConfig"] == {
        "responseMimeType": "text/x.enum",
        "responseSchema": {"type": "STRING", "enum": ["yes", "no"]},
    }


def test_extra_body_is_merged():
    _, body = encode(
        tools=[WX],
        temperature=0.5,
        extra_body={
            "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW", "temperature": 1.0},
            "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
            "tools": [{"googleSearch": {}}],
            "cachedContent": "cachedContents/1",
        },
    )
    assert checked(body)["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW", "temperature": 1.0}
    assert [list(tool) for tool in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert body["cachedContent"] == "cachedContents/1"
    assert body["safetySettings"][0]["threshold"] == "BLOCK_NONE"


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ("none", {"mode": "NONE"}),
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "wx"}}, {"mode": "ANY", "allowedFunctionNames": ["wx"]}),
    ],
)
def test_tools_and_their_choice(choice, written):
    _, body = encode(tools=[WX, {"type": "function", "function": {"name": "now"}}], tool_choice=choice)
    wx, now = checked(body)["tools"][0]["functionDeclarations"]
    assert wx == {"name": "wx", "description": "Weather", "parametersJsonSchema": WX["function"]["parameters"]}
    assert now == {"name": "now"}
    assert body["toolConfig"] == {"functionCallingConfig": written}


def test_a_choice_of_no_function_is_an_error():
    with pytest.raises(ConfigError, match="tool_choice"):
        encode(tools=[WX], tool_choice={"type": "allowed"})


def test_every_kind_of_content():
    b64 = base64.b64encode
    _, body = encode(
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_binary", "binary": b64(PNG).decode()},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + b64(PNG).decode()}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.webp?x=1"}},
                    {"type": "image_url", "content": "gs://bucket/thing"},
                    {"type": "image_path", "content": "a.png", "binary": b64(PNG).decode()},
                    {"type": "file", "file": {"file_data": b64(PDF).decode(), "filename": "a.pdf"}},
                    {"type": "document_id", "content": "https://generativelanguage.googleapis.com/v1beta/files/f1"},
                    {
                        "type": "input_audio",
                        "input_audio": {"data": b64(WAV).decode(), "format": "wav"},
                    },
                    {"type": "video_url", "content": "https://example.org/a.mp4"},
                ],
            },
            {"role": "system", "content": "In French."},
        ]
    )
    png = {"inlineData": {"mimeType": "image/png", "data": b64(PNG).decode()}}  # whatever its URL claims
    assert checked(body)["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "In French."}]}
    (turn,) = body["contents"]
    assert turn["parts"] == [
        {"text": "look"},
        png,
        png,
        {"fileData": {"fileUri": "https://example.org/a.webp?x=1", "mimeType": "image/webp"}},
        {"fileData": {"fileUri": "gs://bucket/thing"}},
        png,
        {"inlineData": {"mimeType": "application/pdf", "data": b64(PDF).decode()}},
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/f1"}},
        {"inlineData": {"mimeType": "audio/wav", "data": b64(WAV).decode()}},
        {"fileData": {"fileUri": "https://example.org/a.mp4", "mimeType": "video/mp4"}},
    ]


def test_files_that_nobody_read_are_an_error():
    with pytest.raises(ConfigError, match=r"a\.png"):
        encode(messages=[{"role": "user", "content": [{"type": "image_path", "content": "a.png"}]}])
    with pytest.raises(ConfigError, match="system"):
        encode(messages=[{"role": "system", "content": "x"}])
    with pytest.raises(ConfigError, match="model_name"):
        encode(model="")


def calls(*named):
    return [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}} for call_id, name in named
    ]


def test_results_of_tools():
    _, body = encode(
        model="gemini-2.5-flash",
        messages=[
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": None, "tool_calls": calls(("a", "f"), ("b", "g"))},
            {"role": "tool", "tool_call_id": "b", "content": '{"x": 1}'},
            {"role": "tool", "tool_call_id": "a", "content": "[1, 2]"},
            {"role": "user", "content": "more"},
            {"role": "user", "content": "still"},
            {"role": "assistant", "content": "ok", "tool_calls": calls(("", "h"))},
            {
                "role": "tool",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_binary", "binary": base64.b64encode(PNG).decode()},
                ],
            },
        ],
    )
    turns = checked(body)["contents"]
    assert [turn["role"] for turn in turns] == ["user", "model", "user", "user", "model", "user"]
    assert turns[2]["parts"] == [
        {"functionResponse": {"id": "b", "name": "g", "response": {"x": 1}}},
        {"functionResponse": {"id": "a", "name": "f", "response": {"output": [1, 2]}}},
    ]
    assert turns[3]["parts"] == [{"text": "more"}, {"text": "still"}]
    assert turns[4]["parts"] == [{"text": "ok"}, {"functionCall": {"name": "h", "args": {}}}]
    answer = turns[5]["parts"][0]["functionResponse"]
    assert (answer["name"], answer["response"]) == ("h", {"output": "see"})
    assert answer["parts"][0]["inlineData"]["mimeType"] == "image/png"
    assert "id" not in answer
    with pytest.raises(ConfigError, match="'zz'"):
        encode(messages=[{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "zz", "content": "y"}])


@pytest.mark.parametrize("written", ['{"c":', "[1]", '{"a": NaN}'])
def test_arguments_that_are_no_object_still_go_back(written):
    made = calls(("a", "f"))
    made[0]["function"]["arguments"] = written
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": made}]
    _, body = encode(messages=messages)
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"INVALID_JSON": written}


def test_calls_of_another_model_get_googles_stand_in_where_it_is_needed():
    messages = [
        {"role": "user", "content": "before"},
        {"role": "assistant", "content": None, "tool_calls": calls(("z", "f"))},
        {"role": "tool", "tool_call_id": "z", "content": "1"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": calls(("a", "f"), ("b", "g"))},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
    ]
    signed = [
        [
            part.get("thoughtSignature")
            for turn in encode(model=model, messages=messages)[1]["contents"]
            for part in turn["parts"]
            if "functionCall" in part
        ]
        for model in ("gemini-3-pro", "gemini-2.5-pro")
    ]
    assert signed == [[None, "skip_thought_signature_validator", None], [None, None, None]]


def replayed(body: bytes, model: str = "gemini-3-pro"):
    """An answer, decoded, folded into the conversation, and sent back."""
    request = make_request(model=model)
    decoder = GeminiDecoder()
    fold = Fold()
    fold.add(decoder.feed(body))
    fold.add(decoder.close())
    conversation = fold.completion(request, Usage(), Timings(), None).conversation
    turns = [json.loads(message.to_json()) for message in conversation.messages]  # through a file and back
    return checked(encode(model=model, messages=[*turns, {"role": "user", "content": "go on"}])[1])["contents"][1]


@pytest.mark.parametrize(
    "parts",
    [
        [{"text": "Hello"}],
        [{"text": "Hello"}, {"text": "", "thoughtSignature": "QUJD"}],
        [{"text": "Hello "}, {"text": "you", "thoughtSignature": "QUJD"}],
        [{"text": "Hello", "thoughtSignature": "QUJD"}, {"text": " you"}],
        [{"functionCall": {"name": "f", "args": {"a": [1]}, "id": "c1"}, "thoughtSignature": "QUJD"}],
        [
            {"text": "wait"},
            {"functionCall": {"name": "f", "args": {}, "id": "c1"}, "thoughtSignature": "QUJD"},
            {"functionCall": {"name": "g", "args": {}, "id": "c2"}},
            {"text": "", "thoughtSignature": "REVG"},
        ],
        [
            {"text": "thinking", "thought": True, "thoughtSignature": "QUJD"},
            {"text": "so"},
            {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "R0hJ"},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
            {"text": "one"},
        ],
        [{"inlineData": {"mimeType": "image/png", "data": "QUJD"}, "thoughtSignature": "QUJD"}],
    ],
)
def test_every_part_goes_back_to_its_place(parts):
    assert replayed(sse(*(chunk(part) for part in parts), chunk(finish="STOP"))) == {"role": "model", "parts": parts}


def test_unsigned_thoughts_stay_here():
    body = sse(chunk(text("hm", thought=True)), chunk(text("a")), chunk(text("b"), finish="STOP"))
    assert replayed(body)["parts"] == [{"text": "ab"}]


def test_details_of_other_providers_and_broken_ones_do_no_harm():
    details = [
        {"type": "reasoning.encrypted", "data": "q"},
        "what",
        {"type": "google.text_signature", "text_at": "x", "length": 99, "signature": "QUJD"},
        {"type": "google.part"},
        {"type": "google.metadata", "continuationToken": "t"},
    ]
    _, body = encode(
        messages=[
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "Hello", "reasoning_details": details},
            {"role": "assistant", "content": "", "reasoning_content": "hm"},
        ]
    )
    assert checked(body)["contents"][1]["parts"] == [{"text": "Hello", "thoughtSignature": "QUJD"}]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.raises is None and case.events])
def test_every_answer_can_be_sent_back(name):
    case = CASES[name]
    request = make_request(n=case.choices)
    fold = Fold(case.choices)
    fold.add(case.events)
    conversation = fold.completion(request, Usage(), Timings(), None).conversation
    turns = [message.to_dict() for message in conversation.messages]
    checked(encode(messages=[*turns, {"role": "user", "content": "go on"}])[1])


@pytest.mark.parametrize(
    ("model", "gemini", "vertex"),
    [
        ("gemini-x", "/models/gemini-x", "/publishers/google/models/gemini-x"),
        ("models/gemini-x", "/models/gemini-x", "/publishers/google/models/gemini-x"),
        ("google/gemini-x", "/models/gemini-x", "/publishers/google/models/gemini-x"),
        ("meta/llama", "/models/llama", "/publishers/meta/models/llama"),
        ("tunedModels/mine", "/tunedModels/mine", "/tunedModels/mine"),
        ("endpoints/123", "/endpoints/123", "/endpoints/123"),
        ("publishers/google/models/x", "/publishers/google/models/x", "/publishers/google/models/x"),
        ("a b?c", "/models/a%20b%3Fc", "/publishers/google/models/a%20b%3Fc"),
    ],
)
def test_where_models_live(model, gemini, vertex):
    assert (model_path(model, GEMINI.path), model_path(model, VERTEX.path)) == (gemini, vertex)
