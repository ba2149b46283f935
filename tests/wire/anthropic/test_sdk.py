"""The official client reads what our server side writes, and writes what it reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest

from asyncinfer.errors import AsyncInferError, OverloadedError, RateLimitError
from asyncinfer.events import Event, Finish, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta, Usage, UsageUpdate
from asyncinfer.wire.anthropic.read import MessagesRequest, parse_messages_request
from asyncinfer.wire.anthropic.server import PING, MessagesEncoder, error_response
from tests.servers.canned import Answer, CannedServer, Request, answer, stream

from .cases import REDACTED, THOUGHT

EVENTS: list[Event] = [
    ReasoningDelta("Need "),
    ReasoningDelta("weather."),
    ReasoningDelta("", details=[THOUGHT]),
    ReasoningDelta("", details=[REDACTED]),
    TextDelta("Look"),
    TextDelta("ing – ü."),
    ToolCallDelta(0, "toolu_1", "wx"),
    ToolCallDelta(0, arguments='{"c":'),
    ToolCallDelta(0, arguments='"Oslo"}'),
    ToolCallDelta(1, "toolu_2", "now"),
    UsageUpdate(Usage(130, 38, 100, 20, 9)),
    Finish(FinishReason.TOOL_CALLS, 0, None, "tool_use"),
]
QUESTION: dict[str, Any] = {"model": "claude-y", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}


class Gateway:
    """Answers every request with some events, as a stream or as a document, and keeps what it was asked."""

    def __init__(self) -> None:
        self.events = EVENTS
        self.fails: AsyncInferError | None = None
        self.fails_late: AsyncInferError | None = None
        self.asked: list[MessagesRequest] = []

    def __call__(self, request: Request) -> Answer:
        assert request.target == "/v1/messages"
        parsed = parse_messages_request(request.body)
        self.asked.append(parsed)
        if self.fails is not None:
            status, headers, body = error_response(self.fails)
            return answer(body, status, headers)
        encoder = MessagesEncoder("msg_2", parsed.model, input_tokens=3)
        if not parsed.stream:
            return answer(encoder.document(self.events))
        pieces = [piece for event in self.events if (piece := encoder.encode(event))]
        end = encoder.close() if self.fails_late is None else encoder.error(self.fails_late)
        return stream(PING, *pieces, PING, end, headers={"request-id": "req_7"})


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with CannedServer(gateway) as server:
        with anthropic.Anthropic(api_key="sk-test", base_url=server.url, max_retries=0) as made:
            yield made


def check(message: Any) -> None:
    assert (message.id, message.model, message.role) == ("msg_2", "claude-y", "assistant")
    thought, redacted, text, first, second = message.content
    assert (thought.type, thought.thinking, thought.signature) == ("thinking", "Need weather.", "c2ln")
    assert (redacted.type, redacted.data) == ("redacted_thinking", "ZW5j")
    assert text.text == "Looking – ü."
    assert (first.type, first.id, first.name, first.input) == ("tool_use", "toolu_1", "wx", {"c": "Oslo"})
    assert (second.id, second.name, second.input) == ("toolu_2", "now", {})
    assert message.stop_reason == "tool_use"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (10, 100, 20)
    assert usage.output_tokens == 38


def test_a_document(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**QUESTION)
    check(message)
    assert message.usage.output_tokens_details.thinking_tokens == 9


def test_a_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**QUESTION) as found:
        text = "".join(found.text_stream)
        message = found.get_final_message()
    assert text == "Looking – ü."
    check(message)


def test_the_events_of_a_stream(client: anthropic.Anthropic) -> None:
    kinds = [event.type for event in client.messages.create(**QUESTION, stream=True)]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 5


@pytest.mark.anyio
async def test_the_asynchronous_client(gateway: Gateway) -> None:
    with CannedServer(gateway) as server:
        async with anthropic.AsyncAnthropic(api_key="sk-test", base_url=server.url, max_retries=0) as client:
            async with client.messages.stream(**QUESTION) as found:
                assert [piece async for piece in found.text_stream] == ["Look", "ing – ü."]
                check(await found.get_final_message())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_stop_sequence(client: anthropic.Anthropic, gateway: Gateway) -> None:
    gateway.events = [TextDelta("a"), Finish(FinishReason.STOP, 0, "END")]
    with client.messages.stream(**QUESTION) as found:
        streamed = found.get_final_message()
    for message in (client.messages.create(**QUESTION), streamed):
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


@pytest.mark.parametrize(
    ("error", "theirs"),
    [
        (RateLimitError("slow", status=429, retry_after=2.0), anthropic.RateLimitError),
        (OverloadedError("busy", status=529), anthropic.APIStatusError),
    ],
)
def test_errors(client: anthropic.Anthropic, gateway: Gateway, error: AsyncInferError, theirs: type[Exception]) -> None:
    gateway.fails = error
    with pytest.raises(theirs, match=error.message) as caught:
        client.messages.create(**QUESTION)
    assert caught.value.status_code == error.status
    assert caught.value.body["error"]["message"] == error.message
    if error.retry_after:
        assert caught.value.response.headers["retry-after"] == "2"


def test_an_error_inside_a_stream(client: anthropic.Anthropic, gateway: Gateway) -> None:
    gateway.events = EVENTS[:1]
    gateway.fails_late = OverloadedError("busy", status=529)
    pieces: list[Any] = []
    with pytest.raises(anthropic.APIStatusError, match="busy"):
        pieces.extend(event.type for event in client.messages.create(**QUESTION, stream=True))
    assert "content_block_delta" in pieces


def test_what_the_client_sends_is_understood(client: anthropic.Anthropic, gateway: Gateway) -> None:
    client.messages.create(
        model="claude-y",
        max_tokens=5000,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "wx", "input": {"c": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}]},
        ],
        tools=[{"name": "wx", "input_schema": {"type": "object"}}],
        tool_choice={"type": "any"},
        thinking={"type": "enabled", "budget_tokens": 2048},
        metadata={"user_id": "u"},
        stop_sequences=["END"],
    )
    (asked,) = gateway.asked
    assert [message.role.value for message in asked.conversation.messages] == ["system", "user", "assistant", "tool"]
    assert asked.conversation.messages[2].tool_calls[0].get_arguments_dict() == {"c": 1}
    assert asked.conversation.messages[3].tool_call_id == "toolu_1"
    generation = asked.generation
    assert (generation.tool_choice, generation.reasoning_effort, generation.stop_strings) == (
        "required",
        "low",
        ["END"],
    )
    assert (generation.max_new_tokens, asked.user, asked.stream) == (5000, "u", False)


def test_every_event_names_itself_twice() -> None:
    encoder = MessagesEncoder("msg_2", "m")
    write: Callable[[Event], bytes] = encoder.encode
    for block in (b"".join(map(write, EVENTS)) + encoder.close()).split(b"\n\n")[:-1]:
        name, data = block.split(b"\n")
        assert json.loads(data.removeprefix(b"data: "))["type"].encode() == name.removeprefix(b"event: ")
