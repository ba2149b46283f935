"""Answers as Google sends them: the body, and the events that it is. Replayed whole, byte by byte, at random splits."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from asyncinfer.errors import (
    AsyncInferError,
    AuthenticationError,
    OverloadedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
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


def chunk(*parts: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": index}
    if finish is not None:
        candidate["finishReason"] = finish
    candidate.update(more.pop("candidate", {}))
    return {"candidates": [candidate], "modelVersion": "gemini-x", "responseId": "r1", **more}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"text": words, **more}


def sse(*payloads: Any, end: bytes = b"\r\n\r\n") -> bytes:
    return b"".join(b"data: " + (p if isinstance(p, str) else json.dumps(p)).encode() + end for p in payloads)


def call(name: str, args: Any, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args, **more}}


def error(code: int, status: str, *details: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"code": code, "message": "no", "status": status}
    if details:
        body["details"] = list(details)
    return {"error": body}


def finish(reason: F, raw: str | None, index: int = 0) -> Finish:
    return Finish(reason, index, None, raw)


RPC = "type.googleapis.com/google.rpc."
START = Start("r1", "gemini-x")
STOP = finish(F.STOP, "STOP")
USAGE = {"promptTokenCount": 8, "candidatesTokenCount": 6, "thoughtsTokenCount": 14, "totalTokenCount": 28}
COUNTED = UsageUpdate(Usage(8, 20, 0, 0, 14))
HERE = {"text_at": 0, "thought_at": 0, "calls_at": 0}
SIGNED = {"google": {"thought_signature": "QUJD"}}

CASES: dict[str, Case] = {
    "text": Case(
        sse(chunk(text("Hel")), chunk(text("lo"), finish="STOP")), [START, TextDelta("Hel"), TextDelta("lo"), STOP]
    ),
    "plain line ends": Case(sse(chunk(text("x"), finish="STOP"), end=b"\n\n"), [START, TextDelta("x"), STOP]),
    "not ascii": Case(sse(chunk(text("Zoë 中🙂"), finish="STOP")), [START, TextDelta("Zoë 中🙂"), STOP]),
    "two parts": Case(sse(chunk(text("a"), text("b"), finish="STOP")), [START, TextDelta("a"), TextDelta("b"), STOP]),
    "usage on every chunk": Case(
        sse(
            chunk(text("a"), usageMetadata={"promptTokenCount": 8, "totalTokenCount": 8}),
            chunk(text("b"), usageMetadata={"promptTokenCount": 8, "totalTokenCount": 8}),
            chunk(text(""), finish="STOP", usageMetadata=USAGE),
        ),
        [START, TextDelta("a"), UsageUpdate(Usage(8, 0)), TextDelta("b"), COUNTED, STOP],
    ),
    "cached tokens and tool prompts": Case(
        sse(
            chunk(
                text("x"),
                finish="STOP",
                usageMetadata={
                    "promptTokenCount": 100,
                    "cachedContentTokenCount": 80,
                    "toolUsePromptTokenCount": 5,
                    "candidatesTokenCount": 1,
                    "totalTokenCount": 106,
                },
            )
        ),
        [START, TextDelta("x"), UsageUpdate(Usage(105, 1, 80)), STOP],
    ),
    "the reference's transcript": Case(
        sse(
            chunk(text("Planning.", thought=True), usageMetadata={"promptTokenCount": 8, "totalTokenCount": 8}),
            chunk({**call("wx", {"c": "Oslo"}), "thoughtSignature": "QUJD"}),
            chunk(text(""), finish="STOP", usageMetadata=USAGE),
        ),
        [
            START,
            ReasoningDelta("Planning."),
            UsageUpdate(Usage(8, 0)),
            ToolCallDelta(0, None, "wx", '{"c": "Oslo"}', 0, SIGNED),
            COUNTED,
            finish(F.TOOL_CALLS, "STOP"),
        ],
    ),
    "parallel calls, ids": Case(
        sse(
            chunk({**call("f", {"a": 1}, id="c1"), "thoughtSignature": "QUJD"}, call("g", {}, id="c2"), finish="STOP"),
        ),
        [
            START,
            ToolCallDelta(0, "c1", "f", '{"a": 1}', 0, SIGNED),
            ToolCallDelta(1, "c2", "g", "{}"),
            finish(F.TOOL_CALLS, "STOP"),
        ],
    ),
    "a call without arguments": Case(
        sse(chunk({"functionCall": {"name": "f"}}, finish="STOP")),
        [START, ToolCallDelta(0, None, "f", "{}"), finish(F.TOOL_CALLS, "STOP")],
    ),
    "arguments piece by piece": Case(
        sse(
            chunk({"functionCall": {"name": "f", "id": "c1", "willContinue": True}, "thoughtSignature": "QUJD"}),
            chunk(
                {
                    "functionCall": {
                        "partialArgs": [{"jsonPath": "$.city", "stringValue": "Os", "willContinue": True}],
                        "willContinue": True,
                    }
                }
            ),
            chunk(
                {
                    "functionCall": {
                        "partialArgs": [
                            {"jsonPath": "$.city", "stringValue": "lo"},
                            {"jsonPath": "$.days[1].on", "boolValue": True},
                            {"jsonPath": "$['a b']", "numberValue": 2.5},
                            {"jsonPath": "$.no", "nullValue": "NULL_VALUE"},
                        ],
                        "willContinue": True,
                    }
                }
            ),
            chunk({"functionCall": {}}),
            chunk(call("g", {}), finish="STOP"),
        ),
        [
            START,
            ToolCallDelta(0, "c1", "f", '{"city":"Oslo","days":[null,{"on":true}],"a b":2.5,"no":null}', 0, SIGNED),
            ToolCallDelta(1, None, "g", "{}"),
            finish(F.TOOL_CALLS, "STOP"),
        ],
    ),
    "a signature on the last text": Case(
        sse(chunk(text("Hello")), chunk(text(" you", thoughtSignature="QUJD"), finish="STOP")),
        [
            START,
            TextDelta("Hello"),
            TextDelta(" you"),
            ReasoningDelta(
                "", 0, [{"type": "google.text_signature", **HERE, "text_at": 5, "length": 4, "signature": "QUJD"}]
            ),
            STOP,
        ],
    ),
    "a signature on an empty text": Case(
        sse(chunk(text("Hello")), chunk(text("", thoughtSignature="QUJD"), finish="STOP")),
        [
            START,
            TextDelta("Hello"),
            ReasoningDelta(
                "", 0, [{"type": "google.text_signature", **HERE, "text_at": 5, "length": 0, "signature": "QUJD"}]
            ),
            STOP,
        ],
    ),
    "a signed thought": Case(
        sse(chunk(text("hm", thought=True, thoughtSignature="QUJD")), chunk(text("x"), finish="STOP")),
        [
            START,
            ReasoningDelta("hm", 0, [{"type": "google.thought_signature", **HERE, "length": 2, "signature": "QUJD"}]),
            TextDelta("x"),
            STOP,
        ],
    ),
    "code and its result": Case(
        sse(
            chunk(
                {"executableCode": {"language": "PYTHON", "code": "1"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                text("one"),
                finish="STOP",
            )
        ),
        [
            START,
            ReasoningDelta(
                "",
                0,
                [{"type": "google.part", **HERE, "part": {"executableCode": {"language": "PYTHON", "code": "1"}}}],
            ),
            ReasoningDelta(
                "",
                0,
                [
                    {
                        "type": "google.part",
                        **HERE,
                        "part": {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                    }
                ],
            ),
            TextDelta("one"),
            STOP,
        ],
    ),
    "sources": Case(
        sse(chunk(text("x"), finish="STOP", candidate={"groundingMetadata": {"webSearchQueries": ["q"]}})),
        [
            START,
            TextDelta("x"),
            ReasoningDelta("", 0, [{"type": "google.metadata", "groundingMetadata": {"webSearchQueries": ["q"]}}]),
            STOP,
        ],
    ),
    "to be continued": Case(
        sse(chunk(text("x"), finish="CONTINUATION", candidate={"continuationToken": "dG9r"})),
        [
            START,
            TextDelta("x"),
            ReasoningDelta("", 0, [{"type": "google.metadata", "continuationToken": "dG9r"}]),
            finish(F.CONTINUATION, "CONTINUATION"),
        ],
    ),
    "logprobs": Case(
        sse(
            chunk(
                text("a"),
                finish="STOP",
                candidate={
                    "logprobsResult": {
                        "chosenCandidates": [{"token": "a", "tokenId": 7, "logProbability": -0.1}],
                        "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2}]}],
                    }
                },
            )
        ),
        [
            START,
            TextDelta("a", 0, [{"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "b", "logprob": -2}]}]),
            STOP,
        ],
    ),
    "two candidates": Case(
        sse(
            {
                **chunk(text("a")),
                "candidates": [*chunk(text("a"))["candidates"], *chunk(text("b"), index=1)["candidates"]],
            },
            chunk(text("c"), finish="STOP", index=1),
            chunk(text("d"), finish="MAX_TOKENS"),
        ),
        [
            START,
            TextDelta("a"),
            TextDelta("b", 1),
            TextDelta("c", 1),
            TextDelta("d"),
            finish(F.LENGTH, "MAX_TOKENS"),
            finish(F.STOP, "STOP", 1),
        ],
        choices=2,
    ),
    **{
        f"finish reason {raw}": Case(sse(chunk(text("x"), finish=raw)), [START, TextDelta("x"), finish(reason, raw)])
        for raw, reason in {
            "MAX_TOKENS": F.LENGTH,
            "SAFETY": F.CONTENT_FILTER,
            "RECITATION": F.CONTENT_FILTER,
            "BLOCKLIST": F.CONTENT_FILTER,
            "PROHIBITED_CONTENT": F.CONTENT_FILTER,
            "SPII": F.CONTENT_FILTER,
            "IMAGE_SAFETY": F.CONTENT_FILTER,
            "IMAGE_PROHIBITED_CONTENT": F.CONTENT_FILTER,
            "IMAGE_RECITATION": F.CONTENT_FILTER,
            "MODEL_ARMOR": F.CONTENT_FILTER,
            "MALFORMED_FUNCTION_CALL": F.ERROR,
            "UNEXPECTED_TOOL_CALL": F.ERROR,
            "TOO_MANY_TOOL_CALLS": F.ERROR,
            "MISSING_THOUGHT_SIGNATURE": F.ERROR,
            "MALFORMED_RESPONSE": F.ERROR,
            "LANGUAGE": F.UNKNOWN,
            "OTHER": F.UNKNOWN,
            "IMAGE_OTHER": F.UNKNOWN,
            "NO_IMAGE": F.UNKNOWN,
            "ESCALATION": F.UNKNOWN,
            "PUP_LIMITED_DISABLED": F.UNKNOWN,
            "FINISH_REASON_UNSPECIFIED": F.UNKNOWN,
        }.items()
    },
    "no content at all": Case(
        sse({"candidates": [{"finishReason": "SAFETY", "index": 0}], "modelVersion": "gemini-x", "responseId": "r1"}),
        [START, finish(F.CONTENT_FILTER, "SAFETY")],
    ),
    "a refused prompt": Case(
        sse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": "gemini-x", "responseId": "r1"}),
        [START, finish(F.CONTENT_FILTER, "PROHIBITED_CONTENT")],
    ),
    "a prompt that was looked at": Case(
        sse({**chunk(text("x"), finish="STOP"), "promptFeedback": {"safetyRatings": []}}),
        [START, TextDelta("x"), STOP],
    ),
    # -- the end
    "no last blank line": Case(
        sse(chunk(text("x"))) + b"data: " + json.dumps(chunk(text("y"), finish="STOP")).encode(),
        [START, TextDelta("x"), TextDelta("y"), STOP],
    ),
    "done from a proxy": Case(sse(chunk(text("x"), finish="STOP"), "[DONE]"), [START, TextDelta("x"), STOP]),
    "cut": Case(sse(chunk(text("x"))), [START, TextDelta("x")], StreamTruncated),
    "cut inside a chunk": Case(
        sse(chunk(text("x"))) + b'data: {"candidates": [{"con', [START, TextDelta("x")], StreamTruncated
    ),
    "nothing": Case(b"", [], StreamTruncated),
    "one candidate cut": Case(
        sse(chunk(text("a"), finish="STOP"), chunk(text("b"), index=1)),
        [START, TextDelta("a"), TextDelta("b", 1)],
        StreamTruncated,
        choices=2,
    ),
    # -- errors
    "a bare error in the stream": Case(
        sse(chunk(text("x"))) + json.dumps(error(503, "UNAVAILABLE"), indent=2).encode() + b"\n",
        [START, TextDelta("x")],
        OverloadedError,
    ),
    "a bare error on one line, no line end": Case(
        sse(chunk(text("x"))) + json.dumps(error(429, "RESOURCE_EXHAUSTED")).encode(),
        [START, TextDelta("x")],
        RateLimitError,
    ),
    "a bare error with braces in its text": Case(
        sse(chunk(text("x")))
        + json.dumps({"error": {"code": 429, "message": "}{{", "status": "RESOURCE_EXHAUSTED"}}, indent=1).encode(),
        [START, TextDelta("x")],
        RateLimitError,
    ),
    "an error as an event": Case(
        sse(chunk(text("x")), error(503, "UNAVAILABLE")), [START, TextDelta("x")], OverloadedError
    ),
    "an error instead of an answer": Case(
        json.dumps(error(429, "RESOURCE_EXHAUSTED"), indent=2).encode(), [], RateLimitError
    ),
    "an error in an array": Case(
        b"[" + json.dumps(error(503, "UNAVAILABLE"), indent=2).encode() + b"\n]\n", [], OverloadedError
    ),
    "a daily quota": Case(
        sse(
            error(
                429,
                "RESOURCE_EXHAUSTED",
                {"@type": RPC + "QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]},
            )
        ),
        [],
        QuotaExceededError,
    ),
    "a refused key": Case(
        sse(error(400, "INVALID_ARGUMENT", {"@type": RPC + "ErrorInfo", "reason": "API_KEY_INVALID"})),
        [],
        AuthenticationError,
    ),
    "not json": Case(sse(chunk(text("x")), "{not json}"), [START, TextDelta("x")], ProtocolError),
    "a web page": Case(b"<!doctype html><html></html>", [], ProtocolError),
    # -- odd types
    "odd types": Case(
        sse(
            '{"candidates":[{"content":{"parts":[{"text":5},7,{"functionCall":{"name":"f","args":[1]}}]},"index":"0",'
            '"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":"3","candidatesTokenCount":1.0},'
            '"responseId":"r1","modelVersion":"gemini-x"}'
        ),
        [
            START,
            TextDelta("5"),
            ToolCallDelta(0, None, "f", "{}"),
            UsageUpdate(Usage(3, 1)),
            finish(F.TOOL_CALLS, "STOP"),
        ],
    ),
    "no index": Case(
        sse({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}], "responseId": "r1"}),
        [Start("r1", ""), TextDelta("x"), STOP],
    ),
    # -- documents
    "document": Case(
        json.dumps(chunk(text("Hello"), finish="STOP", usageMetadata=USAGE), indent=2).encode(),
        [START, TextDelta("Hello"), COUNTED, STOP],
    ),
    "document without a reason": Case(
        json.dumps(chunk(text("x"))).encode(), [START, TextDelta("x"), finish(F.UNKNOWN, None)]
    ),
    "document, refused": Case(b'{"promptFeedback":{"blockReason":"SAFETY"}}', [finish(F.CONTENT_FILTER, "SAFETY")]),
    "document cut": Case(json.dumps(chunk(text("x"), finish="STOP")).encode()[:-20], [], StreamTruncated),
    "document without candidates": Case(b'{"usageMetadata":{}}', [], ProtocolError),
    "array of chunks": Case(
        b"["
        + json.dumps(chunk(text("a"))).encode()
        + b",\r\n"
        + json.dumps(chunk(text("b"), finish="STOP")).encode()
        + b"\r\n]",
        [START, TextDelta("a"), TextDelta("b"), STOP],
    ),
    "array cut after a chunk": Case(
        b"[" + json.dumps(chunk(text("a"))).encode() + b"]", [START, TextDelta("a")], StreamTruncated
    ),
}
