"""What comes back for a prompt: the shape of vLLM's ``RequestOutput``, filled from our completions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .. import Choice, Completion, Prompt


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token's log probability at one place of an answer.

    Attributes:
        logprob: natural logarithm.
        rank: 1 for the likeliest token; None if the token is not among those that were asked for.
        decoded_token: its text.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One of the answers to a prompt.

    Attributes:
        index: which of the ``n``.
        text: the text.
        token_ids: its tokens (with the one that ended it, where the engine tells); None unless ``logprobs`` was asked
            for (0 is enough) and the engine tells ids.
        cumulative_logprob: sum of the tokens' log probabilities; None unless asked for.
        logprobs: for each token, the log probabilities by token id; None as for ``token_ids``.
        finish_reason: ``"stop"``, ``"length"`` ...
        stop_reason: the stop string or token id that ended it, where there was one.
    """

    index: int
    text: str
    token_ids: list[int] | None = None
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None

    def finished(self) -> bool:
        """Whether the answer is complete."""
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestOutput:
    """Everything that came of one prompt.

    Attributes:
        request_id: position of the prompt among those of the call, as text.
        prompt: its text; None if it was given as tokens.
        prompt_token_ids: its tokens, if it was given as such.
        outputs: the answers, ``n`` of them.
        num_prompt_tokens, num_cached_tokens: tokens of the prompt, and how many of them the engine still had.
        finished: always true.
        completions: what the outputs were made of: usage, timings, the engine's own log probabilities.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    outputs: list[CompletionOutput]
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    finished: bool = True
    completions: list[Completion] = field(default_factory=list, repr=False)


def request_output(
    number: int, prompt: Prompt, completions: Sequence[Completion], *, with_stop: bool = False
) -> RequestOutput:
    """The output of a prompt whose answers came as one completion with all choices, or as one for each.

    Args:
        number: position of the prompt.
        prompt: what was completed.
        completions: in order.
        with_stop: append the stop string that ended an answer to its text.
    """
    choices = [choice for completion in completions for choice in completion.choices]
    first = completions[0].usage
    return RequestOutput(
        request_id=str(number),
        prompt=prompt.text,
        prompt_token_ids=None if prompt.token_ids is None else list(prompt.token_ids),
        outputs=[_output(index, choice, with_stop=with_stop) for index, choice in enumerate(choices)],
        num_prompt_tokens=first.input_tokens,
        num_cached_tokens=first.cached_tokens,
        completions=list(completions),
    )


def _output(index: int, choice: Choice, *, with_stop: bool) -> CompletionOutput:
    entries = choice.logprobs
    text = choice.text
    if with_stop and isinstance(choice.matched, str):
        text += choice.matched
    output = CompletionOutput(
        index=index,
        text=text,
        finish_reason=None if choice.finish_reason is None else str(choice.finish_reason.value),
        stop_reason=choice.matched,
    )
    if entries is not None:
        output.cumulative_logprob = sum(float(entry["logprob"]) for entry in entries)
        ids = [number for entry in entries if (number := _id(entry)) is not None]
        if len(ids) == len(entries):
            output.token_ids = ids
            output.logprobs = [_place(number, entry) for number, entry in zip(ids, entries, strict=True)]
    return output


def _id(entry: dict[str, Any]) -> int | None:
    """The token's id, which engines report under one of two names."""
    number = entry.get("id")
    return number if isinstance(number, int) else None


def _place(taken: int, entry: dict[str, Any]) -> dict[int, Logprob]:
    """The likeliest tokens in order, and the one that was taken, by id."""
    found: dict[int, Logprob] = {}
    for rank, one in enumerate(entry.get("top_logprobs") or (), start=1):
        number = _id(one)
        if number is not None:
            found[number] = Logprob(float(one["logprob"]), rank, one.get("token"))
    found.setdefault(taken, Logprob(float(entry["logprob"]), None, entry.get("token")))
    return found
