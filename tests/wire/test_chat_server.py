"""The server's side of Chat Completions: read back by our own decoder and by OpenAI's own client."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.conversation import Role
from asyncinfer.errors import (
    BadRequestError,
    ConfigError,
    ConnectError,
    EngineError,
    FirstTokenTimeout,
    ProtocolError,
    RateLimitError,
    RetryKind,
    StreamTruncated,
)
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
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.openai_chat.decode import ChatDecoder
from asyncinfer.wire.openai_chat.server import DONE, ChatEncoder, error_response, finish_word, parse_chat_request
from asyncinfer.wire.status import error_from_response

from .requests import make_request

ANSWER = [
    Start("x", "y"),
    ReasoningDelta("hm "),
    TextDelta("Hel"),
    TextDelta("lo 中🙂\n\n\r\"'%d"),
    ToolCallDelta(0, "a", "wx", ""),
    ToolCallDelta(0, None, None, '{"c":"Oslo"}'),
    UsageUpdate(Usage(31, 12, 3, 0, 2)),
    Finish(FinishReason.TOOL_CALLS, 0, None, "tool_calls"),
]


def encoder(**more) -> ChatEncoder:
    return ChatEncoder("chatcmpl-1", "m", 1760000000, **more)


def stream_of(events, **more) -> bytes:
    writer = encoder(**more)
    return b"".join([*(writer.encode(event) for event in events), writer.close()])


def decoded(body: bytes, choices: int = 1):
    decoder = ChatDecoder(choices)
    return decoder.feed(body) + decoder.close()


def test_a_stream_reads_back_as_what_was_written():
    assert decoded(stream_of(ANSWER, include_usage=True)) == [Start("chatcmpl-1", "m"), *ANSWER[1:]]
    without_usage = [event for event in ANSWER if not isinstance(event, UsageUpdate)]
    assert decoded(stream_of(ANSWER)) == [Start("chatcmpl-1", "m"), *without_usage[1:]]


def test_a_document_reads_back_as_what_was_written():
    start, *rest = decoded(encoder().document(ANSWER))
    assert start == Start("chatcmpl-1", "m")
    assert rest == [
        ReasoningDelta("hm "),
        TextDelta("Hello 中🙂\n\n\r\"'%d"),
        ToolCallDelta(0, "a", "wx", '{"c":"Oslo"}'),
        *ANSWER[-2:],
    ]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(
    st.lists(
        st.builds(TextDelta, texts, st.integers(0, 2)) | st.builds(ReasoningDelta, texts, st.integers(0, 2)),
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_answer_reads_back(deltas):
    finishes = [Finish(FinishReason.STOP, index, None, "stop") for index in range(3)]
    body = stream_of([Start(), *deltas, *finishes], include_usage=True)
    assert decoded(body, 3) == [Start("chatcmpl-1", "m"), *deltas, UsageUpdate(Usage()), *finishes]


def test_what_clients_rely_on_is_in_every_chunk():
    payloads = [
        json.loads(line[6:]) for line in stream_of(ANSWER, include_usage=True).split(b"\n\n") if line[6:7] == b"{"
    ]
    for payload in payloads:
        assert (payload["id"], payload["object"], payload["model"]) == ("chatcmpl-1", "chat.completion.chunk", "m")
        assert isinstance(payload["created"], int)
        assert isinstance(payload["choices"], list)
    assert payloads[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(payload["usage"] is None for payload in payloads[:-1])
    assert payloads[-1]["choices"] == []
    assert payloads[-1]["usage"]["total_tokens"] == 43
    assert all("usage" not in json.loads(x[6:]) for x in stream_of(ANSWER).split(b"\n\n") if x[6:7] == b"{")
    assert stream_of(ANSWER).endswith(DONE)
    assert b"NaN" not in stream_of([TextDelta("a", 0, [{"logprob": float("nan")}])])


def test_reasons_in_clients_words():
    assert finish_word(FinishReason.REFUSAL) == "stop"
    assert finish_word(FinishReason.CONTEXT_OVERFLOW) == "length"
    assert finish_word(FinishReason.TOOL_CALLS) == "tool_calls"


# -- OpenAI's own client -----------------------------------------------------------------------------------------------


def openai_client(body: bytes, content_type: str, status: int = 200, headers: dict[str, str] | None = None):
    import openai

    library = openai._base_client.httpx if hasattr(openai._base_client, "httpx") else httpx
    seen = {}

    def answer(request):
        seen["body"] = json.loads(request.content)
        return library.Response(status, headers={"content-type": content_type, **(headers or {})}, content=body)

    client = openai.OpenAI(
        api_key="k",
        base_url="http://test/v1",
        max_retries=0,
        http_client=library.Client(transport=library.MockTransport(answer)),
    )
    return openai, client, seen


def test_openais_client_reads_our_stream():
    _, client, _ = openai_client(stream_of(ANSWER, include_usage=True), "text/event-stream; charset=utf-8")
    with client, client.chat.completions.create(model="m", messages=[], stream=True) as stream:
        chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "Hello 中🙂\n\n\r\"'%d"
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert [(call.index, call.id, call.function.name, call.function.arguments) for call in calls] == [
        (0, "a", "wx", ""),
        (0, None, None, '{"c":"Oslo"}'),
    ]
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 3
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["tool_calls"]


def test_openais_client_reads_our_document():
    _, client, _ = openai_client(encoder().document(ANSWER), "application/json")
    with client:
        completion = client.chat.completions.create(model="m", messages=[])
    assert completion.choices[0].message.content == "Hello 中🙂\n\n\r\"'%d"
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"c":"Oslo"}'
    assert completion.usage.total_tokens == 43


def test_openais_client_understands_our_errors():
    status, headers, body = error_response(
        RateLimitError("slow", status=429, code="rate_limit_exceeded", retry_after=1.5)
    )
    openai, client, _ = openai_client(body, "application/json", status, headers)
    with client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="m", messages=[])
    assert caught.value.code == "rate_limit_exceeded"
    broken = encoder().encode(TextDelta("x")) + encoder().error(ProtocolError("boom"))
    openai, client, _ = openai_client(broken, "text/event-stream")
    with client, client.chat.completions.create(model="m", messages=[], stream=True) as stream:
        with pytest.raises(openai.APIError, match="boom"):
            list(stream)


def test_we_read_what_openais_client_sends():
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    shape = {"name": "r", "schema": {"type": "object"}, "strict": True}
    _, client, seen = openai_client(encoder().document(ANSWER), "application/json")
    with client:
        client.chat.completions.create(
            model="m",
            messages=[
                {"role": "developer", "content": "short"},
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "a", "content": "b"},
            ],
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": None}}],
            max_completion_tokens=5,
            temperature=0.5,
            response_format={"type": "json_schema", "json_schema": shape},
        )
    request = parse_chat_request(json.dumps(seen["body"]).encode())
    assert [message.role for message in request.conversation.messages] == [
        Role.SYSTEM,
        Role.USER,
        Role.ASSISTANT,
        Role.TOOL,
    ]
    assert request.generation.model_fields_set == {"max_new_tokens", "temperature", "guided_decoding"}
    assert request.generation.guided_decoding.strict is True
    assert request.conversation.tools[0].function.name == "f"


# -- reading requests --------------------------------------------------------------------------------------------------


def parse(**fields):
    return parse_chat_request(
        json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    )


def test_only_what_was_sent_is_set():
    request = parse(temperature=None, stream=None, stop=None, tools=None, unknown=1)
    assert request.generation.model_fields_set == frozenset()
    assert (request.stream, request.include_usage, request.extra) == (False, False, {"unknown": 1})
    request = parse(stream=True, stream_options={"include_usage": True}, max_tokens=7, stop="x", user="u", n=2)
    assert (request.stream, request.include_usage, request.user) == (True, True, "u")
    assert request.generation.stop_strings == ["x"]
    assert (request.generation.max_new_tokens, request.generation.n) == (7, 2)


def test_odd_messages_are_understood():
    request = parse(
        messages=[
            {"role": "user", "content": None, "name": None},
            {"role": "assistant", "content": "x", "tool_calls": []},
            {"role": "function", "name": "f", "content": "y"},
        ],
        functions=[{"name": "f"}],
    )
    assert [message.content for message in request.conversation.messages] == ["", "x", "y"]
    assert request.conversation.messages[2].role is Role.TOOL
    assert request.conversation.tools[0].function.name == "f"


def test_forms_of_answers():
    assert parse(response_format={"type": "json_object"}).generation.guided_decoding.json_schema() == {"type": "object"}
    assert parse(response_format={"type": "text"}).generation.guided_decoding is None
    assert parse(structured_outputs={"regex": "a+"}).generation.guided_decoding.regex == "a+"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "JSON object"),
        (b'{"messages":[]}', "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":[3]}', r"messages\[0\]"),
        (b'{"model":"m","messages":[{"role":"wizard","content":"x"}]}', "role"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":"hot"}', "temperature"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"top_p":7}', "top_p"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"custom"}]}', "tools"),
        (
            b'{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema"}}',
            "schema",
        ),
        (b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}', "content"),
    ],
)
def test_a_bad_request_names_the_field(body, words):
    with pytest.raises(BadRequestError, match=words) as caught:
        parse_chat_request(body)
    assert caught.value.status == 400
    assert caught.value.retry is RetryKind.NEVER


@given(st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_garbage_is_a_bad_request(body):
    with pytest.raises(BadRequestError):
        parse_chat_request(body)


def test_our_own_requests_are_understood():
    sent = make_request(
        [{"role": "user", "content": "hi"}], temperature=0.25, top_k=3, min_p=0.1, stop_strings=["x"], n=2, seed=5
    )
    request = parse_chat_request(codec("openai_chat").encode(sent, PROVIDERS["remote"].dialect).body)
    assert request.generation.model_fields_set == sent.chosen
    assert request.conversation.to_dict() == sent.conversation.to_dict()
    assert (request.stream, request.include_usage) == (True, True)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("x"), 400),
        (RateLimitError("x", status=429), 429),
        (FirstTokenTimeout("x"), 504),
        (EngineError("x"), 503),
        (ConnectError("x"), 502),
        (StreamTruncated("x"), 502),
        (ProtocolError("x"), 500),
    ],
)
def test_errors_get_a_status_and_keep_their_verdict(error, status):
    got, headers, body = error_response(error)
    assert got == status
    assert headers["x-should-retry"] == str(error.retryable).lower()
    assert json.loads(body)["error"]["message"] == "x"
    assert error_from_response(got, headers, body).retryable is error.retryable


def test_the_wait_survives_the_way():
    status, headers, body = error_response(RateLimitError("x", status=429, retry_after=1.25))
    assert headers["retry-after"] == "2"
    assert error_from_response(status, headers, body).retry_after == 1.25
