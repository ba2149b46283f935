"""Checks of answers that are read to their end: alone, many at once, through each of the three calls."""

from __future__ import annotations

from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING

import anyio

from .. import Conversation, Failure, Finish, Message, ReasoningDelta, Role, Start, TextDelta, UsageUpdate
from .subject import together
from .verdict import ConformanceError, NotApplicable, claim, show

if TYPE_CHECKING:
    from .. import Completion
    from .subject import Reading, Subject

_TOO_QUICK = 0.02
"""Seconds of decoding below which the clock cannot tell a stream from a burst."""
_PAUSES = 5
_PAUSE = 0.08
"""Seconds for which a slow reader stops."""


async def text_is_the_fold_of_events(subject: Subject) -> None:
    """Start comes first, a finish last; the completion is what the events add up to."""
    for prompt in subject.expect.prompts:
        reading = await subject.read(prompt)
        events, completion = reading.events, reading.completion
        claim(events and type(events[0]) is Start, f"the events begin with {show(events[:1])}, not with Start")
        claim(sum(type(event) is Start for event in events) == 1, "Start came more than once")
        _finished_once(reading)
        text = "".join(reading.pieces)
        claim(completion.text == text, f"the events say {show(text)}, the completion {show(completion.text)}")
        thought = "".join([event.text for event in events if type(event) is ReasoningDelta and event.index == 0])
        claim(
            (completion.message.reasoning_content or "") == thought,
            f"the events reason {show(thought)}, the completion {show(completion.message.reasoning_content)}",
        )
        claim(text or thought, f"the answer to {show(prompt)} is empty")


def _finished_once(reading: Reading) -> None:
    finishes = [(at, event) for at, event in enumerate(reading.events) if type(event) is Finish]
    claim(len(finishes) == 1, f"{len(finishes)} Finish events for one answer")
    at, finish = finishes[0]
    late = [event for event in reading.events[at + 1 :] if type(event) is not UsageUpdate]
    claim(not late, f"after Finish came {show(late)}")
    claim(
        reading.completion.finish_reason is finish.reason,
        f"Finish says {finish.reason}, the completion {reading.completion.finish_reason}",
    )


async def generate_is_the_fold_of_stream(subject: Subject) -> None:
    """``generate``, the events and the bare tokens of ``stream`` tell the same."""
    subject.needs_same_answers()
    for prompt in subject.expect.prompts:
        whole, reading = await subject.known(prompt), await subject.read(prompt)
        tokens = [token async for token in subject.engine.stream(prompt, generation=subject.params())]
        claim("" not in tokens, "an empty token was shown")
        for how, text in (("stream", reading.completion.text), ("the tokens", "".join(tokens))):
            claim(text == whole.text, f"generate says {show(whole.text)}, {how} {show(text)}")
        claim(
            reading.completion.finish_reason is whole.finish_reason,
            f"generate ends by {whole.finish_reason}, stream by {reading.completion.finish_reason}",
        )


async def a_slow_reader_loses_nothing(subject: Subject) -> None:
    """Who stops between two pieces of the answer still sees all of it, and nothing twice."""
    subject.needs_same_answers()
    prompt = subject.expect.prompts[0]
    whole, text, pauses = await subject.known(prompt), "", 0
    subject.doing = f"reading the answer to {show(prompt)} slowly"
    async with subject.engine.stream(prompt, generation=subject.params()) as stream:
        async for event in stream.events():
            if type(event) is not TextDelta or event.index:
                continue
            text += event.text
            if pauses < _PAUSES:
                pauses += 1
                await anyio.sleep(_PAUSE)
        completion = await stream.completion()
    for how, seen in (("the events say", text), ("the completion says", completion.text)):
        claim(seen == whole.text, f"read slowly, {how} {show(seen)}, not {show(whole.text)}")


async def known_answers_are_given(subject: Subject) -> None:
    """The answers that the caller knows come out, to the character."""
    if not subject.expect.answers:
        raise NotApplicable("no answers are given")
    for prompt, answer in subject.expect.answers.items():
        text = (await subject.known(prompt)).text
        claim(text == answer, f"the answer to {show(prompt)} is {show(text)}, not {show(answer)}")


