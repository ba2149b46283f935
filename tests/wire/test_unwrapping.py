"""Texts that travel in an object, and answers that come as a call: plain again, however they are cut."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import AsyncInferError, StreamTruncated
from asyncinfer.events import Event, Finish, FinishReason, ReasoningDelta, Start, TextDelta, ToolCallDelta
from asyncinfer.params import GuidedDecodingParams
from asyncinfer.providers import PROVIDERS
from asyncinfer.request import Request
from asyncinfer.wire import codec
from asyncinfer.wire.bedrock import ConverseDecoder, answers_by_call
from asyncinfer.wire.bedrock.rows import ConverseRows
from asyncinfer.wire.unwrapping import Unwrapper, filters_for, unwrapped
from asyncinfer.wire.wrapping import anchored, as_sent, is_wrapped
from tests.servers import bedrock_bytes as bedrock

from .answers import chunk, document, sse
from .anthropic import cases as anthropic
from .requests import make_request

F = FinishReason
OLD = "claude-3-7-sonnet-latest"
OLD_ON_BEDROCK = "us.anthropic.claude-3-7-sonnet-20250219-v1:0"
CHOICE = {"choice": ["yes", "no"]}
spaces = st.text(" \t\n\r", max_size=3)


@st.composite
def objects(draw: Any) -> tuple[str, str]:
    """A text, and an object that holds it, spelled in one of the ways of JSON."""
    text = draw(st.text(max_size=30) | st.sampled_from(["", '"', "\\", '{"answer": "x"}', "a🙂b\n\t/", "\ufffd", "é"]))
    written = json.dumps(text, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        written = re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), written).replace("/", "\\/")
    gaps = [draw(spaces) for _ in range(6)]
    return text, f'{gaps[0]}{{{gaps[1]}"answer"{gaps[2]}:{gaps[3]}{written}{gaps[4]}}}{gaps[5]}'


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(at)]


def unwrap(pieces: list[str], *, ended: bool = True) -> tuple[str, bool]:
    unwrapper = Unwrapper()
    shown = [unwrapper.feed(piece) for piece in pieces]
    for piece in shown:
        piece.encode()  # never half a surrogate pair
    rest, whole = unwrapper.close(ended=ended)
    return "".join(shown) + rest, whole


@given(objects(), st.lists(st.integers(0, 300), max_size=8))
@settings(max_examples=500, deadline=None)
def test_the_string_comes_out_however_it_is_spelled_and_cut(both: tuple[str, str], places: list[int]) -> None:
    text, written = both
    assert unwrap([written]) == (text, True)
    assert unwrap(list(written)) == (text, True)
    assert unwrap(cut(written, places)) == (text, True)


@given(objects(), st.integers(0, 300))
@settings(max_examples=500, deadline=None)
def test_what_is_shown_is_always_a_beginning(both: tuple[str, str], place: int) -> None:
    text, written = both
    place %= len(written) + 1
    unwrapper = Unwrapper()
    shown = "".join(map(unwrapper.feed, written[:place]))
    assert text.startswith(shown)
    rest, whole = unwrapper.close(ended=False)
    assert rest in {"", "\ufffd"}  # a character whose second half never came
    begins, ends = written.index('"', written.index(":")) + 1, written.rindex('"')
    assert whole is not (begins <= place <= ends)


@given(st.text(max_size=40), st.lists(st.integers(0, 60), max_size=6))
@settings(max_examples=500, deadline=None)
def test_text_that_is_no_such_object_passes(text: str, places: list[int]) -> None:
    if not text.lstrip().startswith('{"'):
        assert unwrap(cut(text, places)) == (text, True)


@pytest.mark.parametrize(
    ("written", "shown", "whole"),
    [
        ("yes", "yes", True),
        ('{"result": "yes"}', '{"result": "yes"}', True),
        ('{"answer": 7}', '{"answer": 7}', True),
        ('["answer"]', '["answer"]', True),
        ('{"an swer": "x"}', '{"an swer": "x"}', True),
        ("{", "{", True),
        (" \n", " \n", True),
        ("", "", True),
        ('{"answer": "yes", "why": "so"}', 'yes, "why": "so"}', True),
        ('{"answer": "yes"}} ', "yes} ", True),
        ('{"answer": "yes"} Indeed', "yesIndeed", True),
        ('{"answer": "yes"', "yes", True),
        ('{"answer": "yes', "yes", False),
        ('{"answer": "', "", False),
        (r'{"answer": "\d\x"}', r"\d\x", True),  # what JSON does not know is left as it was written
        (r'{"answer": "\u12g4"}', r"\u12g4", True),
        ('{"answer": "a\nb"}', "a\nb", True),
        (r'{"answer": "\ud83dx\ude00"}', "\ufffdx\ufffd", True),
        (r'{"answer": "x\ud83d"}', "x\ufffd", True),
    ],
)
def test_odd_objects(written: str, shown: str, whole: bool) -> None:
    assert unwrap([written]) == (shown, whole)
    assert unwrap(list(written)) == (shown, whole)


def test_the_work_is_linear() -> None:
    """Every character is looked at once: ten times the text, ten times the steps."""
    import sys

    def steps(size: int) -> int:
        counted = 0

        def count(*_: Any) -> None:
            nonlocal counted
            counted += 1

        pieces = ['{"answer": "', *(r"a\u00e9" for _ in range(size)), '"}']
        sys.setprofile(count)
        try:
            text, whole = unwrap(pieces)
        finally:
            sys.setprofile(None)
        assert (text, whole) == ("aé" * size, True)
        return counted

    assert steps(1000) < 11 * steps(100)


@pytest.mark.parametrize(
    ("pattern", "sent"),
    [
        ("a+", "^a+$"),
        ("^a+$", "^a+$"),
        ("^a", "^a$"),
        (r"a\$", r"^a\$$"),
        (r"a\\$", r"^a\\$"),
        ("a|b", "^(a|b)$"),
        ("^a|b$", "^(^a|b$)$"),
        ("(a|b)", "^(a|b)$"),
        ("^(a|b)$", "^(a|b)$"),
        ("[|]", "^[|]$"),
        (r"[\]|]|x", r"^([\]|]|x)$"),
        (r"\|", r"^\|$"),
        (r"\(|\)", r"^(\(|\))$"),
    ],
)
def test_expressions_are_anchored_once(pattern: str, sent: str) -> None:
    assert anchored(pattern) == sent
    for text in ("a", "aa", "b", "ab", "a$", "a\\", "|", "]", "x", "xx", "(", ")"):
        assert bool(re.fullmatch(pattern, text)) == bool(re.search(sent, text))


# -- through every format ----------------------------------------------------------------------------------------------

WRAPPED = '{"answer": "y\\u0065s \\ud83d\\ude42 \\"so\\""}'
PLAIN = 'yes 🙂 "so"'
PIECES = [WRAPPED[:5], WRAPPED[5:13], *WRAPPED[13:-6], WRAPPED[-6:]]


def chat(pieces: list[str], finish: str = "stop", index: int = 0) -> list[dict[str, Any]]:
    return [*(chunk({"content": piece}, index=index) for piece in pieces), chunk(finish=finish, index=index)]


def responses(pieces: list[str]) -> bytes:
    at = {"output_index": 0, "item_id": "m"}
    message = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "".join(pieces)}]}
    ended = {"id": "r", "model": "m", "status": "completed", "output": [message]}
    events = [
        {"type": "response.created", "response": {"id": "r", "model": "m"}},
        {"type": "response.output_item.added", **at, "item": {"type": "message", "id": "m", "content": []}},
        *({"type": "response.output_text.delta", **at, "content_index": 0, "delta": piece} for piece in pieces),
        {"type": "response.output_item.done", **at, "item": message},
        {"type": "response.completed", "response": ended},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def gemini(pieces: list[str]) -> bytes:
    rows: list[dict[str, Any]] = [
        {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": piece}]}}]} for piece in pieces
    ]
    rows[-1]["candidates"][0]["finishReason"] = "STOP"
    return b"".join(b"data: " + json.dumps(row).encode() + b"\r\n\r\n" for row in rows)


def converse(pieces: list[str], *, called: bool = False) -> bytes:
    if not called:
        return bedrock.words(*pieces)
    start = {"toolUse": {"toolUseId": "t", "name": "answer"}}
    return (
        bedrock.begin()
        + bedrock.event("contentBlockStart", contentBlockIndex=0, start=start)
        + b"".join(
            bedrock.event("contentBlockDelta", contentBlockIndex=0, delta={"toolUse": {"input": piece}})
            for piece in pieces
        )
        + bedrock.event("contentBlockStop", contentBlockIndex=0)
        + bedrock.finish("tool_use")
    )


def converse_document(*, called: bool = False) -> bytes:
    call = {"toolUse": {"toolUseId": "t", "name": "answer", "input": json.loads(WRAPPED)}}
    message = {"role": "assistant", "content": [call if called else {"text": WRAPPED}]}
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    reason = "tool_use" if called else "end_turn"
    return json.dumps({"output": {"message": message}, "stopReason": reason, "usage": usage}).encode()


def messages(pieces: list[str], *, called: bool = False) -> bytes:
    if not called:
        return anthropic.sse(anthropic.head(), *anthropic.text(0, *pieces), *anthropic.over())
    return anthropic.sse(anthropic.head(), *anthropic.tool(0, "t", "answer", *pieces), *anthropic.over("tool_use"))


@dataclass
class Way:
    """A format, a model, and an answer in the form in which it comes."""

    row: str
    body: bytes
    model: str = "m"
    shape: str = "choice"

    def request(self) -> Request:
        shape = {"choice": ["x", "y"]} if self.shape == "choice" else {"regex": "a+"}
        return make_request(model=self.model, guided_decoding=GuidedDecodingParams(**shape))

    def read(self, chunks: list[bytes]) -> list[Event]:
        request, dialect = self.request(), PROVIDERS[self.row].dialect
        assert is_wrapped(request, dialect)
        if self.row != "bedrock":
            decoder = codec(PROVIDERS[self.row].codec).decoder(request, dialect, "")
        elif self.body.startswith(b"{"):
            decoder = ConverseRows().decoder(request, dialect, "")
        else:
            decoder = unwrapped(ConverseDecoder("m"), request, dialect, called=answers_by_call(request))
        events: list[Event] = []
        for piece in chunks:
            events += decoder.feed(piece)
        while more := decoder.close():
            events += more
        assert decoder.close() == []
        return events


WAYS = {
    "chat": Way("openai", sse(*chat(PIECES))),
    "chat, a document": Way("openai", document({"content": WRAPPED})),
    "chat, an expression": Way("remote", sse(*chat(PIECES)), shape="regex"),
    "responses": Way("openai_responses", responses(PIECES)),
    "gemini": Way("gemini", gemini(PIECES), shape="regex"),
    "messages": Way("anthropic", messages(PIECES), "claude-sonnet-4-5"),
    "messages, called": Way("anthropic", messages(PIECES, called=True), OLD),
    "messages on vertex, called": Way("google_vertex_anthropic", messages(PIECES, called=True), OLD),
    "converse": Way("bedrock", converse(PIECES)),
    "converse, a document": Way("bedrock", converse_document()),
    "converse, called": Way("bedrock", converse(PIECES, called=True), OLD_ON_BEDROCK),
    "converse, a document, called": Way("bedrock", converse_document(called=True), OLD_ON_BEDROCK),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_format_shows_the_plain_text(name: str) -> None:
    way = WAYS[name]
    events = way.read([way.body])
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == PLAIN
    assert not any(isinstance(event, ToolCallDelta) for event in events)
    (finish,) = (event for event in events if isinstance(event, Finish))
    assert finish.reason is F.STOP
    assert way.read([way.body[at : at + 1] for at in range(len(way.body))]) == events
    for size in (2, 3, 7, 64):
        assert way.read([way.body[at : at + size] for at in range(0, len(way.body), size)]) == events


@given(st.sampled_from(sorted(WAYS)), st.lists(st.integers(0, 3000), max_size=6))
@settings(max_examples=200, deadline=None)
def test_random_splits(name: str, places: list[int]) -> None:
    way = WAYS[name]
    at = sorted({0, len(way.body), *(place % (len(way.body) + 1) for place in places)})
    assert way.read([way.body[a:b] for a, b in pairwise(at)]) == way.read([way.body])


@given(st.sampled_from(sorted(WAYS)), st.integers(0, 3000))
@settings(max_examples=200, deadline=None)
def test_a_cut_answer_never_looks_finished(name: str, place: int) -> None:
    way = WAYS[name]
    try:
        events = way.read([way.body[: place % (len(way.body) + 1)]])
    except AsyncInferError:
        return
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == PLAIN


def test_a_signature_at_the_end_stays_there_though_the_text_is_shorter() -> None:
    way = WAYS["gemini"]
    signed = {
        "candidates": [{"content": {"parts": [{"text": "", "thoughtSignature": "c2ln"}]}, "finishReason": "STOP"}]
    }
    body = way.body.replace(b', "finishReason": "STOP"', b"") + b"data: " + json.dumps(signed).encode() + b"\r\n\r\n"
    events = Way("gemini", body, shape="regex").read([body])
    details = [part for event in events if isinstance(event, ReasoningDelta) for part in event.details]
    turn = {"role": "assistant", "content": PLAIN, "reasoning_details": details}
    request = make_request([{"role": "user", "content": "?"}, turn, {"role": "user", "content": "!"}])
    sent = json.loads(codec("gemini").encode(request, PROVIDERS["gemini"].dialect).body)["contents"][1]["parts"]
    assert sent == [{"text": PLAIN}, {"text": "", "thoughtSignature": "c2ln"}]


def read_chat(*rows: dict[str, Any], **more: Any) -> list[Event]:
    request = make_request(guided_decoding=GuidedDecodingParams(**CHOICE), **more)
    decoder = codec("openai_chat").decoder(request, PROVIDERS["openai"].dialect, "")
    events = decoder.feed(sse(*rows))
    assert decoder.done
    while tail := decoder.close():
        events += tail
    return events


def test_choices_are_told_apart() -> None:
    first, second = chat(['{"ans', 'wer":"ye', 's"}']), chat(["{", '"answer": "n', 'o"', "}"], index=1)
    mixed = [row for pair in zip(second, [*first, {}], strict=True) for row in pair if row]
    events = read_chat(*mixed, n=2)
    texts = ["".join(e.text for e in events if isinstance(e, TextDelta) and e.index == index) for index in (0, 1)]
    assert texts == ["yes", "no"]
    assert sorted(e.index for e in events if isinstance(e, Finish)) == [0, 1]


@pytest.mark.parametrize(
    ("pieces", "finish", "text", "reason"),
    [
        (['{"answer": "ye'], "stop", "ye", F.ERROR),  # a string without its end is no answer, whatever is claimed
        (['{"answer": "ye'], "length", "ye", F.LENGTH),
        (['{"ans'], "length", "", F.LENGTH),
        (["ye"], "length", "ye", F.LENGTH),
        (["yes"], "stop", "yes", F.STOP),
        (["{"], "stop", "{", F.STOP),
        (["I cannot help with that."], "content_filter", "I cannot help with that.", F.CONTENT_FILTER),
    ],
)
def test_the_end_is_honest(pieces: list[str], finish: str, text: str, reason: FinishReason) -> None:
    events = read_chat(*chat(pieces, finish))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == text
    assert events[-1] == Finish(reason, 0, None, finish)


def test_errors_after_the_last_words_are_not_lost() -> None:
    request = make_request(guided_decoding=GuidedDecodingParams(**CHOICE))
    decoder = codec("openai_chat").decoder(request, PROVIDERS["openai"].dialect, "")
    assert decoder.feed(sse(chunk({"content": '{"an'}), done=False)) == [Start("c1", "m")]
    assert not decoder.complete
    with pytest.raises(StreamTruncated):
        decoder.close()


def test_probabilities_stay_with_what_is_shown() -> None:
    def row(text: str) -> dict[str, Any]:
        return chunk({"content": text}, choice={"logprobs": {"content": [{"token": text}]}})

    events = read_chat(row('{"'), row("answer"), row('":"'), row("yes"), row('"}'), chunk(finish="stop"), logprobs=True)
    assert [e.logprobs for e in events if isinstance(e, TextDelta)] == [[{"token": "yes"}]]


def test_calls_of_other_tools_stay_calls_and_nothing_of_ours_is_kept() -> None:
    request = make_request(model=OLD, guided_decoding=GuidedDecodingParams(json={"type": "object"}))
    (called,) = filters_for(request, PROVIDERS["anthropic"].dialect, called=True)
    other = ToolCallDelta(0, "a", "look")
    assert called([other, Finish(F.TOOL_CALLS)]) == [other, Finish(F.TOOL_CALLS)]
    (called,) = filters_for(request, PROVIDERS["anthropic"].dialect, called=True)
    kept = ReasoningDelta("", 0, [{"type": "tool_use", "name": "answer"}, {"type": "text", "text": "x"}])
    assert called([ToolCallDelta(0, "a", "answer"), kept, Finish(F.TOOL_CALLS, 0, None, "tool_use")]) == [
        ReasoningDelta("", 0, [{"type": "text", "text": "x"}]),
        TextDelta("{}"),
        Finish(F.STOP, 0, None, "tool_use"),
    ]
    (called,) = filters_for(request, PROVIDERS["anthropic"].dialect, called=True)
    assert called([ToolCallDelta(0, "a", "answer", '{"x'), Finish(F.LENGTH)]) == [TextDelta('{"x'), Finish(F.LENGTH)]


def test_what_a_provider_does_not_enforce_is_named() -> None:
    for row, shape, named in (
        ("openai", {"regex": "a"}, []),
        ("bedrock", {"choice": ["a"]}, []),
        ("bedrock", {"regex": "a"}, ["guided_decoding.regex"]),
        ("groq", {"regex": "a"}, ["guided_decoding.regex"]),
        ("deepseek", {"choice": ["a"]}, ["guided_decoding.choice"]),
        ("openrouter_responses", {"regex": "a"}, ["guided_decoding.regex"]),
    ):
        sender = ConverseRows() if row == "bedrock" else codec(PROVIDERS[row].codec)
        request = make_request(guided_decoding=GuidedDecodingParams(**shape))
        assert sender.unsupported(request, PROVIDERS[row].dialect) == named


def test_who_wraps_nothing_gets_the_decoder_itself() -> None:
    for shape in (None, GuidedDecodingParams(json={"type": "object"})):
        request = make_request(**({} if shape is None else {"guided_decoding": shape}))
        dialect = PROVIDERS["openai"].dialect
        for each in (ConverseDecoder(), codec("openai_chat").decoder(request, dialect, "")):
            assert unwrapped(each, request, dialect) is each
    shape = GuidedDecodingParams(**CHOICE)
    assert as_sent(shape, PROVIDERS["remote_vllm"].dialect) is shape  # it takes choices as they are


@pytest.mark.parametrize("row", sorted(PROVIDERS))
def test_every_provider_takes_choices_and_expressions(row: str) -> None:
    provider = PROVIDERS[row]
    assert provider.dialect.guided.keys() >= {"json", "choice", "regex"}
    for shape, fact in ({"choice": ["left", "right"]}, "left"), ({"regex": "[a-c]{3}-x"}, "[a-c]{3}-x"):
        extra = {"text": "hi"} if provider.takes_prompt else {}
        given = {"guided_decoding": GuidedDecodingParams(**shape), "extra_body": extra}
        sender = ConverseRows() if row == "bedrock" else codec(provider.codec)
        wire = sender.encode(make_request(model="gemini-3-flash", **given), provider.dialect)
        assert fact in wire.body.decode()
