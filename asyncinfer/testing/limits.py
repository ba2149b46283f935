"""Checks of where an answer ends, how it is cut, and how it is counted."""

from __future__ import annotations

from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from .. import Conversation, FinishReason, Message, Role
from .subject import together
from .verdict import ConformanceError, NotApplicable, claim, show

if TYPE_CHECKING:
    from .. import Completion
    from .subject import Reading, Subject

_LENGTHS = (1, 2, 3, 5, 8, 13)
"""Characters of the stop strings that are tried: within a token, and over the borders of several."""

_FEW = 5
"""Tokens of an answer that is cut."""

UNICODE = "žluťoučký 🐎 中文 é 👩‍🚀."
"""Characters of two, three and four bytes, and one that is made of several."""


async def max_tokens_cut_and_say_so(subject: Subject) -> None:
    """``max_new_tokens`` ends an answer by ``length`` after exactly that many; an answer within it ends by ``stop``."""
    subject.needs("max_new_tokens")
    for limit in (1, _FEW):
        reading = await subject.read(subject.expect.long_prompt, subject.long_params(limit))
        completion = reading.completion
        claim(
            completion.finish_reason is FinishReason.LENGTH,
            f"cut at {limit} tokens, it ended by {completion.finish_reason}",
        )
        made = completion.usage.output_tokens
        if completion.usage.source == "exact":
            claim(made == limit, f"max_new_tokens is {limit}, and {made} were made")
        if subject.expect.deterministic:
            whole = (await subject.long()).completion.text
            claim(
                whole.startswith(completion.text),
                f"cut at {limit} tokens: {show(completion.text)} is no beginning of {show(whole)}",
            )
            claim(len(completion.text) < len(whole), f"max_new_tokens {limit} gave the whole answer, {show(whole)}")
    for prompt in subject.expect.prompts:
        known = await subject.known(prompt)
        claim(
            known.finish_reason is FinishReason.STOP,
            f"the answer to {show(prompt)} ended by {known.finish_reason}, not by stop: {show(known.text)}",
        )


