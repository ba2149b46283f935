"""The server's side: requests read back into conversations, events written so that they are read as they were."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import (
    AsyncInferError,
    BadRequestError,
    ConfigError,
    EngineError,
    OverloadedError,
    RateLimitError,
    StreamInterrupted,
)
from asyncinfer.events import Finish, FinishReason, ReasoningDelta, Start, TextDelta, ToolCallDelta, Usage, UsageUpdate
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.anthropic import AnthropicDecoder
from asyncinfer.wire.anthropic.read import parse_messages_request
from asyncinfer.wire.anthropic.server import PING, MessagesEncoder, error_response

from ..requests import make_request
from .cases import CASES
from .test_encode import PNG, REDACTED, THOUGHT, WEATHER, WHOLE, encode

CODEC = codec("anthropic_messages")
DIALECT = PROVIDERS["anthropic"].dialect


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read_back(body: dict, **more) -> dict:
    """Read a body as a server would, and write it again as a client would."""
    parsed = parse_messages_request(json.dumps(body).encode())
    request = make_request(model=parsed.model, stream=parsed.stream, user_id=parsed.user)
    request.conversation = parsed.conversation
    request.tools = parsed.conversation.tools
    request.generation = parsed.generation
    request.chosen = frozenset(parsed.generation.model_fields_set)
    return json.loads(CODEC.encode(request, DIALECT).body)


BODY = {
    "model": "claude-opus-5",
    "max_tokens": 9000,
    "stream": True,
    "system": [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See:"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(PNG)}},
                {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": b64(b"%PDF-1.7")},
                    "title": "T",
                    "citations": {"enabled": True},
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                THOUGHT,
                REDACTED,
                {"type": "text", "text": "Looking."},
                {"type": "tool_use", "id": "toolu_1", "name": "wx", "input": {"c": "Oslo"}},
                {"type": "tool_use", "id": "toolu_2", "name": "wx", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image", "source": {"type": "url", "url": "https://x"}},
                    ],
                    "is_error": True,
                },
                {"type": "text", "text": "And?"},
            ],
        },
        {"role": "system", "content": "In French."},
        {"role": "assistant", "content": WHOLE},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]},
    ],
    "tools": [
        {
            "name": "wx",
            "description": "Weather.",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": {"type": "ephemeral"},
        }
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["END"],
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {
        "effort": "xhigh",
        "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}},
    },
}


def test_a_whole_request_comes_back_field_by_field():
    assert read_back(BODY) == BODY


def test_what_the_client_encoder_writes_the_server_reads():
    sent = encode(
        [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}],
        tools=[WEATHER],
        tool_choice="required",
        temperature=0.5,
        top_k=3,
        reasoning_effort="none",
        user_id="u",
    )
    assert read_back(sent) == sent


def test_parameters_are_set_only_where_they_were_sent():
    parsed = parse_messages_request(b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"x":1}')
    assert parsed.generation.model_fields_set == {"max_new_tokens"}
    assert (parsed.stream, parsed.user, parsed.extra) == (False, None, {"x": 1})
    budget = {"thinking": {"type": "enabled", "budget_tokens": 8000}}
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], **budget}
    assert parse_messages_request(json.dumps(body).encode()).generation.reasoning_effort == "medium"


def test_tools_that_the_provider_runs_are_left_aside():
    search = {"type": "web_search_20250305", "name": "web_search"}
    body = {**BODY, "tools": [*BODY["tools"], search]}
    parsed = parse_messages_request(json.dumps(body).encode())
    assert parsed.extra["tools"] == [search]
    assert [tool.function.name for tool in parsed.conversation.tools] == ["wx"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b'{"messages":[]}', "model"),
        (b'{"model":"m","messages":[]}', "messages"),
        (b'{"model":"m","messages":["x"]}', r"messages\[0\]"),
        (b'{"model":"m","messages":[{"role":"king","content":"x"}]}', r"messages\[0\].role"),
        (b'{"model":"m","messages":[{"role":"user","content":7}]}', r"messages\[0\].content"),
        (b'{"model":"m","messages":[{"role":"user","content":[{"type":"video"}]}]}', "video"),
        (b'{"model":"m","messages":[{"role":"user","content":[{"type":"image"}]}]}', "source"),
        (b'{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}', "content"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":"hot"}', "temperature"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"description":"d"}]}', r"tools\[0\]"),
        (b'{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use"}]}]}', "tool_use"),
    ],
)
def test_what_is_wrong_is_named(body, named):
    with pytest.raises(BadRequestError, match=named) as caught:
        parse_messages_request(body)
    assert caught.value.status == 400


# -- answers -----------------------------------------------------------------------------------------------------------


def merged(events):
    """Events with neighbouring pieces joined: where they are cut means nothing."""
    out = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            out[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta) and not last.details:
            out[-1] = ReasoningDelta(last.text + event.text, details=event.details)
        elif isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta) and last.call == event.call:
            out[-1] = ToolCallDelta(last.call, last.id, last.name, last.arguments + event.arguments)
        elif not isinstance(event, (Start, UsageUpdate)):
            out.append(event)
    return out


def decoded(body: bytes):
    decoder = AnthropicDecoder()
    return decoder.feed(body) + decoder.close()


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].raises is None])
def test_every_answer_is_read_as_it_was_written(name):
    events = CASES[name].events
    encoder = MessagesEncoder("msg_2", "claude-y")
    stream = b"".join(map(encoder.encode, events)) + encoder.close()
    assert merged(decoded(stream)) == merged(_as_written(events))
    usage = [event for event in events if isinstance(event, UsageUpdate)][-1:]
    assert [event for event in decoded(stream) if isinstance(event, UsageUpdate)][-1:] == (
        usage or [UsageUpdate(Usage())]
    )
    assert Start("msg_2", "claude-y") in decoded(stream)
    document = MessagesEncoder("msg_2", "claude-y").document(events)
    assert merged(decoded(document)) == merged(_as_written(events))


def _as_written(events):
    """A reason that the format has no word for is written as null."""
    return [
        Finish(FinishReason.UNKNOWN) if isinstance(event, Finish) and event.reason is FinishReason.UNKNOWN else event
        for event in events
    ]


deltas = st.lists(st.builds(TextDelta, st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)), max_size=4)


@given(deltas, st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), st.lists(st.text("ab", max_size=3)))
@settings(max_examples=100, deadline=None)
def test_any_answer_survives_the_way(texts, thought, arguments):
    calls = [
        ToolCallDelta(number, f"id{number}", "f", json.dumps({"x": value})) for number, value in enumerate(arguments)
    ]
    signed = {"type": "thinking", "thinking": thought, "signature": "s"}
    events = [
        ReasoningDelta(thought),
        ReasoningDelta("", details=[signed]),
        *texts,
        *calls,
        Finish(FinishReason.STOP, 0, None, "end_turn"),
    ]
    encoder = MessagesEncoder("msg_2", "claude-y")
    assert merged(decoded(b"".join(map(encoder.encode, events)) + encoder.close())) == merged(events)


def test_pings_may_stand_anywhere():
    encoder = MessagesEncoder("msg_2", "m")
    pieces = [encoder.encode(TextDelta("a")), PING, encoder.encode(TextDelta("b")), PING, encoder.close()]
    assert merged(decoded(PING + b"".join(pieces)))[0] == TextDelta("ab")


def test_events_of_other_formats_are_written_too():
    events = [
        Start("x", "y"),
        ReasoningDelta("Hm.", details=[{"type": "reasoning.text", "text": "Hm."}]),
        TextDelta("a"),
        TextDelta("other", index=1),
        ToolCallDelta(0, None, "f"),
        Finish(FinishReason.CONTENT_FILTER),
    ]
    encoder = MessagesEncoder("msg_2", "m", input_tokens=5)
    stream = b"".join(map(encoder.encode, events)) + encoder.close()
    assert UsageUpdate(Usage(5, 0)) in decoded(stream)
    assert merged(decoded(stream)) == [
        ReasoningDelta("Hm.", details=[{"type": "thinking", "thinking": "Hm.", "signature": ""}]),
        TextDelta("a"),
        ToolCallDelta(0, "toolu_0", "f"),
        Finish(FinishReason.REFUSAL, 0, None, "refusal"),
    ]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadRequestError("x", status=400), 400, "invalid_request_error"),
        (ConfigError("x"), 400, "invalid_request_error"),
        (RateLimitError("x", status=429, retry_after=1.2), 429, "rate_limit_error"),
        (OverloadedError("x", status=503), 529, "overloaded_error"),
        (EngineError("x"), 503, "api_error"),
        (StreamInterrupted("x"), 502, "api_error"),
        (AsyncInferError("x"), 500, "api_error"),
    ],
)
def test_errors(error, status, kind):
    error.request_id = "req_1"
    found, headers, body = error_response(error)
    assert (found, headers["request-id"]) == (status, "req_1")
    value = json.loads(body)
    assert value == {"type": "error", "error": {"type": kind, "message": "x"}, "request_id": "req_1"}
    assert headers.get("retry-after") == ("2" if error.retry_after else None)
    again = CODEC.error(found, headers, body)
    assert again.retryable is error.retryable
    with pytest.raises(AsyncInferError, match="x"):
        AnthropicDecoder().feed(MessagesEncoder("m", "m").error(error))
