"""Answers of SGLang's ``/generate`` and the events that they are, replayed whole, byte by byte and at random splits."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from asyncinfer.errors import (
    AsyncInferError,
    BadRequestError,
    OverloadedError,
    ProtocolError,
    ServerError,
    StreamTruncated,
)
from asyncinfer.events import Event, Finish, FinishReason, Start, TextDelta, Usage, UsageUpdate

F = FinishReason


@dataclass
class Case:
    body: bytes
    events: list[Event] = field(default_factory=list)
    raises: type[AsyncInferError] | None = None
    choices: int = 1
    stops: tuple[str, ...] = ()


def part(text: str, ids: list[int] | None, finish: Any = None, index: int | None = None, **meta: Any) -> dict[str, Any]:
    """One event. ``ids`` None: an older server that sends none."""
    count = meta.pop("count", len(ids or ()))
    value: dict[str, Any] = {"text": text}
    if ids is not None:
        value["output_ids"] = ids
    value["meta_info"] = {
        "id": "r1",
        "finish_reason": finish,
        "prompt_tokens": 5,
        "completion_tokens": count,
        "cached_tokens": 2,
        "weight_version": "default",
        **meta,
    }
    if index is not None:
        value["index"] = index
    return value


def sse(*payloads: Any, done: bool = True) -> bytes:
    lines = [json.dumps(payload) for payload in payloads] + (["[DONE]"] if done else [])
    return b"".join(b"data: " + line.encode() + b"\n\n" for line in lines)


def stop(matched: Any = None) -> dict[str, Any]:
    return {"type": "stop", "matched": matched}


LENGTH = {"type": "length", "length": 3}
START = Start("r1", "m")


def counted(output: int, prompt: int = 5, cached: int = 2, reasoning: int = 0) -> UsageUpdate:
    return UsageUpdate(Usage(prompt, output, cached, 0, reasoning))


def abort(status: int | None, message: str = "queue is full", kind: str | None = None) -> dict[str, Any]:
    return {"type": "abort", "message": message, "status_code": status, "err_type": kind}


EOS = Finish(F.STOP, 0, 128009, "stop")
CUT = Finish(F.LENGTH, 0, None, "length")
AT_END = Finish(F.STOP, 0, "END", "stop")


def prob(text: str, token: int, logprob: float = -0.5, top: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"token": text, "logprob": logprob, "bytes": list(text.encode()), "token_id": token}
    return entry if top is None else {**entry, "top_logprobs": top}


CASES: dict[str, Case] = {
    "text so far, each time": Case(
        sse(part(" Par", [1]), part(" Paris.", [1, 2, 3], stop(128009))),
        [START, TextDelta(" Par"), TextDelta("is."), counted(3), EOS],
    ),
    "only what is new": Case(
        sse(part("a", [1]), part("b", [2], count=2), part("c", [3], LENGTH, count=3)),
        [START, TextDelta("a"), TextDelta("b"), TextDelta("c"), counted(3), CUT],
    ),
    "only what is new, and it is the same": Case(
        sse(part("ha", [1]), part("ha", [1], count=2), part("ha", [1], LENGTH, count=3)),
        [START, TextDelta("ha"), TextDelta("ha"), TextDelta("ha"), counted(3), CUT],
    ),
    "only what is new, and it begins the same": Case(
        sse(part("ha", [1]), part("hat", [1, 4], count=3), part("", [], LENGTH, count=3)),
        [START, TextDelta("ha"), TextDelta("t"), counted(3), CUT],
    ),
    "tokens without text": Case(
        sse(part("", [1]), part("", [1, 2]), part("é", [1, 2, 3]), part("é", [1, 2, 3, 4], stop(128009))),
        [START, TextDelta("é"), counted(4), EOS],
    ),
    "an older server, text so far": Case(
        sse(part("a", None, count=1), part("a", None, count=2), part("ab", None, stop(128009), count=3)),
        [START, TextDelta("a"), TextDelta("b"), counted(3), EOS],
    ),
    "an older server, only what is new": Case(
        sse(part("a", None, count=1), part("a", None, count=2), part("b", None, LENGTH, count=3)),
        [START, TextDelta("a"), TextDelta("ab"), counted(3), CUT],
    ),
    "an older server's bare word": Case(
        sse(part("a", None, "length", count=1)), [START, TextDelta("a"), counted(1), CUT]
    ),
    "one event": Case(
        sse(part("Hi", [1, 2], stop())), [START, TextDelta("Hi"), counted(2), Finish(F.STOP, 0, None, "stop")]
    ),
    "nothing but an end": Case(sse(part("", [9], stop(9))), [START, counted(1), Finish(F.STOP, 0, 9, "stop")]),
    "not ascii": Case(
        sse(part("Zoë", [1]), part("Zoë 🙂", [1, 2], LENGTH)),
        [START, TextDelta("Zoë"), TextDelta(" 🙂"), counted(2), CUT],
    ),
    "half a character": Case(sse(part("a\ud83d", [1], LENGTH)), [START, TextDelta("a\ufffd"), counted(1), CUT]),
    "reasoning counted": Case(
        sse(part("x", [1], LENGTH, reasoning_tokens=1)), [START, TextDelta("x"), counted(1, reasoning=1), CUT]
    ),
    # -- stop strings
    "a stop string that was cut off": Case(
        sse(part("ha", [1]), part("ha E", [1, 2]), part("ha EN", [1, 2, 3]), part("ha ", [1, 2, 3, 4], stop("END"))),
        [START, TextDelta("ha"), TextDelta(" "), counted(4), AT_END],
        stops=("END",),
    ),
    "what looked like a stop string": Case(
        sse(part("E", [1]), part("EN", [1, 2]), part("ENOUGH", [1, 2, 3]), part("ENOUGH", [1, 2, 3, 9], stop(9))),
        [START, TextDelta("ENOUGH"), counted(4), Finish(F.STOP, 0, 9, "stop")],
        stops=("END",),
    ),
    "a stop string's beginning at the end": Case(
        sse(part("a", [1]), part("a EN", [1, 2]), part("a EN", [1, 2, 9], stop(9))),
        [START, TextDelta("a"), TextDelta(" "), TextDelta("EN"), counted(3), Finish(F.STOP, 0, 9, "stop")],
        stops=("END",),
    ),
    "a stop string that was left in": Case(
        sse(part("a", [1]), part("a END", [1, 2], stop("END"))),
        [START, TextDelta("a"), TextDelta(" END"), counted(2), AT_END],
        stops=("END",),
    ),
    "a stop string, only what is new": Case(
        sse(part("a", [1]), part(" E", [2], count=2), part("", [3], stop("END"), count=3)),
        [START, TextDelta("a"), TextDelta(" "), counted(3), AT_END],
        stops=("END",),
    ),
    "what looked like a stop string, only what is new": Case(
        sse(part("a", [1]), part(" E", [2], count=2), part("", [9], stop(9), count=3)),
        [START, TextDelta("a"), TextDelta(" "), TextDelta("E"), counted(3), Finish(F.STOP, 0, 9, "stop")],
        stops=("END",),
    ),
    # -- log probabilities
    "log probabilities so far": Case(
        sse(
            part(
                "a", [1], output_token_logprobs=[[-0.5, 1, "a"]], output_top_logprobs=[[[-0.5, 1, "a"], [-2.0, 7, "z"]]]
            ),
            part(
                "ab",
                [1, 2],
                LENGTH,
                output_token_logprobs=[[-0.5, 1, "a"], [-0.25, 2, None]],
                output_top_logprobs=[[[-0.5, 1, "a"], [-2.0, 7, "z"]], None],
            ),
        ),
        [
            START,
            TextDelta("a", 0, [prob("a", 1, top=[prob("a", 1), prob("z", 7, -2.0)])]),
            TextDelta("b", 0, [prob("", 2, -0.25, top=[])]),
            counted(2),
            CUT,
        ],
    ),
    "log probabilities, only what is new": Case(
        sse(
            part("a", [1], output_token_logprobs=[[-0.5, 1, "a"]]),
            part("b", [2], LENGTH, count=2, output_token_logprobs=[[-0.5, 2, "b"]]),
        ),
        [
            START,
            TextDelta("a", 0, [prob("a", 1, top=[])]),
            TextDelta("b", 0, [prob("b", 2, top=[])]),
            counted(2),
            CUT,
        ],
    ),
    # -- several answers
    "two answers": Case(
        sse(
            part("a", [1], index=0),
            part("x", [2], index=1),
            part("xy", [2, 3], LENGTH, index=1),
            part("ab", [1, 4], stop(128009), index=0),
        ),
        [
            START,
            TextDelta("a"),
            TextDelta("x", 1),
            TextDelta("y", 1),
            TextDelta("b"),
            counted(4),
            EOS,
            Finish(F.LENGTH, 1, None, "length"),
        ],
        choices=2,
    ),
    "one of two answers": Case(
        sse(part("a", [1], LENGTH, index=0), done=False), [START, TextDelta("a")], StreamTruncated, choices=2
    ),
    # -- ends
    "finish, then the end": Case(sse(part("x", [1], LENGTH), done=False), [START, TextDelta("x"), counted(1), CUT]),
    "no last blank line": Case(sse(part("x", [1], LENGTH), done=False)[:-2], [START, TextDelta("x"), counted(1), CUT]),
    "done without a reason": Case(sse(part("x", [1])), [START, TextDelta("x"), counted(1), Finish(F.UNKNOWN, 0)]),
    "done without a reason, and something held back": Case(
        sse(part("x E", [1])),
        [START, TextDelta("x "), counted(1), TextDelta("E"), Finish(F.UNKNOWN, 0)],
        stops=("END",),
    ),
    "aborted": Case(
        sse(part("x", [1], abort(None))), [START, TextDelta("x"), counted(1), Finish(F.ABORT, 0, None, "abort")]
    ),
    "another reason": Case(
        sse(part("x", [1], {"type": "boredom"})),
        [START, TextDelta("x"), counted(1), Finish(F.UNKNOWN, 0, None, "boredom")],
    ),
    # -- failures
    "cut": Case(sse(part("x", [1]), done=False), [START, TextDelta("x")], StreamTruncated),
    "cut inside an event": Case(
        sse(part("x", [1]), done=False) + b'data: {"text":"xy","meta', [START, TextDelta("x")], StreamTruncated
    ),
    "nothing at all": Case(b"", [], StreamTruncated),
    "only done": Case(sse(), [], StreamTruncated),
    "an error, wrapped": Case(
        sse({"error": {"message": "too long", "type": "invalid_request_error", "code": 400, "retryable": False}}),
        [],
        BadRequestError,
    ),
    "an error after text": Case(
        sse(part("x", [1]), {"error": {"message": "boom", "code": 500}}), [START, TextDelta("x")], ServerError
    ),
    "an error, flat": Case(sse({"object": "error", "message": "no", "type": "x", "code": 503}), [], ServerError),
    "an abort with a status": Case(
        sse(part("x", [1]), part("xy", [1, 2], abort(503, kind="overloaded"))),
        [START, TextDelta("x"), TextDelta("y")],
        OverloadedError,
    ),
    "an abort by our fault": Case(sse(part("", [], abort(400, "bad regex"))), [START], BadRequestError),
    "another format": Case(sse({"choices": []}), [], ProtocolError),
    "a number": Case(sse(42), [], ProtocolError),
    "not json": Case(b"data: {oops\n\n", [], ProtocolError),
    "a web page": Case(b"<html>", [], ProtocolError),
    # -- documents
    "a document": Case(
        json.dumps(part("Hi there", [1, 2], stop(128009), e2e_latency=0.1)).encode(),
        [START, TextDelta("Hi there"), counted(2), EOS],
    ),
    "a document of two": Case(
        json.dumps([part("a", [1], stop(128009)), part("b", [2], LENGTH)]).encode(),
        [START, TextDelta("a"), TextDelta("b", 1), counted(2), EOS, Finish(F.LENGTH, 1, None, "length")],
        choices=2,
    ),
    "a document that is an error": Case(b'{"error":{"message":"queue is full","code":503}}', [], ServerError),
    "an empty document": Case(b"[]", [], ProtocolError),
    "half a document": Case(json.dumps(part("Hi", [1], LENGTH)).encode()[:-4], [], StreamTruncated),
}
