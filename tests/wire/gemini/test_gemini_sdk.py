"""Google's own client as the other side: it reads what our server side writes, and its requests look like ours."""

from __future__ import annotations

import json

import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from asyncinfer.errors import RateLimitError
from asyncinfer.events import (
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from asyncinfer.params import GenerationParams, GuidedDecodingParams
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.gemini.decode import GeminiDecoder
from asyncinfer.wire.gemini.server import GeminiEncoder, error_response
from tests.servers.canned import CannedServer, answer, stream

from ..requests import make_request

EVENTS = [
    Start("r1", "gemini-x"),
    ReasoningDelta("hm"),
    TextDelta("Hello"),
    TextDelta(" you"),
    ReasoningDelta(
        "",
        0,
        [
            {
                "type": "google.text_signature",
                "text_at": 9,
                "thought_at": 2,
                "calls_at": 0,
                "length": 0,
                "signature": "QUJD",
            }
        ],
    ),
    ToolCallDelta(0, "c1", "wx", '{"c":'),
    ToolCallDelta(0, None, None, '"Oslo"}', 0, {"google": {"thought_signature": "QUJD"}}),
    ToolCallDelta(1, "c2", "now", "{}"),
    UsageUpdate(Usage(8, 20, 3, 0, 14)),
    Finish(FinishReason.TOOL_CALLS, 0, None, "STOP"),
]


def written(events):
    encoder = GeminiEncoder("r1", "gemini-x")
    return [piece for piece in (*map(encoder.encode, events), encoder.close()) if piece]


def camel(value):
    """Names in one spelling: Google's client sends some of them with underscores, which the service reads as well."""
    if isinstance(value, dict):
        words = ((name.split("_"), inner) for name, inner in value.items())
        return {head + "".join(map(str.title, rest)): camel(inner) for (head, *rest), inner in words}
    return [camel(item) for item in value] if isinstance(value, list) else value


def client(server: CannedServer) -> genai.Client:
    options = types.HttpOptions(base_url=server.origin, api_version="v1beta")
    return genai.Client(api_key="k", http_options=options)


def test_googles_client_reads_our_stream():
    with CannedServer(stream(*written(EVENTS))) as server, client(server) as google:
        chunks = list(google.models.generate_content_stream(model="gemini-x", contents="hi"))
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    assert [part.text for part in parts if part.thought] == ["hm"]
    assert "".join(part.text for part in parts if part.text and not part.thought) == "Hello you"
    assert [(part.function_call.name, part.function_call.args) for part in parts if part.function_call] == [
        ("wx", {"c": "Oslo"}),
        ("now", {}),
    ]
    assert [part.thought_signature for part in parts if part.thought_signature] == [b"ABC", b"ABC"]
    assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP
    usage = chunks[-1].usage_metadata
    assert (usage.prompt_token_count, usage.candidates_token_count, usage.thoughts_token_count) == (8, 6, 14)
    assert (usage.cached_content_token_count, usage.total_token_count) == (3, 28)
    assert chunks[0].response_id == "r1"


def test_googles_client_reads_our_document():
    body = GeminiEncoder("r1", "gemini-x").document(EVENTS)
    with CannedServer(answer(body)) as server, client(server) as google:
        found = google.models.generate_content(model="gemini-x", contents="hi")
    assert found.model_version == "gemini-x"
    assert [call.name for call in found.function_calls] == ["wx", "now"]
    assert found.candidates[0].finish_reason is types.FinishReason.STOP
    assert found.usage_metadata.total_token_count == 28


def test_googles_client_reads_our_errors():
    status, headers, body = error_response(RateLimitError("slow", status=429, retry_after=38))
    with CannedServer(answer(body, status, headers)) as server, client(server) as google:
        with pytest.raises(genai_errors.ClientError) as caught:
            google.models.generate_content(model="gemini-x", contents="hi")
    assert (caught.value.code, caught.value.status, caught.value.message) == (429, "RESOURCE_EXHAUSTED", "slow")
    assert codec("gemini").error(status, {}, body).retry_after == 38


def test_googles_client_sees_our_error_in_a_stream():
    encoder = GeminiEncoder("r1", "gemini-x")
    pieces = [encoder.encode(TextDelta("a")), encoder.error(RateLimitError("slow", status=429))]
    with CannedServer(stream(*pieces)) as server, client(server) as google:
        with pytest.raises(genai_errors.APIError, match="slow"):
            list(google.models.generate_content_stream(model="gemini-x", contents="hi"))


def test_we_read_what_we_write():
    def decoded(pieces):
        decoder = GeminiDecoder()
        return [event for piece in pieces for event in decoder.feed(piece)] + decoder.close()

    whole = [
        *EVENTS[:5],
        ToolCallDelta(0, "c1", "wx", '{"c":"Oslo"}', 0, {"google": {"thought_signature": "QUJD"}}),
        *EVENTS[7:],
    ]
    assert decoded(written(EVENTS)) == whole
    together = [*whole[:2], TextDelta("Hello you"), *whole[4:]]
    assert decoded([GeminiEncoder("r1", "gemini-x").document(EVENTS)]) == together


def test_two_candidates_and_logprobs_through_both():
    logprobs = [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.5}]}]
    events = [
        Start("r1", "gemini-x"),
        TextDelta("a", 0, logprobs),
        TextDelta("b", 1),
        Finish(FinishReason.LENGTH, 0, None, "MAX_TOKENS"),
        Finish(FinishReason.CONTENT_FILTER, 1, None, "SAFETY"),
    ]
    for pieces in (written(events), [GeminiEncoder("r1", "gemini-x").document(events)]):
        decoder = GeminiDecoder(2)
        assert [event for piece in pieces for event in decoder.feed(piece)] + decoder.close() == events