async def the_first_token_is_seen_before_the_last_is_made(subject: Subject) -> str:
    """Text is shown while the engine still has most of its answer to make."""
    for attempt in range(3):  # a busy machine may hide it; it cannot fake it
        reading = (
            await subject.long()
            if not attempt
            else await subject.read(subject.expect.long_prompt, subject.long_params())
        )
        claim(len(reading.pieces) > 1, f"a long answer came in {len(reading.pieces)} piece(s)")
        first, total = reading.first or 0.0, reading.total
        if total < _TOO_QUICK:
            raise NotApplicable(f"the long answer took {1e3 * total:.0f} ms, too little to tell")
        seen = f"first token after {1e3 * first:.0f} ms of {1e3 * total:.0f}"
        if first < total / 2:
            return seen
    raise ConformanceError(f"{seen}: the answer was made first and shown afterwards")


async def many_rows_keep_their_order(subject: Subject) -> None:
    """``generate_many`` gives each row its own answer: awaited, in order, and as rows finish."""
    rows = list(islice(cycle(subject.expect.prompts), 3 * len(subject.expect.prompts)))
    inputs = [_asking(f"{row}") for row in rows]
    awaited = await subject.engine.generate_many(inputs, generation=subject.params())
    ordered = [result async for result in subject.engine.generate_many(iter(inputs), generation=subject.params())]
    loose = [
        result async for result in subject.engine.generate_many(inputs, ordered=False, generation=subject.params())
    ]
    for how, results in (("awaited", awaited), ("ordered", ordered), ("unordered", sorted(loose, key=_index))):
        claim(len(results) == len(rows), f"{how}: {len(results)} results of {len(rows)} rows")
        for number, result in enumerate(results):
            where = f"{how}: row {number}, {show(rows[number])}"
            claim(result.index == number, f"{where} has the index {result.index}")
            if isinstance(result, Failure):
                raise ConformanceError(f"{where} failed: {result.error!r}")
            claim(
                result.conversation.messages[:-1] == inputs[number].messages,
                f"{where} came back with another conversation",
            )
            await _same(subject, rows[number], result, where)


def _index(result: Completion | Failure) -> int:
    return -1 if result.index is None else result.index


def _asking(text: str) -> Conversation:
    return Conversation(messages=[Message(role=Role.USER, content=text)])


async def _same(subject: Subject, prompt: str, completion: Completion, where: str) -> None:
    if subject.expect.deterministic:
        known = await subject.known(prompt)
        claim(
            completion.text == known.text, f"{where}: {show(completion.text)}, and {show(known.text)} when asked alone"
        )
        claim(
            completion.finish_reason is known.finish_reason,
            f"{where} ended by {completion.finish_reason}, alone by {known.finish_reason}",
        )
    claim(completion.text or completion.message.reasoning_content, f"{where}: an empty answer")


async def many_streams_at_once_are_each_correct(subject: Subject) -> str:
    """So many concurrent streams all end, and each has the answer it would have had alone."""
    prompts = list(islice(cycle(subject.expect.prompts), subject.expect.streams))
    for prompt in subject.expect.prompts:
        await subject.known(prompt)
    readings = await together([partial(subject.read, prompt) for prompt in prompts])
    for number, (prompt, reading) in enumerate(zip(prompts, readings, strict=True)):
        where = f"stream {number} of {len(prompts)}, {show(prompt)}"
        claim("".join(reading.pieces) == reading.completion.text, f"{where}: the events say something else")
        await _same(subject, prompt, reading.completion, where)
    return f"{len(prompts)} streams"


async def conversations_are_never_changed(subject: Subject) -> None:
    """What goes in stays as it was; what comes back is a new conversation with one more message."""
    for prompt in subject.expect.prompts[:2]:
        given, generation = _asking(prompt), subject.params()
        before, chosen = given.model_copy(deep=True), generation.model_copy(deep=True)
        completions = [
            (await subject.read(given, generation)).completion,
            await subject.generate(given, generation),
            *[result async for result in subject.engine.generate_many([given], generation=generation)],
        ]
        claim(given == before, f"the conversation was changed: {_difference(before, given)}")
        claim(generation == chosen, f"the parameters were changed: {show(generation)}")
        for completion in completions:
            if isinstance(completion, Failure):
                raise completion.error
            after = completion.conversation
            claim(after is not given, "the completion's conversation is the caller's own object")
            claim(
                after.messages == [*before.messages, completion.message],
                f"the conversation came back as {show(after.messages)}",
            )
            claim(completion.message.role is Role.ASSISTANT, f"the answer's role is {completion.message.role}")


def _difference(before: Conversation, after: Conversation) -> str:
    """The first field in which they differ."""
    for name in type(before).model_fields:
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            return f"{name} was {show(was)} and is {show(now)}"
    return "it is no longer equal to itself"