async def stop_strings_cut_exactly(subject: Subject) -> str:
    """An answer ends right before a stop string, wherever tokens cut it, and no beginning of one is ever shown."""
    subject.needs("stop_strings")
    subject.needs_same_answers()
    known = {prompt: (await subject.known(prompt)).text for prompt in subject.expect.prompts}
    prompt, text = max(known.items(), key=lambda item: len(item[1]))
    cases = {text[at : at + length] for length in _LENGTHS for at in range(len(text) - length + 1)}
    ordered = sorted((case for case in cases if case.strip()), key=lambda case: (text.find(case), len(case)))
    step = max(1, -(-len(ordered) // subject.expect.stop_cases))
    picked = [[case] for case in ordered[::step]]
    if not picked:
        raise NotApplicable(f"the longest answer is {show(text)}: nothing to stop at")
    early, late = ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]
    picked.append([late, early])
    await together([partial(_stopped, subject, prompt, text, stops) for stops in picked])
    # What only began like a stop string is text after all, in the middle of the answer and at its end.
    for begun in (text[: len(text) // 2], text[-4:]):
        await _stopped(subject, prompt, text, [f"{begun}\u2603 never"])
    return f"{len(picked) + 2} places in {show(text)}"


async def _stopped(subject: Subject, prompt: str, text: str, stops: list[str]) -> None:
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    expected = text[: min(found)[1]] if found else text
    shown = ""
    async with subject.engine.stream(prompt, generation=subject.params(stop_strings=stops)) as stream:
        async for token in stream:
            shown += token
            claim(
                expected.startswith(shown),
                f"stop_strings {show(stops)}: {show(shown)} was shown, which is no part of {show(expected)}",
            )
        completion = await stream.completion()
    claim(
        shown == completion.text,
        f"stop_strings {show(stops)}: shown was {show(shown)}, the completion has {show(completion.text)}",
    )
    claim(shown == expected, f"stop_strings {show(stops)}: the answer is {show(shown)}, not {show(expected)}")
    claim(
        completion.finish_reason is FinishReason.STOP,
        f"stop_strings {show(stops)}: it ended by {completion.finish_reason}",
    )
    matched = completion.choices[0].matched
    claim(
        not isinstance(matched, str) or matched in stops,
        f"stop_strings {show(stops)}: {show(matched)} is said to have matched",
    )


async def unicode_is_never_shown_broken(subject: Subject) -> str:
    """A character that is cut between tokens is shown when it is whole, and only then."""
    if subject.expect.unicode is not None:
        prompt, answer = subject.expect.unicode
        reading = await subject.read(prompt)
    elif subject.supports("guided_decoding") and "choice" in subject.expect.guided:
        answer = UNICODE
        reading = await subject.read(subject.expect.prompts[0], subject.guided(choice=[UNICODE]))
    else:
        raise NotApplicable("no answer with such characters is known, and none can be asked for by guided_decoding")
    shown = ""
    for piece in reading.pieces:
        shown += piece
        claim(
            answer.startswith(shown),
            f"{show(piece)} was shown as a piece of {show(answer)}, after {show(shown[: -len(piece)])}",
        )
    claim(reading.completion.text == answer, f"the answer is {show(reading.completion.text)}, not {show(answer)}")
    return f"{len(reading.pieces)} pieces"


async def usage_is_counted(subject: Subject) -> str | None:
    """Tokens are those of the tokenizer, the same through every call, and more for a longer prompt."""
    prompt = subject.expect.prompts[0]
    reading, whole = await subject.read(prompt), await subject.known(prompt)
    usage = reading.completion.usage
    if usage.source != "exact":
        raise NotApplicable("the engine counts nothing: its usage is an estimate")
    _plausible(reading)
    claim(whole.usage.source == "exact", "stream counts exactly, generate estimates")
    claim(
        whole.usage.input_tokens == usage.input_tokens,
        f"stream counts {usage.input_tokens} prompt tokens, generate {whole.usage.input_tokens}",
    )
    longer = await subject.generate(f"{prompt} {prompt} {prompt}")
    claim(
        longer.usage.input_tokens > usage.input_tokens,
        f"a prompt three times as long has {longer.usage.input_tokens} tokens, the short one {usage.input_tokens}",
    )
    if subject.expect.deterministic:
        claim(
            whole.usage.output_tokens == usage.output_tokens,
            f"stream counts {usage.output_tokens} tokens of the answer, generate {whole.usage.output_tokens}",
        )
    for question in subject.expect.prompts:
        _counted(subject, question, await subject.known(question))
    if subject.expect.count_tokens is None and subject.expect.count_prompt is None:
        return "no tokenizer to compare with"
    return None


def _plausible(reading: Reading) -> None:
    usage = reading.completion.usage
    claim(usage.input_tokens > 0, "the prompt is said to have no tokens")
    claim(usage.output_tokens > 0, "the answer is said to have no tokens")
    claim(
        usage.cached_tokens <= usage.input_tokens,
        f"{usage.cached_tokens} of {usage.input_tokens} prompt tokens are said to be cached",
    )


def _counted(subject: Subject, prompt: str, completion: Completion) -> None:
    """The token that ends an answer may be counted or not; both are common."""
    usage, expect = completion.usage, subject.expect
    if expect.count_tokens is not None and not completion.message.reasoning_content:
        tokens = expect.count_tokens(completion.text)
        claim(
            usage.output_tokens - tokens in {0, 1},
            f"{show(completion.text)} has {tokens} tokens, the engine counts {usage.output_tokens}",
        )
    if expect.count_prompt is not None:
        tokens = expect.count_prompt(Conversation(messages=[Message(role=Role.USER, content=prompt)]))
        claim(
            usage.input_tokens == tokens,
            f"the prompt {show(prompt)} has {tokens} tokens, the engine counts {usage.input_tokens}",
        )


async def seeds_repeat_answers(subject: Subject) -> None:
    """A sampled answer repeats under its seed, alone and in company, and another seed gives another."""
    subject.needs("seed", "temperature")
    subject.needs_same_answers()

    # Said, not left to the default: a server's own may leave a sure model nothing to choose from.
    wide = {name: value for name, value in (("top_p", 1.0), ("min_p", 0.0)) if subject.supports(name)}

    async def sampled(seed: int) -> str:
        generation = subject.long_params(40, temperature=1.8, seed=seed, **wide)
        return (await subject.generate(subject.expect.long_prompt, generation)).text

    alone = [await sampled(seed) for seed in range(1, 5)]
    again = await sampled(4)
    claim(again == alone[3], f"seed 4 gave {show(alone[3])}, and then {show(again)}")
    # In company the numbers are rounded otherwise (other kernels serve a larger batch), and in a long answer at a high
    # temperature some late token falls to the other side of that. Another seed goes its own way from the beginning.
    company = await together([partial(sampled, seed) for seed in range(1, 5)])
    for seed, one, other in zip(range(1, 5), alone, company, strict=True):
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        claim(2 * same >= len(one), f"seed {seed} gave {show(one)}, and in company {show(other)}")
    claim(len(set(alone)) > 1, f"four seeds gave one and the same answer, {show(alone[0])}")


async def several_answers_are_kept_apart(subject: Subject) -> None:
    """``n`` answers come as ``n`` choices, each of its own events; the stream's tokens are those of choice 0."""
    subject.needs("n")
    generation = subject.params(n=2)
    reading = await subject.read(subject.expect.prompts[0], generation)
    choices = reading.completion.choices
    claim(
        [choice.index for choice in choices] == [0, 1], f"n=2 gave the choices {[choice.index for choice in choices]}"
    )
    for choice in choices:
        text = "".join(reading.pieces_of(choice.index))
        claim(
            choice.text == text,
            f"choice {choice.index}: the events say {show(text)}, the completion {show(choice.text)}",
        )
        claim(choice.finish_reason is not None, f"choice {choice.index} has no finish reason")
        claim(text, f"choice {choice.index} is empty")
    if subject.expect.deterministic:
        shown = "".join(
            [token async for token in subject.engine.stream(subject.expect.prompts[0], generation=generation)]
        )
        claim(
            shown == choices[0].text,
            f"the tokens of a stream with n=2 are {show(shown)}, choice 0 is {show(choices[0].text)}",
        )


async def logprobs_fit_the_answer(subject: Subject) -> None:
    """Every token of the answer has its log probability."""
    subject.needs("logprobs")
    more: dict[str, Any] = {"top_logprobs": 2} if subject.supports("top_logprobs") else {}
    completion = await subject.generate(subject.expect.prompts[0], subject.params(logprobs=True, **more))
    entries = completion.choices[0].logprobs
    if not entries:
        raise ConformanceError("logprobs were asked for, and none came")
    if not all(isinstance(entry, dict) and "token" in entry and "logprob" in entry for entry in entries):
        return  # a provider's own shape: nothing more is known of it
    text = "".join([entry["token"] for entry in entries])
    claim(
        completion.text in text,
        f"the tokens with log probabilities are {show(text)}, the answer {show(completion.text)}",
    )
    wrong = [entry["logprob"] for entry in entries if not entry["logprob"] <= 0]
    claim(not wrong, f"log probabilities above 0: {show(wrong)}")
    few = [entry for entry in entries if more and len(entry.get("top_logprobs") or ()) < 1]
    claim(not few, f"top_logprobs were asked for, and some tokens have none: {show(few[:1])}")
