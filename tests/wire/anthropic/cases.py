"""One table of answers as servers of this format send them: the body, and the events that it is.

Every case is replayed whole, byte by byte and at random splits. An exception at the end of the expected events is what
the decoder must raise after them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from asyncinfer.errors import (
    AsyncInferError,
    BadRequestError,
    OverloadedError,
    ProtocolError,
    QuotaExceededError,
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
    body: bytes
    events: list[Event] = field(default_factory=list)
    raises: type[AsyncInferError] | None = None


def sse(*payloads: dict[str, Any], end: str = "\n") -> bytes:
    return b"".join(
        f"event: {payload['type']}{end}data: {json.dumps(payload, ensure_ascii=False)}{end}{end}".encode()
        for payload in payloads
    )


def head(**usage: int) -> dict[str, Any]:
    counted = {"input_tokens": 12, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 1}
    return {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-x",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**counted, **usage},
        },
    }


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **piece: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": piece}


def end(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    return [
        begin(index, type="text", text=""),
        *(delta(index, type="text_delta", text=piece) for piece in pieces),
        end(index),
    ]


def thinking(index: int, *pieces: str, signature: str = "c2ln") -> list[dict[str, Any]]:
    return [
        begin(index, type="thinking", thinking="", signature=""),
        *(delta(index, type="thinking_delta", thinking=piece) for piece in pieces),
        delta(index, type="signature_delta", signature=signature),
        end(index),
    ]


def tool(index: int, call_id: str, name: str, *pieces: str, given: Any = None) -> list[dict[str, Any]]:
    return [
        begin(index, type="tool_use", id=call_id, name=name, input=given or {}),
        *(delta(index, type="input_json_delta", partial_json=piece) for piece in pieces),
        end(index),
    ]


def over(reason: str | None = "end_turn", matched: str | None = None, **usage: Any) -> list[dict[str, Any]]:
    return [
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": matched},
            "usage": {"output_tokens": 38, **usage},
        },
        {"type": "message_stop"},
    ]


def document(*blocks: dict[str, Any], reason: str | None = "end_turn", **more: Any) -> bytes:
    usage = {"input_tokens": 12, "output_tokens": 38}
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-x",
            "content": list(blocks),
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
            **more,
        }
    ).encode()


def error(kind: str, message: str = "boom", **more: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, **more}


PING = {"type": "ping"}
START = Start("msg_1", "claude-x")
PROMPT = UsageUpdate(Usage(12, 0))
COUNTED = UsageUpdate(Usage(12, 38))
STOP = Finish(F.STOP, 0, None, "end_turn")
CALLED = Finish(F.TOOL_CALLS, 0, None, "tool_use")
THOUGHT = {"type": "thinking", "thinking": "Need weather.", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZW5j"}
CITATION = {
    "type": "char_location",
    "cited_text": "x",
    "document_index": 0,
    "document_title": "T",
    "start_char_index": 0,
    "end_char_index": 1,
}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}


def details(*blocks: Any) -> ReasoningDelta:
    return ReasoningDelta("", details=list(blocks))


CASES: dict[str, Case] = {
    "text": Case(
        sse(head(), PING, *text(0, "Hel", "lo ", "wörld 🎉"), *over()),
        [START, PROMPT, TextDelta("Hel"), TextDelta("lo "), TextDelta("wörld 🎉"), COUNTED, STOP],
    ),
    "crlf": Case(sse(head(), *text(0, "a"), *over(), end="\r\n"), [START, PROMPT, TextDelta("a"), COUNTED, STOP]),
    "comments": Case(
        b": hi\n\n" + sse(head(), *text(0, "a")) + b": keep-alive\n\n" + sse(*over()),
        [START, PROMPT, TextDelta("a"), COUNTED, STOP],
    ),
    "pings everywhere": Case(
        sse(PING, head(), PING, begin(0, type="text", text=""), PING, delta(0, type="text_delta", text="a"), PING)
        + sse(end(0), PING, *over()),
        [START, PROMPT, TextDelta("a"), COUNTED, STOP],
    ),
    "unknown events, blocks and deltas": Case(
        sse(head(), {"type": "from_the_future", "x": 1}, *text(0, "a"), delta(0, type="new_delta", new=1), *over()),
        [START, PROMPT, TextDelta("a"), COUNTED, STOP],
    ),
    "thinking, text, two tools": Case(
        sse(
            head(),
            *thinking(0, "Need ", "weather."),
            *text(1, "Looking."),
            *tool(2, "toolu_1", "wx", "", '{"c":', '"Oslo"}'),
            *tool(3, "toolu_2", "now"),
            *over("tool_use", output_tokens_details={"thinking_tokens": 9}),
        ),
        [
            START,
            PROMPT,
            ReasoningDelta("Need "),
            ReasoningDelta("weather."),
            details(THOUGHT),
            TextDelta("Looking."),
            ToolCallDelta(0, "toolu_1", "wx"),
            ToolCallDelta(0, arguments='{"c":'),
            ToolCallDelta(0, arguments='"Oslo"}'),
            ToolCallDelta(1, "toolu_2", "now"),
            UsageUpdate(Usage(12, 38, 0, 0, 9)),
            CALLED,
        ],
    ),
    "redacted and omitted thinking": Case(
        sse(head(), begin(0, **REDACTED), end(0), *thinking(1, signature="b21p"), *text(2, "a"), *over()),
        [
            START,
            PROMPT,
            details(REDACTED),
            details({"type": "thinking", "thinking": "", "signature": "b21p"}),
            TextDelta("a"),
            COUNTED,
            STOP,
        ],
    ),
    "thinking between calls keeps the whole turn": Case(
        sse(
            head(),
            *thinking(0, "Need weather."),
            *text(1, "Hm."),
            *tool(2, "toolu_1", "wx", '{"c":1}'),
            *thinking(3, "And?"),
            *tool(4, "toolu_2", "wx"),
            *over("tool_use"),
        ),
        [
            START,
            PROMPT,
            ReasoningDelta("Need weather."),
            details(THOUGHT),
            TextDelta("Hm."),
            ToolCallDelta(0, "toolu_1", "wx"),
            ToolCallDelta(0, arguments='{"c":1}'),
            details(
                {"type": "text", "text": "Hm."}, {"type": "tool_use", "id": "toolu_1", "name": "wx", "input": {"c": 1}}
            ),
            ReasoningDelta("And?"),
            details({"type": "thinking", "thinking": "And?", "signature": "c2ln"}),
            ToolCallDelta(1, "toolu_2", "wx"),
            details({"type": "tool_use", "id": "toolu_2", "name": "wx", "input": {}}),
            COUNTED,
            CALLED,
        ],
    ),
    "citations": Case(
        sse(
            head(),
            begin(0, type="text", text=""),
            delta(0, type="text_delta", text="cited"),
            delta(0, type="citations_delta", citation=CITATION),
            end(0),
            *text(1, " plain"),
            *over(),
        ),
        [
            START,
            PROMPT,
            TextDelta("cited"),
            details({"type": "text", "text": "cited", "citations": [CITATION]}),
            TextDelta(" plain"),
            details({"type": "text", "text": " plain"}),
            COUNTED,
            STOP,
        ],
    ),
    "a server tool and a paused turn": Case(
        sse(
            head(),
            *text(0, "I search."),
            begin(1, **SEARCH),
            delta(1, type="input_json_delta", partial_json='{"query":"x"}'),
            end(1),
            begin(2, **FOUND),
            end(2),
            *over("pause_turn"),
        ),
        [
            START,
            PROMPT,
            TextDelta("I search."),
            details({"type": "text", "text": "I search."}),
            details({**SEARCH, "input": {"query": "x"}}),
            details(FOUND),
            COUNTED,
            Finish(F.PAUSE, 0, None, "pause_turn"),
        ],
    ),
    "arguments given whole": Case(
        sse(head(), *tool(0, "t", "f", given={"a": [1]}), *over("tool_use")),
        [
            START,
            PROMPT,
            ToolCallDelta(0, "t", "f"),
            ToolCallDelta(0, arguments='{"a":[1]}'),
            COUNTED,
            CALLED,
        ],
    ),
    "cache": Case(
        sse(
            head(input_tokens=3, cache_read_input_tokens=100, cache_creation_input_tokens=20),
            *text(0, "a"),
            *over(input_tokens=4, cache_read_input_tokens=100, cache_creation_input_tokens=21),
        ),
        [
            START,
            UsageUpdate(Usage(123, 0, 100, 20)),
            TextDelta("a"),
            UsageUpdate(Usage(125, 38, 100, 21)),
            STOP,
        ],
    ),
    "stop sequence": Case(
        sse(head(), *text(0, "a"), *over("stop_sequence", "END")),
        [START, PROMPT, TextDelta("a"), COUNTED, Finish(F.STOP, 0, "END", "stop_sequence")],
    ),
    "refused before a word": Case(
        sse(head(), *over("refusal")), [START, PROMPT, COUNTED, Finish(F.REFUSAL, 0, None, "refusal")]
    ),
    "no reason": Case(
        sse(head(), *text(0, "a"), *over(None)), [START, PROMPT, TextDelta("a"), COUNTED, Finish(F.UNKNOWN)]
    ),
    "no message_stop": Case(sse(head(), *text(0, "a"), over()[0]), [START, PROMPT, TextDelta("a"), COUNTED, STOP]),
    "no blank line at the end": Case(
        sse(head(), *text(0, "a"), *over())[:-1], [START, PROMPT, TextDelta("a"), COUNTED, STOP]
    ),
    "no usage at all": Case(
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"claude-x"}}\n\n'
        + sse(*text(0, "a"), {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}),
        [START, TextDelta("a"), STOP],
    ),
    "a block that never began": Case(
        sse(head(), delta(0, type="text_delta", text="a"), *over()),
        [START, PROMPT, TextDelta("a"), COUNTED, STOP],
    ),
    "half an emoji": Case(
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\ud83c"}}\n\n'
        + sse(*over()),
        [TextDelta("\ufffd"), UsageUpdate(Usage(0, 38)), STOP],
    ),
    "what follows the end is not read": Case(
        sse(head(), *over(), head(), *text(0, "b")), [START, PROMPT, COUNTED, STOP]
    ),
    # -- errors and cuts
    "overloaded inside the stream": Case(
        sse(head(), *text(0, "a")[:2], error("overloaded_error")),
        [START, PROMPT, TextDelta("a")],
        OverloadedError,
    ),
    "an error at once": Case(sse(error("api_error", request_id="req_1")), [], ServerError),
    "rate limited inside the stream": Case(sse(error("rate_limit_error")), [], RateLimitError),
    "billing": Case(sse(error("billing_error")), [], QuotaExceededError),
    "a bad request inside the stream": Case(sse(error("invalid_request_error")), [], BadRequestError),
    "an error of vLLM": Case(sse(error("BadRequestError")), [], BadRequestError),
    "named by the event line only": Case(
        b'event: error\ndata: {"error":{"type":"overloaded_error","message":"x"}}\n\n', [], OverloadedError
    ),
    "cut between blocks": Case(sse(head(), *text(0, "a")), [START, PROMPT, TextDelta("a")], StreamTruncated),
    "cut inside thinking: no block to send back": Case(
        sse(head(), *thinking(0, "Ne")[:2]), [START, PROMPT, ReasoningDelta("Ne")], StreamTruncated
    ),
    "cut inside an event": Case(
        sse(head(), *text(0, "a"), over()[0])[:-20], [START, PROMPT, TextDelta("a")], StreamTruncated
    ),
    "nothing": Case(b"", [], StreamTruncated),
    "pings only": Case(sse(PING), [], StreamTruncated),
    "a web page": Case(b"<html><title>502</title></html>", [], ProtocolError),
    "not JSON": Case(b"data: {nope}\n\n", [], ProtocolError),
    "not an object": Case(b"data: 3\n\n", [], ProtocolError),
    # -- documents
    "document": Case(document({"type": "text", "text": "a"}), [START, TextDelta("a"), COUNTED, STOP]),
    "document with everything": Case(
        document(
            THOUGHT,
            REDACTED,
            {"type": "text", "text": "a", "citations": None},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            reason="tool_use",
        ),
        [
            START,
            ReasoningDelta("Need weather."),
            details(THOUGHT),
            details(REDACTED),
            TextDelta("a"),
            ToolCallDelta(0, "t", "f"),
            ToolCallDelta(0, arguments='{"a":1}'),
            COUNTED,
            CALLED,
        ],
    ),
    "empty document": Case(document(reason="max_tokens"), [START, COUNTED, Finish(F.LENGTH, 0, None, "max_tokens")]),
    "document without a reason": Case(
        document({"type": "text", "text": "a"}, reason=None), [START, TextDelta("a"), COUNTED, Finish(F.UNKNOWN)]
    ),
    "document cut": Case(document({"type": "text", "text": "a"})[:-9], [], StreamTruncated),
    "an error as a document": Case(json.dumps(error("overloaded_error")).encode(), [], OverloadedError),
    "a document of another format": Case(b'{"choices":[]}', [], ProtocolError),
}
for _reason, _ours in {
    "max_tokens": F.LENGTH,
    "model_context_window_exceeded": F.CONTEXT_OVERFLOW,
    "compaction": F.UNKNOWN,
}.items():
    CASES[_reason] = Case(
        sse(head(), *text(0, "a"), *over(_reason)),
        [START, PROMPT, TextDelta("a"), COUNTED, Finish(_ours, 0, None, _reason)],
    )
