"""Binding b: what is under way: the sequences of the context, and the answer that each is decoding.

Rule: values; only the decoder's thread (`batch`) touches them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...events import Usage

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from ..local.answer import Answer
    from ..local.ask import Ask
    from ..local.several import Voice
    from ..worker import Feed
    from .sight import Picture


class Running:
    """One answer in the making, in one sequence of the context.

    Attributes:
        todo: what is left of the prompt to decode: runs of tokens, and pictures.
        position: where the next token goes in the sequence (a picture takes fewer positions than tokens, at times).
        made: tokens sampled.
        next: sampled, not yet decoded.
        row: of this step's batch, where its scores are; -1 for none.
    """

    __slots__ = (
        "answer",
        "ask",
        "cached",
        "chain",
        "feed",
        "limit",
        "made",
        "next",
        "position",
        "prompt_tokens",
        "row",
        "slot",
        "started",
        "todo",
    )

    def __init__(self, ask: Ask, feed: Feed | Voice, slot: Slot, todo: deque[list[int] | Picture]) -> None:
        self.ask = ask
        self.feed = feed
        self.slot = slot
        self.todo = todo
        self.prompt_tokens = prompt_length(todo)
        self.chain: Any = None
        self.answer: Answer
        self.limit: int
        self.cached = 0
        self.position = 0
        self.made = 0
        self.next = -1
        self.row = -1
        self.started = False

    @property
    def usage(self) -> Usage:
        return Usage(input_tokens=self.prompt_tokens, output_tokens=self.made, cached_tokens=self.cached)


class Slot:
    """One sequence of the context.

    Attributes:
        tokens: what its memory holds, up to the first picture.
        seen: a picture is among what it holds.
    """

    __slots__ = ("number", "running", "seen", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.tokens: list[int] = []
        self.seen = False
        self.running: Running | None = None

    def hold(self, token: int) -> None:
        """A token is decoded into the sequence."""
        if not self.seen:
            self.tokens.append(token)


def common_length(held: list[int], prompt: list[int]) -> int:
    """Length of the common beginning."""
    for at, (one, other) in enumerate(zip(held, prompt, strict=False)):
        if one != other:
            return at
    return min(len(held), len(prompt))


def prompt_length(parts: Iterable[list[int] | Picture]) -> int:
    """Tokens of a prompt."""
    return sum(len(part) if isinstance(part, list) else part.tokens for part in parts)
