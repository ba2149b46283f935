"""ConverseStream to events: every cassette whole, byte by byte and at random splits; exceptions and their verdicts."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.parsers import create_parser
from botocore.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import (
    AsyncInferError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    RetryKind,
    ServerError,
    StreamTruncated,
)
from asyncinfer.events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from asyncinfer.wire.bedrock import ConverseDecoder, read_document, refusal
from tests.servers.bedrock_bytes import begin, error, event, exception, finish, frame, text, words

USAGE = UsageUpdate(Usage(input_tokens=7, output_tokens=3))


def delta(block: int, **content: Any) -> bytes:
    return event("contentBlockDelta", contentBlockIndex=block, delta=content)


def stop(block: int) -> bytes:
    return event("contentBlockStop", contentBlockIndex=block)


def tool(block: int, name: str, **more: str) -> bytes:
    start = {"toolUse": {"toolUseId": f"id-{name}", "name": name, **more}}
    return event("contentBlockStart", contentBlockIndex=block, start=start)


CASSETTES: dict[str, tuple[bytes, list[Event]]] = {
    "text": (
        words("Hé", "llo 😀"),
        [TextDelta("Hé"), TextDelta("llo 😀"), Finish(FinishReason.STOP, raw="end_turn"), USAGE],
    ),
    "thinking and tools": (
        begin()
        + delta(0, reasoningContent={"text": "Let "})
        + delta(0, reasoningContent={"text": "me."})
        + delta(0, reasoningContent={"signature": "c2ln"})
        + stop(0)
        + delta(1, text="I look.")
        + stop(1)
        + tool(2, "wx")
        + delta(2, toolUse={"input": ""})
        + delta(2, toolUse={"input": '{"c":'})
        + delta(2, toolUse={"input": '"Oslo"}'})
        + stop(2)
        + tool(3, "now")
        + stop(3)
        + finish("tool_use", cacheReadInputTokens=5, cacheWriteInputTokens=2),
        [
            ReasoningDelta("Let "),
            ReasoningDelta("me."),
            ReasoningDelta("", details=[{"reasoningText": {"text": "Let me.", "signature": "c2ln"}}]),
            TextDelta("I look."),
            ToolCallDelta(0, "id-wx", "wx"),
            ToolCallDelta(0, arguments='{"c":'),
            ToolCallDelta(0, arguments='"Oslo"}'),
            ToolCallDelta(1, "id-now", "now"),
            Finish(FinishReason.TOOL_CALLS, raw="tool_use"),
            UsageUpdate(Usage(input_tokens=14, output_tokens=3, cached_tokens=5, cache_write_tokens=2)),
        ],
    ),
    "sealed reasoning in two pieces": (
        begin()
        + delta(0, reasoningContent={"redactedContent": "c2U="})
        + delta(0, reasoningContent={"redactedContent": "YWxlZA=="})
        + stop(0)
        + finish(),
        [
            ReasoningDelta("", details=[{"redactedContent": "c2VhbGVk"}]),
            Finish(FinishReason.STOP, raw="end_turn"),
            USAGE,
        ],
    ),
    "a signature whose block is never closed": (
        begin() + delta(0, reasoningContent={"text": "a"}) + delta(0, reasoningContent={"signature": "s"}) + finish(),
        [
            ReasoningDelta("a"),
            ReasoningDelta("", details=[{"reasoningText": {"text": "a", "signature": "s"}}]),
            Finish(FinishReason.STOP, raw="end_turn"),
            USAGE,
        ],
    ),
    "tools that the service runs, and what is not known yet": (
        begin()
        + event("somethingNew", x=1)
        + tool(0, "nova_grounding", type="server_tool_use")
        + delta(0, toolUse={"input": "{}"})
        + stop(0)
        + event("contentBlockStart", contentBlockIndex=1, start={"toolResult": {"toolUseId": "i"}})
        + delta(1, toolResult=[{"text": "found"}])
        + stop(1)
        + delta(2, text="ok")
        + delta(2, citation={"title": "t"})
        + delta(2, novelty={"a": 1})
        + stop(2)
        + finish("guardrail_intervened"),
        [TextDelta("ok"), Finish(FinishReason.CONTENT_FILTER, raw="guardrail_intervened"), USAGE],
    ),
    "a stop string": (
        begin()
        + text("a")
        + event("messageStop", stopReason="stop_sequence", additionalModelResponseFields={"stop_sequence": "###"})
        + event("metadata", metrics={"latencyMs": 1}),
        [TextDelta("a"), Finish(FinishReason.STOP, matched="###", raw="stop_sequence")],
    ),
}


def replay(chunks: list[bytes]) -> list[Event]:
    decoder = ConverseDecoder("m", "r")
    events = [found for chunk in chunks for found in decoder.feed(chunk)]
    events += decoder.close()
    assert decoder.complete
    assert decoder.close() == []
    return events


@pytest.mark.parametrize("name", CASSETTES)
def test_whole_and_byte_by_byte(name: str) -> None:
    data, expected = CASSETTES[name]
    whole = [Start(model="m", request_id="r"), *expected]
    assert replay([data]) == whole
    assert replay([bytes([byte]) for byte in data]) == whole


@settings(max_examples=60)
@given(st.sampled_from(sorted(CASSETTES)), st.data())
def test_random_splits(name: str, data: st.DataObject) -> None:
    body, expected = CASSETTES[name]
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=12).map(sorted))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert replay(pieces)[1:] == expected


@pytest.mark.parametrize("name", [name for name in CASSETTES if "not known" not in name])
def test_the_cassettes_are_what_botocore_reads(name: str) -> None:
    """What a cassette holds is ConverseStream, as the service's own model has it."""
    session = Session()
    shape = session.get_service_model("bedrock-runtime").operation_model("ConverseStream").output_shape
    stream = shape.members["stream"]
    parser = create_parser("rest-json")._event_stream_parser
    buffer = EventStreamBuffer()
    buffer.add_data(CASSETTES[name][0])
    for found in buffer:
        parsed = parser.parse(found.to_response_dict(), stream)
        [(kind, body)] = parsed.items()
        assert kind in stream.members
        assert set(body) == set(json.loads(found.payload)) - {"p"}


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", FinishReason.STOP),
        ("stop_sequence", FinishReason.STOP),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("max_tokens", FinishReason.LENGTH),
        ("guardrail_intervened", FinishReason.CONTENT_FILTER),
        ("content_filtered", FinishReason.CONTENT_FILTER),
        ("malformed_model_output", FinishReason.ERROR),
        ("malformed_tool_use", FinishReason.ERROR),
        ("model_context_window_exceeded", FinishReason.CONTEXT_OVERFLOW),
        ("something_new", FinishReason.UNKNOWN),
    ],
)
def test_stop_reasons(reason: str, expected: FinishReason) -> None:
    assert Finish(expected, raw=reason) in replay([begin() + text("x") + finish(reason)])


