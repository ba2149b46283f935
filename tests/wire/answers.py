"""One table of answers as providers send them: the body, and the events that it is.

Every case is replayed whole, byte by byte and at random splits. A stream case is a list of ``data`` payloads; an
exception at the end of the expected events is what the decoder must raise after them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from asyncinfer.errors import (
    AsyncInferError,
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
    choices: int = 1
    ends_at_eof: bool = False


def chunk(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any
) -> dict[str, Any]:
    choice = {
        "index": index,
        "delta": {} if delta is None else delta,
        "finish_reason": finish,
        **more.pop("choice", {}),
    }
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def sse(*payloads: Any, end: bytes = b"\n\n", done: bool = True) -> bytes:
    lines = [p if isinstance(p, str) else json.dumps(p) for p in payloads]
    return b"".join(b"data: " + line.encode() + end for line in [*lines, *(["[DONE]"] if done else [])])


def document(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"id": "c1", "object": "chat.completion", "model": "m", "choices": [choice], **more}).encode()


START = Start("c1", "m")
STOP = Finish(F.STOP, 0, None, "stop")
ROLE = chunk({"role": "assistant", "content": ""})
USAGE = {"prompt_tokens": 31, "completion_tokens": 12, "total_tokens": 43}
COUNTED = UsageUpdate(Usage(31, 12))
LOGPROB = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}


def calls(*pieces: dict[str, Any], finish: str = "tool_calls") -> bytes:
    return sse(ROLE, *(chunk({"tool_calls": [piece]}) for piece in pieces), chunk(finish=finish))


CALLED = Finish(F.TOOL_CALLS, 0, None, "tool_calls")

CASES: dict[str, Case] = {
    "text": Case(
        sse(ROLE, chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk(finish="stop")),
        [START, TextDelta("Hel"), TextDelta("lo"), STOP],
    ),
    "crlf, comments and blank lines": Case(
        b"\r\n\r\n: OPENROUTER PROCESSING\r\n\r\n"
        + sse(chunk({"content": "x"}), chunk(finish="stop"), end=b"\r\n\r\n"),
        [START, TextDelta("x"), STOP],
    ),
    "bom": Case(b"\xef\xbb\xbf" + sse(chunk({"content": "x"}, "stop")), [START, TextDelta("x"), STOP]),
    "not ascii": Case(sse(chunk({"content": "Zoë 中🙂"}), chunk(finish="stop")), [START, TextDelta("Zoë 中🙂"), STOP]),
    "raw utf-8": Case(
        'data: {"id":"c1","model":"m","choices":[{"delta":{"content":"🙂"},"finish_reason":"stop"}]}\n\n'.encode(),
        [START, TextDelta("🙂"), STOP],
    ),
    "a surrogate pair cut in two": Case(
        b'data: {"id":"c1","model":"m","choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'
        b'data: {"choices":[{"delta":{"content":"\\ude42b"},"finish_reason":"stop"}]}\n\n',
        [START, TextDelta("a"), TextDelta("🙂b"), STOP],
    ),
    "half a surrogate pair, then nothing": Case(
        b'data: {"id":"c1","model":"m","choices":[{"delta":{"content":"a\\ud83d"},"finish_reason":"stop"}]}\n\n',
        [START, TextDelta("a"), TextDelta("\ufffd"), STOP],
    ),
    "nulls everywhere": Case(
        sse(
            {**ROLE, "usage": None, "error": None, "x_groq": None, "system_fingerprint": None},
            chunk({"content": "x", "refusal": None, "tool_calls": None, "reasoning": None, "reasoning_content": None}),
            chunk({"content": None, "function_call": None}, "stop", choice={"logprobs": None, "stop_reason": None}),
        ),
        [START, TextDelta("x"), STOP],
    ),
    "padding against length guessing": Case(
        sse(chunk({"content": "x"}, obfuscation="a8Jd"), chunk(finish="stop", obfuscation="")),
        [START, TextDelta("x"), STOP],
    ),
    "azure's prelude": Case(
        sse(
            {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
            chunk({"content": "x"}),
            chunk(finish="stop"),
        ),
        [START, TextDelta("x"), STOP],
    ),
    "done with words after it": Case(
        sse(chunk({"content": "x"}, "stop"), "[DONE] goodbye", chunk({"content": "never"}), done=False),
        [START, TextDelta("x"), STOP],
    ),
    "empty data": Case(sse("", chunk({"content": "x"}, "stop"), "  "), [START, TextDelta("x"), STOP]),
    "a ping": Case(sse({"type": "ping"}, chunk({"content": "x"}, "stop")), [START, TextDelta("x"), STOP]),
    "moderation beside nothing": Case(
        sse(chunk({"content": "x"}, "stop"), {"moderation": {}}), [START, TextDelta("x"), STOP]
    ),
    # -- the end
    "no last blank line": Case(
        sse(chunk({"content": "x"}), done=False) + b"data: " + json.dumps(chunk(finish="stop")).encode(),
        [START, TextDelta("x"), STOP],
    ),
    "finish, then the end": Case(sse(chunk({"content": "x"}, "stop"), done=False), [START, TextDelta("x"), STOP]),
    "finish, then a cut chunk": Case(
        sse(chunk({"content": "x"}, "stop"), done=False) + b'data: {"id":"c1","choices":[],"usa',
        [START, TextDelta("x"), STOP],
    ),
    "cut": Case(sse(chunk({"content": "x"}), done=False), [START, TextDelta("x")], StreamTruncated),
    "cut inside a chunk": Case(
        sse(chunk({"content": "x"}), done=False) + b'data: {"id":"c1","cho', [START, TextDelta("x")], StreamTruncated
    ),
    "cut inside done": Case(
        sse(chunk({"content": "x"}), done=False) + b"data: [DON", [START, TextDelta("x")], StreamTruncated
    ),
    "nothing at all": Case(b"", [], StreamTruncated),
    "only comments": Case(b": keep-alive\n\n" * 3, [], StreamTruncated),
    "only done": Case(sse(), [], StreamTruncated),
    "done without a reason": Case(sse(chunk({"content": "x"})), [START, TextDelta("x"), Finish(F.UNKNOWN, 0)]),
    "a provider without any marker": Case(
        sse(chunk({"content": "x"}), done=False), [START, TextDelta("x"), Finish(F.STOP, 0)], ends_at_eof=True
    ),
    "the reason twice": Case(
        sse(chunk({"content": "x"}), chunk(finish="length"), chunk(finish="stop")),
        [START, TextDelta("x"), Finish(F.LENGTH, 0, None, "length")],
    ),
    "an empty reason on every chunk": Case(
        sse(chunk({"content": "x"}, ""), chunk({"content": "y"}, "null"), chunk(finish="stop")),
        [START, TextDelta("x"), TextDelta("y"), STOP],
    ),
    "vllm names the stop": Case(
        sse(chunk({"content": "x"}, "stop", choice={"stop_reason": "END"})),
        [START, TextDelta("x"), Finish(F.STOP, 0, "END", "stop")],
    ),
    "sglang names the stop": Case(
        sse(chunk({"content": "x"}, "stop", choice={"matched_stop": 128001})),
        [START, TextDelta("x"), Finish(F.STOP, 0, 128001, "stop")],
    ),
    **{
        f"finish reason {raw}": Case(
            sse(chunk({"content": "x"}, raw)), [START, TextDelta("x"), Finish(ours, 0, None, raw)]
        )
        for raw, ours in {
            "eos": F.STOP,
            "end_turn": F.STOP,
            "length": F.LENGTH,
            "max_tokens": F.LENGTH,
            "model_length": F.LENGTH,
            "content_filter": F.CONTENT_FILTER,
            "function_call": F.TOOL_CALLS,
            "abort": F.ABORT,
            "error": F.ERROR,
            "insufficient_system_resource": F.ERROR,
            "STOP": F.STOP,
            "whatever": F.UNKNOWN,
        }.items()
    },
    # -- more than text
    "reasoning_content": Case(
        sse(chunk({"reasoning_content": "hm", "content": None}), chunk({"content": "x"}, "stop")),
        [START, ReasoningDelta("hm"), TextDelta("x"), STOP],
    ),
    "reasoning": Case(
        sse(chunk({"reasoning": "hm", "content": ""}), chunk({"content": "x"}, "stop")),
        [START, ReasoningDelta("hm"), TextDelta("x"), STOP],
    ),
    "reasoning twice": Case(
        sse(chunk({"reasoning": "hm", "reasoning_content": "hm"}), chunk({"content": "x"}, "stop")),
        [START, ReasoningDelta("hm"), TextDelta("x"), STOP],
    ),
    "reasoning details": Case(
        sse(chunk({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, "stop")),
        [START, ReasoningDelta("hm", 0, [{"type": "reasoning.text", "text": "hm"}]), STOP],
    ),
    "only encrypted details": Case(
        sse(chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "q"}], "content": "x"}, "stop")),
        [START, ReasoningDelta("", 0, [{"type": "reasoning.encrypted", "data": "q"}]), TextDelta("x"), STOP],
    ),
    "mistral's list": Case(
        sse(
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}]}),
            chunk({"content": [{"type": "text", "text": "x"}, {"type": "reference", "reference_ids": [1]}]}, "stop"),
        ),
        [START, ReasoningDelta("hm"), TextDelta("x"), STOP],
    ),
    "refusal": Case(
        sse(chunk({"refusal": "I can"}), chunk({"refusal": "not"}), chunk(finish="stop")),
        [START, TextDelta("I can"), TextDelta("not"), Finish(F.REFUSAL, 0, None, "stop")],
    ),
    "logprobs": Case(
        sse(
            chunk({"content": "a"}, choice={"logprobs": {"content": [LOGPROB], "refusal": None}}), chunk(finish="stop")
        ),
        [START, TextDelta("a", 0, [LOGPROB]), STOP],
    ),
    "logprobs as a number": Case(
        sse(chunk({"content": "a"}, choice={"logprobs": -0.5}), chunk(finish="stop")),
        [START, TextDelta("a", 0, [{"token": "a", "logprob": -0.5}]), STOP],
    ),
    "logprobs as two lists": Case(
        sse(
            chunk({"content": "a"}, choice={"logprobs": {"tokens": ["a"], "token_logprobs": [-1.0]}}),
            chunk(finish="stop"),
        ),
        [START, TextDelta("a", 0, [{"token": "a", "logprob": -1.0}]), STOP],
    ),
    "n": Case(
        sse(
            chunk({"content": "a"}, index=0),
            chunk({"content": "b"}, index=1),
            chunk(finish="length", index=1),
            chunk(finish="stop", index=0),
        ),
        [START, TextDelta("a"), TextDelta("b", 1), STOP, Finish(F.LENGTH, 1, None, "length")],
        choices=2,
    ),
    "n, one of them missing": Case(
        sse(chunk({"content": "a"}, "stop"), done=False), [START, TextDelta("a")], StreamTruncated, choices=2
    ),
    "n, and the provider gave one": Case(
        sse(chunk({"content": "a"}, "stop")), [START, TextDelta("a"), STOP], choices=2
    ),
    "n, one of them cut": Case(
        sse(chunk({"content": "a"}, "stop"), chunk({"content": "b"}, index=1), done=False),
        [START, TextDelta("a"), TextDelta("b", 1)],
        StreamTruncated,
        choices=2,
    ),
    # -- tool calls
    "a call in pieces": Case(
        calls(
            {"index": 0, "id": "call_a", "type": "function", "function": {"name": "wx", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"c":"Os'}},
            {"index": 0, "function": {"arguments": 'lo"}'}},
        ),
        [
            START,
            ToolCallDelta(0, "call_a", "wx"),
            ToolCallDelta(0, None, None, '{"c":"Os'),
            ToolCallDelta(0, None, None, 'lo"}'),
            CALLED,
        ],
    ),
    "two calls": Case(
        calls(
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
            {"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}},
        ),
        [START, ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "g", "{}"), CALLED],
    ),
    "id and name again with every piece": Case(
        calls(
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}},
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": "}"}},
            {"index": 0, "id": "", "function": {"name": "", "arguments": ""}},
        ),
        [START, ToolCallDelta(0, "a", "f", "{"), ToolCallDelta(0, None, None, "}"), CALLED],
    ),
    "whole calls, all of index 0": Case(
        calls(
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
            {"index": 0, "id": "b", "function": {"name": "f", "arguments": "{}"}},
        ),
        [START, ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "f", "{}"), CALLED],
    ),
    "no index, ids": Case(
        calls(
            {"id": "a", "function": {"name": "f", "arguments": "{"}},
            {"id": "b", "function": {"name": "g", "arguments": "{"}},
            {"id": "a", "function": {"arguments": "}"}},
            {"id": "b", "function": {"arguments": "}"}},
        ),
        [
            START,
            ToolCallDelta(0, "a", "f", "{"),
            ToolCallDelta(1, "b", "g", "{"),
            ToolCallDelta(0, None, None, "}"),
            ToolCallDelta(1, None, None, "}"),
            CALLED,
        ],
    ),
    "no index, no ids, whole": Case(
        calls(
            {"function": {"name": "f", "arguments": '{"a":1}'}},
            {"function": {"name": "f", "arguments": '{"a":2}'}},
        ),
        [START, ToolCallDelta(0, None, "f", '{"a":1}'), ToolCallDelta(1, None, "f", '{"a":2}'), CALLED],
    ),
    "no index, no ids, pieces": Case(
        calls(
            {"function": {"name": "f", "arguments": '{"a"'}},
            {"function": {"arguments": ":1}"}},
            {"function": {"name": "g", "arguments": "{}"}},
        ),
        [
            START,
            ToolCallDelta(0, None, "f", '{"a"'),
            ToolCallDelta(0, None, None, ":1}"),
            ToolCallDelta(1, None, "g", "{}"),
            CALLED,
        ],
    ),
    "arguments as an object": Case(
        calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": {"c": "Oslo"}}}),
        [START, ToolCallDelta(0, "a", "f", '{"c":"Oslo"}'), CALLED],
    ),
    "a thought signature": Case(
        calls(
            {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"google": {"s": 1}}}
        ),
        [START, ToolCallDelta(0, "a", "f", "{}", 0, {"google": {"s": 1}}), CALLED],
    ),
    "a custom tool": Case(
        calls({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "free"}}),
        [START, ToolCallDelta(0, "a", "f", "free"), CALLED],
    ),
    "calls that end with stop": Case(
        calls({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}, finish="stop"),
        [START, ToolCallDelta(0, "a", "f", "{}"), Finish(F.TOOL_CALLS, 0, None, "stop")],
    ),
    "the older function_call": Case(
        sse(
            chunk({"function_call": {"name": "f", "arguments": ""}}),
            chunk({"function_call": {"arguments": "{}"}}),
            chunk(finish="function_call"),
        ),
        [
            START,
            ToolCallDelta(0, None, "f"),
            ToolCallDelta(0, None, None, "{}"),
            Finish(F.TOOL_CALLS, 0, None, "function_call"),
        ],
    ),
    # -- usage
    "usage at the end": Case(
        sse(chunk({"content": "x"}), chunk(finish="stop"), {"id": "c1", "choices": [], "usage": USAGE}),
        [START, TextDelta("x"), COUNTED, STOP],
    ),
    "usage on the finish chunk": Case(
        sse(chunk({"content": "x"}), chunk(finish="stop", usage=USAGE)), [START, TextDelta("x"), COUNTED, STOP]
    ),
    "usage on every chunk": Case(
        sse(
            chunk({"content": "x"}, usage={"prompt_tokens": 31, "completion_tokens": 1}),
            chunk({"content": "y"}, usage=USAGE),
            chunk(finish="stop", usage=USAGE),
        ),
        [START, TextDelta("x"), UsageUpdate(Usage(31, 1)), TextDelta("y"), COUNTED, STOP],
    ),
    "groq's usage": Case(
        sse(chunk({"content": "x"}), chunk(finish="stop", x_groq={"id": "r", "usage": USAGE})),
        [START, TextDelta("x"), COUNTED, STOP],
    ),
    "usage without choices": Case(
        sse(chunk({"content": "x"}, "stop"), {"id": "c1", "usage": USAGE}), [START, TextDelta("x"), COUNTED, STOP]
    ),
    "usage that is no object": Case(
        sse(chunk({"content": "x"}, usage=3), chunk(finish="stop", usage=[])), [START, TextDelta("x"), STOP]
    ),
    # -- errors inside the stream
    "an error first": Case(sse({"error": {"message": "slow", "code": 429}}), [], RateLimitError),
    "an error after text": Case(
        sse(chunk({"content": "x"}), {"error": {"message": "boom", "type": "server_error"}}),
        [START, TextDelta("x")],
        ServerError,
    ),
    "a quota": Case(sse({"error": {"message": "no money", "code": "insufficient_quota"}}), [], QuotaExceededError),
    "openrouter's": Case(
        sse(
            chunk({"content": "x"}),
            chunk({"content": ""}, "error", error={"code": 502, "message": "Provider disconnected", "metadata": {}}),
        ),
        [START, TextDelta("x")],
        ServerError,
    ),
    "cerebras'": Case(sse({"error": {"message": "busy"}, "status_code": 529}), [], OverloadedError),
    "groq's": Case(sse(chunk({"content": "x"}), chunk(x_groq={"error": "over"})), [START, TextDelta("x")], ServerError),
    "a string": Case(sse({"error": "overloaded"}), [], OverloadedError),
    "without a wrapper": Case(sse({"object": "error", "message": "no", "type": "x", "code": 503}), [], ServerError),
    "fastapi's": Case(sse({"detail": "no"}), [], ServerError),
    "gemini's array": Case(b'[{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}]', [], OverloadedError),
    "not json": Case(sse(chunk({"content": "x"}), "Internal Server Error"), [START, TextDelta("x")], ProtocolError),
    "a number": Case(sse("42"), [], ProtocolError),
    "a web page": Case(b"<!doctype html><html>login</html>", [], ProtocolError),
    # -- odd types
    "odd types": Case(
        sse(
            '{"id":7,"model":"m","choices":[{"index":"0","delta":{"content":5,"tool_calls":[{"index":0.0,"id":9,'
            '"function":{"name":"f","arguments":"{}"}}]},"logprobs":NaN,"finish_reason":null}]}',
            chunk(finish="tool_calls"),
        ),
        [Start("7", "m"), TextDelta("5"), ToolCallDelta(0, "9", "f", "{}"), CALLED],
    ),
    "delta is null": Case(
        sse(chunk({"content": "x"}), {"id": "c1", "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}),
        [START, TextDelta("x"), STOP],
    ),
    "no index": Case(
        sse({"id": "c1", "model": "m", "choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}),
        [START, TextDelta("x"), STOP],
    ),
    "bad utf-8": Case(
        b'data: {"id":"c1","model":"m","choices":[{"delta":{"content":"a\xff"},"finish_reason":"stop"}]}\n\n',
        [START, TextDelta("a\ufffd"), STOP],
    ),
    "a whole message as one event": Case(
        b"data: " + document({"role": "assistant", "content": "x"}) + b"\n\n", [START, TextDelta("x"), STOP]
    ),
    "the whole message once more": Case(
        sse(
            chunk({"content": "x"}),
            {"id": "c1", "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]},
        ),
        [START, TextDelta("x"), STOP],
    ),
    # -- documents
    "document": Case(
        document({"role": "assistant", "content": "Hello", "refusal": None}, usage=USAGE),
        [START, TextDelta("Hello"), COUNTED, STOP],
    ),
    "document after blank lines": Case(b"\n\n\n" + document({"content": "x"}), [START, TextDelta("x"), STOP]),
    "document, indented": Case(
        json.dumps(json.loads(document({"content": "x"})), indent=2).encode() + b"\n", [START, TextDelta("x"), STOP]
    ),
    "document with everything": Case(
        document(
            {
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                ],
            },
            "tool_calls",
        ),
        [START, ReasoningDelta("hm"), ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "f", '{"x":1}'), CALLED],
    ),
    "document without a reason": Case(document({"content": "x"}, None), [START, TextDelta("x"), Finish(F.UNKNOWN, 0)]),
    "document with an error": Case(b'{"error":{"message":"busy","code":529}}', [], OverloadedError),
    "document without choices": Case(b'{"id":"c1","choices":[]}', [], ProtocolError),
    "document that is a model list": Case(b'{"object":"list","data":[]}', [], ProtocolError),
    "document cut": Case(document({"content": "x"})[:-20], [], StreamTruncated),
    "document that is not json": Case(b"{not json}", [], ProtocolError),
}
