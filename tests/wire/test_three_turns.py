"""A conversation with images, tools, thinking and results goes through three answers on every format and loses nothing.

Every answer is fed whole, byte by byte and at random splits; what the last request holds is read as the provider would
read it, and compared with the script piece by piece.
"""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.completion import Completion, Timings
from asyncinfer.conversation import Conversation, Message, Role
from asyncinfer.engines.fold import Fold
from asyncinfer.events import FinishReason, Usage
from asyncinfer.request import Request

from .requests import make_request
from .turns.formats import FORMATS, GENERATE, Format
from .turns.script import QUESTION, SYSTEM, THANKS, TOOLS, TURNS, Piece, Turn, expected

START = Conversation(messages=[Message(role=Role.SYSTEM, content=SYSTEM), QUESTION])


def ask(form: Format, conversation: Conversation, *, tools: bool = True) -> Request:
    request = make_request(model=form.model, tools=TOOLS if tools else None, **form.asked)
    return dataclasses.replace(request, conversation=conversation)


def answer(form: Format, request: Request, pieces: list[bytes]) -> Completion:
    decoder, fold = form.decoder(request), Fold()
    for piece in pieces:
        fold.add(decoder.feed(piece))
    while events := decoder.close():
        fold.add(events)
    assert fold.finished
    assert fold.usage is not None
    return fold.completion(request, fold.usage, Timings(), None)


def said(completion: Completion) -> tuple[str, Usage, FinishReason | None]:
    return json.dumps(completion.message.to_dict()), completion.usage, completion.finish_reason


def cut(body: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(body) + 1) for place in at), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(places)]


def check_answer(form: Format, turn: Turn, completion: Completion) -> None:
    message = completion.message
    assert completion.text == turn.text
    assert message.reasoning_content == turn.thinking
    calls = [(call.id, call.function.name, call.get_arguments_dict()) for call in message.tool_calls or ()]
    assert calls == [tuple(call) for call in turn.calls]
    assert completion.finish_reason is (FinishReason.TOOL_CALLS if turn.calls else FinishReason.STOP)
    usage = turn.usage
    reasoning = usage.reasoning_tokens if form.traits.reasoning else 0
    assert completion.usage == Usage(usage.input_tokens, usage.output_tokens, usage.cached_tokens, 0, reasoning)
    assert (completion.id, completion.model) == (form.answer_id, form.model)


def gemini_moves_the_last_seal(pieces: list[Piece]) -> list[Piece]:
    """Gemini seals the text of an answer without calls; the seal follows the text."""
    at = next(at for at, piece in enumerate(pieces) if piece[:3] == ("text", "assistant", TURNS[2].text))
    return [*pieces[: at + 1], Piece("thinking", None, TURNS[2].seal), *pieces[at + 1 :]]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_three_turns(form: Format) -> None:
    conversation = START
    for number, turn in enumerate(TURNS):
        request = ask(form, conversation)
        assert list(form.read(form.encode(request))) == expected(number, form.traits, thanked=False)
        body = form.write(turn)
        completion = answer(form, request, [body])
        check_answer(form, turn, completion)
        assert said(answer(form, request, [body[at : at + 1] for at in range(len(body))])) == said(completion)
        assert completion.conversation.messages[:-1] == conversation.messages
        # Through a file and back, as between two runs of a program.
        conversation = Conversation.from_json(completion.conversation.to_json())
        for message in turn.messages():
            conversation = conversation.with_message(message)
    conversation = conversation.with_message(Message(role=Role.USER, content=THANKS))
    pieces = expected(3, form.traits, thanked=True)
    if form.traits.call_seals:
        pieces = gemini_moves_the_last_seal(pieces)
    assert list(form.read(form.encode(ask(form, conversation)))) == pieces


@pytest.mark.parametrize("turn", TURNS, ids=["parallel calls", "a call alone", "text"])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_however_the_bytes_are_cut(form: Format, turn: Turn) -> None:
    request, body = ask(form, START), form.write(turn)
    whole = said(answer(form, request, [body]))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 1 << 20), max_size=12))
    def check(at: list[int]) -> None:
        assert said(answer(form, request, cut(body, at))) == whole

    check()


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS.keys())
def test_a_conversation_moves_between_providers(form: Format) -> None:
    """What one provider sealed means nothing to another; everything else goes along, and nothing is refused."""
    conversation = START
    other = FORMATS["gemini"] if form is not FORMATS["gemini"] else FORMATS["anthropic"]
    for turn in TURNS:
        conversation = answer(other, ask(other, conversation), [other.write(turn)]).conversation
        for message in turn.messages():
            conversation = conversation.with_message(message)
    body = form.encode(ask(form, conversation))
    assert type(form) is type(other) or not any(turn.seal in str(body) for turn in TURNS)
    found = list(form.read(body))
    kept = [piece._replace(d=None) for piece in found if piece.kind != "thinking"]
    traits = dataclasses.replace(form.traits, thinking=False, call_seals=False)
    assert kept == expected(3, traits, thanked=False)


def test_text_where_it_must() -> None:
    """SGLang's own format has neither tools nor thinking: what others said of them reaches the chat template."""
    other = FORMATS["anthropic"]
    conversation = START
    for turn in TURNS:
        conversation = answer(other, ask(other, conversation), [other.write(turn)]).conversation
        for message in turn.messages():
            conversation = conversation.with_message(message)
    request = ask(GENERATE, conversation, tools=False)
    assert list(GENERATE.read(GENERATE.encode(request))) == expected(3, GENERATE.traits, thanked=False)
    body = GENERATE.write(TURNS[2])
    completion = answer(GENERATE, request, [body])
    assert completion.text == TURNS[2].text
    usage = TURNS[2].usage
    assert completion.usage == Usage(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
    assert said(answer(GENERATE, request, [body[at : at + 1] for at in range(len(body))])) == said(completion)
    assert GENERATE.encode(ask(GENERATE, completion.conversation, tools=False))["messages"][-1] == {
        "role": "assistant",
        "content": TURNS[2].text,
    }