def test_the_service_knows_no_other_stop_reason() -> None:
    model = Session().get_service_model("bedrock-runtime")
    from asyncinfer.wire.bedrock.decode import _REASONS

    assert set(model.shape_for("StopReason").enum) == set(_REASONS)


@pytest.mark.parametrize("cut", range(1, 400, 7))
def test_a_cut_never_looks_finished(cut: int) -> None:
    whole = words("one", " two")
    end = len(whole) - len(finish())
    decoder = ConverseDecoder()
    decoder.feed(whole[: min(cut, end)])
    assert not decoder.complete
    with pytest.raises(StreamTruncated):
        decoder.close()


def test_usage_is_not_needed_for_an_answer_to_be_whole() -> None:
    decoder = ConverseDecoder()
    decoder.feed(begin() + text("x") + event("messageStop", stopReason="end_turn"))
    assert decoder.complete
    assert not decoder.done
    assert decoder.close() == []


def test_events_before_an_exception_come_first() -> None:
    decoder = ConverseDecoder()
    events = decoder.feed(begin() + text("one") + exception("throttlingException", "slow"))
    assert TextDelta("one") in events
    for _ in range(2):
        with pytest.raises(RateLimitError, match="slow"):
            decoder.feed(b"")
    with pytest.raises(RateLimitError):
        decoder.close()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (exception("internalServerException"), ServerError),
        (exception("validationException"), BadRequestError),
        (exception("throttlingException"), RateLimitError),
        (exception("serviceUnavailableException"), OverloadedError),
        (exception("modelStreamErrorException"), ServerError),
        (exception("modelStreamErrorException", originalStatusCode=429, originalMessage="busy"), OverloadedError),
        (exception("modelStreamErrorException", originalStatusCode=400, originalMessage="bad"), BadRequestError),
        (exception("modelStreamErrorException", originalStatusCode=503, originalMessage="down"), ServerError),
        (exception("novelException"), ServerError),
        (error("InternalFailure", "gone"), ServerError),
        (frame({":message-type": "event", ":event-type": "messageStart"}, b"{"), ProtocolError),
        (frame({":message-type": "event", ":event-type": "messageStart"}, b"[]"), ProtocolError),
        (event("contentBlockDelta", contentBlockIndex=0), ProtocolError),
        (event("contentBlockDelta", contentBlockIndex=9, delta={"toolUse": {"input": "x"}}), ProtocolError),
        (event("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": 3}), ProtocolError),
        (delta(0, reasoningContent={"redactedContent": "%%%"}), ProtocolError),
        (event("messageStop"), ProtocolError),
    ],
)
def test_errors_inside_a_stream(data: bytes, kind: type[AsyncInferError]) -> None:
    decoder = ConverseDecoder()
    with pytest.raises(kind) as caught:
        decoder.feed(begin() + data)
    assert type(caught.value) is kind
    with pytest.raises(kind):
        decoder.close()


