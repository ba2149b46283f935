"""Answers in the Responses format and the events that they are, replayed whole, byte by byte and at random splits."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from asyncinfer.errors import (
    AsyncInferError,
    BadRequestError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
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

F = FinishReason


@dataclass
class Case:
    payloads: list[Any]
    events: list[Event] = field(default_factory=list)
    raises: type[AsyncInferError] | None = None
    official: bool = True
    """Whether every payload is one that OpenAI's own client types."""
    raw: bytes | None = None

    @property
    def body(self) -> bytes:
        return sse(*self.payloads) if self.raw is None else self.raw


def sse(*payloads: Any, named: bool = True) -> bytes:
    out = b""
    for payload in payloads:
        if named:
            out += b"event: " + str(payload.get("type")).encode() + b"\n"
        out += b"data: " + json.dumps(payload).encode() + b"\n\n"
    return out


USAGE = {
    "input_tokens": 31,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 43,
}
COUNTED = UsageUpdate(Usage(31, 12, 8, 4, 5))
START = Start("resp_1", "m")


def response(status: str = "completed", output: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1760000000,
        "status": status,
        "model": "m",
        "output": output or [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
        **more,
    }


def event(kind: str, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": number, **more}


CREATED = event("created", response=response("in_progress"))


def end(status: str = "completed", **more: Any) -> dict[str, Any]:
    return event(status, 99, response=response(status, **{"usage": USAGE, **more}))


def message_item(text: str = "", item_id: str = "msg_1", **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if text else []
    status = "completed" if text else "in_progress"
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content, **more}


def added(item: dict[str, Any], at: int = 0) -> dict[str, Any]:
    return event("output_item.added", 1, output_index=at, item=item)


def done(item: dict[str, Any], at: int = 0) -> dict[str, Any]:
    return event("output_item.done", 8, output_index=at, item=item)


def text(delta: str, at: int = 0, **more: Any) -> dict[str, Any]:
    place = {"item_id": "msg_1", "output_index": at, "content_index": 0}
    return event("output_text.delta", 3, **place, delta=delta, **{"logprobs": [], **more})


def message(*deltas: str, at: int = 0, **more: Any) -> list[dict[str, Any]]:
    place = {"item_id": "msg_1", "output_index": at, "content_index": 0}
    whole = "".join(deltas)
    return [
        added(message_item(**more), at),
        event("content_part.added", 2, **place, part={"type": "output_text", "text": "", "annotations": []}),
        *(text(delta, at) for delta in deltas),
        event("output_text.done", 4, **place, text=whole, logprobs=[]),
        event("content_part.done", 5, **place, part={"type": "output_text", "text": whole, "annotations": []}),
        done(message_item(whole, **more), at),
    ]


def reasoning_item(*summary: str, encrypted: str | None = None, item_id: str = "rs_1") -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": text} for text in summary]
    item = {"id": item_id, "type": "reasoning", "summary": parts}
    return item if encrypted is None else {**item, "encrypted_content": encrypted}


def summary(*parts: str, at: int = 0) -> list[dict[str, Any]]:
    out = []
    for number, part in enumerate(parts):
        place = {"item_id": "rs_1", "output_index": at, "summary_index": number}
        out += [
            event("reasoning_summary_part.added", 2, **place, part={"type": "summary_text", "text": ""}),
            event("reasoning_summary_text.delta", 3, **place, delta=part[:2]),
            event("reasoning_summary_text.delta", 3, **place, delta=part[2:]),
            event("reasoning_summary_text.done", 4, **place, text=part),
            event("reasoning_summary_part.done", 5, **place, part={"type": "summary_text", "text": part}),
        ]
    return out


def call_item(arguments: str = "", call_id: str = "call_a", name: str = "wx") -> dict[str, Any]:
    return {"id": f"fc_{call_id}", "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def call(*pieces: str, at: int = 0, call_id: str = "call_a", name: str = "wx") -> list[dict[str, Any]]:
    place = {"item_id": f"fc_{call_id}", "output_index": at}
    whole = "".join(pieces)
    return [
        added(call_item("", call_id, name), at),
        *(event("function_call_arguments.delta", 3, **place, delta=piece) for piece in pieces),
        event("function_call_arguments.done", 4, **place, name=name, arguments=whole),
        done(call_item(whole, call_id, name), at),
    ]


STOP = Finish(F.STOP, 0, None, "completed")
CALLED = Finish(F.TOOL_CALLS, 0, None, "completed")
SEALED = reasoning_item("Think", encrypted="gAAA")
LOGPROB = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Hi", "logprob": -0.5}]}
SEARCH = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "q", "queries": ["q"]},
}
REFUSAL_PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
REFUSAL_ITEM = message_item(content=[{"type": "refusal", "refusal": "I cannot"}], status="completed")

CASES: dict[str, Case] = {
    "text": Case(
        [CREATED, event("in_progress", response=response("in_progress")), *message("Hel", "lo"), end()],
        [START, TextDelta("Hel"), TextDelta("lo"), COUNTED, STOP],
    ),
    "padding against length guessing": Case(
        [CREATED, added(message_item()), text("x", obfuscation="a8Jd"), done(message_item("x")), end()],
        [START, TextDelta("x"), COUNTED, STOP],
    ),
    "without usage": Case([CREATED, *message("x"), end(usage=None)], [START, TextDelta("x"), STOP]),
    "not ascii": Case(
        [CREATED, *message("Zoë 中", "🙂"), end()], [START, TextDelta("Zoë 中"), TextDelta("🙂"), COUNTED, STOP]
    ),
    "a surrogate pair cut in two": Case(
        [CREATED, added(message_item()), text("a\ud83d"), text("\ude42b"), done(message_item("a🙂b")), end()],
        [START, TextDelta("a"), TextDelta("🙂b"), COUNTED, STOP],
        official=False,
    ),
    "half a surrogate pair, then nothing": Case(
        [CREATED, added(message_item()), text("a\ud83d"), end()],
        [START, TextDelta("a"), TextDelta("\ufffd"), COUNTED, STOP],
        official=False,
    ),
    "log probabilities": Case(
        [CREATED, added(message_item()), text("Hi", logprobs=[LOGPROB]), done(message_item("Hi")), end()],
        [START, TextDelta("Hi", 0, [LOGPROB]), COUNTED, STOP],
    ),
    "refusal": Case(
        [
            CREATED,
            added(message_item()),
            event("refusal.delta", 3, **REFUSAL_PLACE, delta="I "),
            event("refusal.delta", 4, **REFUSAL_PLACE, delta="cannot"),
            event("refusal.done", 5, **REFUSAL_PLACE, refusal="I cannot"),
            done(REFUSAL_ITEM),
            end(),
        ],
        [START, TextDelta("I "), TextDelta("cannot"), COUNTED, Finish(F.REFUSAL, 0, None, "completed")],
    ),
    # -- reasoning
    "summaries": Case(
        [CREATED, added(reasoning_item()), *summary("First", "Second"), done(SEALED), *message("x", at=1), end()],
        [
            START,
            ReasoningDelta("Fi"),
            ReasoningDelta("rst"),
            ReasoningDelta("\n\n"),
            ReasoningDelta("Se"),
            ReasoningDelta("cond"),
            ReasoningDelta("", 0, [SEALED]),
            TextDelta("x"),
            ReasoningDelta("", 0, [{"type": "output_message", "length": 1}]),
            COUNTED,
            STOP,
        ],
    ),
    "a summary that came in no delta": Case(
        [CREATED, added(reasoning_item()), done(SEALED), *message("x", at=1), end()],
        [
            START,
            ReasoningDelta("Think"),
            ReasoningDelta("", 0, [SEALED]),
            TextDelta("x"),
            ReasoningDelta("", 0, [{"type": "output_message", "length": 1}]),
            COUNTED,
            STOP,
        ],
    ),
    "reasoning in clear, as open models give it": Case(
        [
            CREATED,
            added(reasoning_item()),
            event("reasoning_text.delta", 3, item_id="rs_1", output_index=0, content_index=0, delta="hm"),
            event("reasoning_text.done", 4, item_id="rs_1", output_index=0, content_index=0, text="hm"),
            done({**reasoning_item(), "content": [{"type": "reasoning_text", "text": "hm"}]}),
            *message("x", at=1),
            end(),
        ],
        [
            START,
            ReasoningDelta("hm"),
            ReasoningDelta("", 0, [{**reasoning_item(), "content": [{"type": "reasoning_text", "text": "hm"}]}]),
            TextDelta("x"),
            ReasoningDelta("", 0, [{"type": "output_message", "length": 1}]),
            COUNTED,
            STOP,
        ],
    ),
    "reasoning between calls": Case(
        [
            CREATED,
            *call("{}", at=0, call_id="a", name="f"),
            added(reasoning_item(), 1),
            done(SEALED, 1),
            *call("{}", at=2, call_id="b", name="g"),
            end(),
        ],
        [
            START,
            ToolCallDelta(0, "a", "f"),
            ToolCallDelta(0, None, None, "{}"),
            ReasoningDelta("Think"),
            ReasoningDelta("", 0, [{"type": "output_call", "call_id": "a"}, SEALED]),
            ToolCallDelta(1, "b", "g"),
            ToolCallDelta(1, None, None, "{}"),
            ReasoningDelta("", 0, [{"type": "output_call", "call_id": "b"}]),
            COUNTED,
            CALLED,
        ],
    ),
    "phases": Case(
        [
            CREATED,
            *message("Look", at=0, phase="commentary"),
            *message("Done", at=1, phase="final_answer"),
            end(),
        ],
        [
            START,
            TextDelta("Look"),
            ReasoningDelta("", 0, [{"type": "output_message", "length": 4, "phase": "commentary"}]),
            TextDelta("Done"),
            ReasoningDelta("", 0, [{"type": "output_message", "length": 4, "phase": "final_answer"}]),
            COUNTED,
            STOP,
        ],
    ),
    "the provider's own tools": Case(
        [
            CREATED,
            added({**SEARCH, "status": "in_progress"}),
            event("web_search_call.in_progress", 2, item_id="ws_1", output_index=0),
            event("web_search_call.completed", 3, item_id="ws_1", output_index=0),
            done(SEARCH),
            *message("x", at=1),
            end(),
        ],
        [
            START,
            ReasoningDelta("", 0, [SEARCH]),
            TextDelta("x"),
            ReasoningDelta("", 0, [{"type": "output_message", "length": 1}]),
            COUNTED,
            STOP,
        ],
    ),
    # -- calls
    "a call in pieces": Case(
        [CREATED, *call('{"c":"Os', 'lo"}'), end()],
        [
            START,
            ToolCallDelta(0, "call_a", "wx"),
            ToolCallDelta(0, None, None, '{"c":"Os'),
            ToolCallDelta(0, None, None, 'lo"}'),
            COUNTED,
            CALLED,
        ],
    ),
    "two calls after text": Case(
        [CREATED, *message("x"), *call("{}", at=1, call_id="a"), *call("{}", at=2, call_id="b"), end()],
        [
            START,
            TextDelta("x"),
            ToolCallDelta(0, "a", "wx"),
            ToolCallDelta(0, None, None, "{}"),
            ToolCallDelta(1, "b", "wx"),
            ToolCallDelta(1, None, None, "{}"),
            COUNTED,
            CALLED,
        ],
    ),
    "a call whose arguments come only with its end": Case(
        [CREATED, added(call_item()), done(call_item('{"a":1}')), end()],
        [START, ToolCallDelta(0, "call_a", "wx"), ToolCallDelta(0, None, None, '{"a":1}'), COUNTED, CALLED],
    ),
    "a call that was not announced": Case(
        [CREATED, done(call_item('{"a":1}')), end()],
        [START, ToolCallDelta(0, "call_a", "wx", '{"a":1}'), COUNTED, CALLED],
    ),
    "a custom tool": Case(
        [
            CREATED,
            added({"id": "ct_1", "type": "custom_tool_call", "call_id": "c", "name": "sql", "input": ""}),
            event("custom_tool_call_input.delta", 2, item_id="ct_1", output_index=0, delta="select 1"),
            event("custom_tool_call_input.done", 3, item_id="ct_1", output_index=0, input="select 1"),
            done({"id": "ct_1", "type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "select 1"}),
            end(),
        ],
        [
            START,
            ToolCallDelta(0, "c", "sql", "", 0, {"type": "custom_tool_call"}),
            ToolCallDelta(0, None, None, "select 1"),
            COUNTED,
            CALLED,
        ],
    ),
    # -- ends
    "cut at the most tokens": Case(
        [CREATED, *message("x"), end("incomplete", incomplete_details={"reason": "max_output_tokens"})],
        [START, TextDelta("x"), COUNTED, Finish(F.LENGTH, 0, None, "max_output_tokens")],
    ),
    "cut by a filter": Case(
        [CREATED, *message("x"), end("incomplete", incomplete_details={"reason": "content_filter"})],
        [START, TextDelta("x"), COUNTED, Finish(F.CONTENT_FILTER, 0, None, "content_filter")],
    ),
    "cut for a reason unknown today": Case(
        [CREATED, *message("x"), end("incomplete", incomplete_details={"reason": "boredom"})],
        [START, TextDelta("x"), COUNTED, Finish(F.UNKNOWN, 0, None, "boredom")],
        official=False,
    ),
    "cancelled": Case(
        [CREATED, *message("x"), end("cancelled")],
        [START, TextDelta("x"), COUNTED, Finish(F.ABORT, 0, None, "cancelled")],
        official=False,
    ),
    "nothing after the end is read": Case(
        [CREATED, *message("x"), end(), *message("never", at=5)], [START, TextDelta("x"), COUNTED, STOP]
    ),
    "done, as servers add it": Case(
        [], [START, TextDelta("x"), COUNTED, STOP], raw=sse(CREATED, *message("x"), end()) + b"data: [DONE]\n\n"
    ),
    "only done": Case(
        [],
        [START, TextDelta("x"), Finish(F.UNKNOWN)],
        raw=sse(CREATED, *message("x")) + b"data: [DONE]\n\n",
    ),
    "no last blank line": Case(
        [], [START, TextDelta("x"), COUNTED, STOP], raw=sse(CREATED, *message("x"), end()).rstrip(b"\n")
    ),
    "without event lines": Case(
        [], [START, TextDelta("x"), COUNTED, STOP], raw=b": hi\n\n" + sse(CREATED, *message("x"), end(), named=False)
    ),
    "everything in the last event": Case(
        [CREATED, end(output=[SEALED, message_item("Hello"), call_item("{}")])],
        [
            START,
            ReasoningDelta("Think"),
            ReasoningDelta("", 0, [SEALED]),
            TextDelta("Hello"),
            ReasoningDelta("", 0, [{"type": "output_message", "length": 5}]),
            ToolCallDelta(0, "call_a", "wx", "{}"),
            ReasoningDelta("", 0, [{"type": "output_call", "call_id": "call_a"}]),
            COUNTED,
            CALLED,
        ],
    ),
    "text that came in no delta": Case(
        [CREATED, added(message_item()), done(message_item("Hello")), end()],
        [START, TextDelta("Hello"), COUNTED, STOP],
    ),
    "text that nobody announced": Case([text("x"), end()], [TextDelta("x"), START, COUNTED, STOP]),
    # -- failures
    "cut": Case([CREATED, *message("x")], [START, TextDelta("x")], StreamTruncated),
    "cut inside an event": Case(
        [], [START, TextDelta("x")], StreamTruncated, raw=sse(CREATED, *message("x"), end())[:-900]
    ),
    "nothing at all": Case([], [], StreamTruncated),
    "failed": Case(
        [CREATED, *message("x"), end("failed", usage=None, error={"code": "server_error", "message": "boom"})],
        [START, TextDelta("x")],
        ServerError,
    ),
    "failed, and counted": Case(
        [CREATED, end("failed", error={"code": "rate_limit_exceeded", "message": "slow"})],
        [START, COUNTED],
        RateLimitError,
    ),
    "failed by our fault": Case(
        [CREATED, end("failed", usage=None, error={"code": "invalid_image_url", "message": "no"})],
        [START],
        BadRequestError,
    ),
    "an error event": Case(
        [CREATED, {"type": "error", "sequence_number": 2, "code": "server_error", "message": "boom", "param": None}],
        [START],
        ServerError,
    ),
    "an error event with its error inside": Case(
        [{"type": "error", "sequence_number": 2, "error": {"type": "overloaded_error", "message": "busy"}}],
        [],
        OverloadedError,
        official=False,
    ),
    "a gateway's error": Case([{"error": {"code": 429, "message": "slow"}}], [], RateLimitError, official=False),
    "a web page": Case([], [], ProtocolError, raw=b"<html>"),
    "not json": Case([], [START], ProtocolError, raw=sse(CREATED) + b"data: {oops\n\n"),
    # -- documents
    "a document": Case(
        [],
        [START, TextDelta("Hello"), COUNTED, STOP],
        raw=json.dumps(response(output=[message_item("Hello")], usage=USAGE)).encode(),
    ),
    "a failed document": Case(
        [],
        [START],
        BadRequestError,
        raw=json.dumps(response("failed", error={"code": "invalid_prompt", "message": "no"})).encode(),
    ),
    "an incomplete document": Case(
        [],
        [START, TextDelta("Hel"), Finish(F.LENGTH, 0, None, "max_output_tokens")],
        raw=json.dumps(
            response("incomplete", [message_item("Hel")], incomplete_details={"reason": "max_output_tokens"})
        ).encode(),
    ),
    "a document in the background": Case([], [], ProtocolError, raw=json.dumps(response("queued")).encode()),
    "a document of odd types": Case(
        [], [Start(), Finish(F.UNKNOWN, 0, None, "unknown")], raw=b'{"output":[],"status":[]}'
    ),
    "a document that is an error": Case([], [], RateLimitError, raw=b'{"error":{"code":429,"message":"slow"}}'),
    "another document": Case([], [], ProtocolError, raw=b'{"choices":[]}'),
    "half a document": Case([], [], StreamTruncated, raw=json.dumps(response()).encode()[:-5]),
}