def test_our_request_is_what_googles_client_sends():
    ours = make_request(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "wx", "arguments": '{"c":"O"}'}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": '{"t": 3}'},
        ],
        model="gemini-2.5-flash",
        tools=[{"type": "function", "function": {"name": "wx", "parameters": {"type": "object"}}}],
        tool_choice="required",
        temperature=0.5,
        max_new_tokens=9,
        stop_strings=["x"],
        reasoning_effort="low",
        guided_decoding=GuidedDecodingParams(json={"type": "object"}),
    )
    wire = codec("gemini").encode(ours, PROVIDERS["gemini"].dialect)
    with CannedServer(stream(*written(EVENTS))) as server, client(server) as google:
        list(
            google.models.generate_content_stream(
                model="gemini-2.5-flash",
                contents=[
                    types.Content(role="user", parts=[types.Part(text="hi")]),
                    types.Content(
                        role="model",
                        parts=[types.Part(function_call=types.FunctionCall(id="c1", name="wx", args={"c": "O"}))],
                    ),
                    types.Content(
                        role="user",
                        parts=[
                            types.Part(function_response=types.FunctionResponse(id="c1", name="wx", response={"t": 3}))
                        ],
                    ),
                ],
                config=types.GenerateContentConfig(
                    system_instruction=types.Content(parts=[types.Part(text="Be brief.")]),
                    temperature=0.5,
                    max_output_tokens=9,
                    stop_sequences=["x"],
                    response_mime_type="application/json",
                    response_json_schema={"type": "object"},
                    thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=1024),
                    tools=[
                        types.Tool(
                            function_declarations=[
                                types.FunctionDeclaration(name="wx", parameters_json_schema={"type": "object"})
                            ]
                        )
                    ],
                    tool_config=types.ToolConfig(
                        function_calling_config=types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
                    ),
                ),
            )
        )
        theirs = server.requests[0]
    assert theirs.target == "/v1beta" + wire.path
    assert camel(json.loads(theirs.body)) == camel(json.loads(wire.body))


def test_the_parameters_we_claim_are_fields_of_the_format():
    known = {field.alias or name for name, field in types.GenerationConfig.model_fields.items()} | {"toolConfig"}
    for row in ("gemini", "google_vertex"):
        dialect = PROVIDERS[row].dialect
        assert set(dialect.fields.values()) <= known
        assert set(dialect.guided.values()) - {"wrapped"} <= known
        assert set(dialect.fields) <= set(GenerationParams.model_fields)