@pytest.mark.parametrize(
    ("status", "name", "kind", "verdict"),
    [
        (429, "ThrottlingException", RateLimitError, RetryKind.THROTTLED),
        (429, "ModelNotReadyException", OverloadedError, RetryKind.OVERLOADED),
        (503, "ServiceUnavailableException", OverloadedError, RetryKind.OVERLOADED),
        (500, "InternalServerException", ServerError, RetryKind.TRANSIENT),
        (408, "ModelTimeoutException", ServerError, RetryKind.TRANSIENT),
        (424, "ModelErrorException", ServerError, RetryKind.TRANSIENT),
        (400, "ValidationException", BadRequestError, RetryKind.NEVER),
        (400, "ServiceQuotaExceededException", QuotaExceededError, RetryKind.NEVER),
        (400, "ConflictException", BadRequestError, RetryKind.NEVER),
        (403, "AccessDeniedException", PermissionDeniedError, RetryKind.NEVER),
        (403, "UnrecognizedClientException", AuthenticationError, RetryKind.NEVER),
        (403, "ExpiredTokenException", AuthenticationError, RetryKind.NEVER),
        (404, "ResourceNotFoundException", NotFoundError, RetryKind.NEVER),
        (418, "TeapotException", BadRequestError, RetryKind.NEVER),
        (502, "BadGateway", ServerError, RetryKind.TRANSIENT),
    ],
)
def test_verdicts(status: int, name: str, kind: type, verdict: RetryKind) -> None:
    headers = {"x-amzn-requestid": "r-1", "retry-after": "3"}
    found = refusal(name, "because", status=status, headers=headers)
    assert (type(found), found.retry, found.status, found.code) == (kind, verdict, status, name)
    assert (found.request_id, found.message) == ("r-1", "because")
    assert (found.retry_after == 3.0) is found.retryable


def test_every_modelled_exception_has_a_verdict_of_its_own() -> None:
    model = Session().get_service_model("bedrock-runtime")
    from asyncinfer.wire.bedrock.refusals import _KNOWN

    for operation in ("Converse", "ConverseStream"):
        for shape in model.operation_model(operation).error_shapes:
            assert shape.name.lower() in _KNOWN
            assert _KNOWN[shape.name.lower()][1] == shape.metadata["error"]["httpStatusCode"]
    stream = model.operation_model("ConverseStream").output_shape.members["stream"]
    exceptions = [name for name, shape in stream.members.items() if shape.metadata.get("exception")]
    assert len(exceptions) == 5
    assert all(name.lower() in _KNOWN for name in exceptions)


def test_a_whole_document() -> None:
    document: dict[str, Any] = {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}},
                    {"reasoningContent": {"redactedContent": b"sealed"}},
                    {"text": "Hi"},
                    {"toolUse": {"toolUseId": "a", "name": "wx", "input": {"c": "Ås"}}},
                    {"toolUse": {"toolUseId": "b", "name": "now", "input": {}}},
                    {"citationsContent": {"content": []}},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3, "cacheReadInputTokens": 4},
    }
    before = copy.deepcopy(document)
    assert read_document(document, "m", "r") == [
        Start(model="m", request_id="r"),
        ReasoningDelta("hm", details=[{"reasoningText": {"text": "hm", "signature": "s"}}]),
        ReasoningDelta("", details=[{"redactedContent": "c2VhbGVk"}]),
        TextDelta("Hi"),
        ToolCallDelta(0, "a", "wx", '{"c":"Ås"}'),
        ToolCallDelta(1, "b", "now", "{}"),
        UsageUpdate(Usage(input_tokens=5, output_tokens=2, cached_tokens=4)),
        Finish(FinishReason.TOOL_CALLS, raw="tool_use"),
    ]
    assert document == before
    with pytest.raises(ProtocolError):
        read_document({"output": {}})
