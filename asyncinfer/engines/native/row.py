"""One answer in the making: tokens in, events out, and when it has ended."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...events import Event, Finish, FinishReason, Start, TextDelta, Usage, UsageUpdate
from ..local.answer import THINK_CLOSE, THINK_OPEN, TOOL_CLOSE, TOOL_OPEN, Answer
from ..local.several import speak
from .failures import typed
from .sampling import Chooser, Picked, choose
from .text import Speller, Spelling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...errors import AsyncInferError
    from ..local.ask import Ask
    from ..local.several import Voice
    from ..worker import Feed
    from .guide import Guide

MARKUP = (TOOL_OPEN, TOOL_CLOSE, THINK_OPEN, THINK_CLOSE)
"""What `Answer` reads, also where a tokenizer has special tokens for it."""


@dataclass(slots=True)
class Manner:
    """What a request says about the way it is computed, beyond `Ask`.

    Attributes:
        beams: of a beam search; 1 for none.
        cache: False computes every step anew.
        batch: requests that the way over ``generate`` takes together.
        echo: put the prompt before the answer.
    """

    beams: int = 1
    cache: bool = True
    batch: int = 1
    echo: bool = False


@dataclass(slots=True)
class Prepared:
    """A prompt as the model takes it.

    Attributes:
        tokens: its tokens.
        text: what they say, for who wants it before the answer.
        inputs: tensors of a model with more inputs than tokens, these included; None for one without.
        limit: the most tokens that the answer may have.
        thinks: whether the model's template knows of thinking, and ``thinking`` whether the prompt begins a thought.
    """

    tokens: list[int]
    limit: int
    text: str = ""
    inputs: dict[str, Any] | None = None
    thinks: bool = False
    thinking: bool = False


@dataclass(slots=True)
class Model:
    """What every answer of a model needs to know of it.

    Attributes:
        name: as events call it.
        spelling: of its tokens.
        ends: tokens that end an answer.
    """

    name: str
    spelling: Spelling
    ends: frozenset[int] = field(default_factory=frozenset)


class Row:
    """One answer.

    Args:
        model: what writes it.
        ask: the request.
        prepared: its prompt.
        listener: who gets the events.
        guide: of its shape, or None.
        manner: how it is computed.

    Attributes:
        cached: tokens of the prompt that did not have to be read, because another prompt began alike.
    """

    __slots__ = (
        "_answer",
        "_model",
        "_speller",
        "_started",
        "ask",
        "cached",
        "chooser",
        "ended",
        "listener",
        "made",
        "manner",
        "prepared",
    )

    def __init__(
        self, model: Model, ask: Ask, prepared: Prepared, listener: Feed | Voice, guide: Guide | None, manner: Manner
    ) -> None:
        self.ask = ask
        self.prepared = prepared
        self.listener = listener
        self.manner = manner
        self.chooser = Chooser(ask, prepared.tokens, model.ends.union(ask.stop_ids), guide)
        self.made = 0
        self.cached = 0
        self.ended = False
        self._model = model
        self._started = False
        self._speller = Speller(model.spelling, skip_special=ask.skip_special)
        self._answer = Answer(ask.stop, tools=bool(ask.tools), thinks=prepared.thinks, thinking=prepared.thinking)

    @property
    def cancelled(self) -> bool:
        """Whether the caller has gone."""
        return self.listener.cancelled

    def take(self, picked: Picked) -> list[Event]:
        """The events of one more token; sets ``ended`` with the last one's."""
        token = picked.token
        self.made += 1
        events = [] if self._started else self._start()
        reason, matched = FinishReason.STOP, None
        if token in self.ask.stop_ids:
            self.ended, matched = True, token
        elif token in self._model.ends:
            self.ended = True
        else:
            events += self._answer.feed_text(self._speller.feed(token), self._logprob(picked))
            guide = self.chooser.guide
            self.ended = self._answer.matched is not None or (guide is not None and guide.done)
            if not self.ended and self.made >= self.prepared.limit:
                self.ended, reason = True, FinishReason.LENGTH
        if self.ended:
            events += self._finish(reason, matched)
        return events

    def fail(self, error: AsyncInferError) -> None:
        """End the answer with an error, unless it has ended."""
        if not self.ended:
            self.ended = True
            self.listener.fail(error)

    def _start(self) -> list[Event]:
        self._started = True
        events: list[Event] = [
            Start(id=f"chatcmpl-{secrets.token_hex(12)}", model=self._model.name),
            # Without the token just made: a count of the answer says that it is complete.
            UsageUpdate(Usage(input_tokens=len(self.prepared.tokens), cached_tokens=self.cached)),
        ]
        if self.manner.echo:
            events.append(TextDelta(self.prepared.text))
        return events

    def _finish(self, reason: FinishReason, matched: int | None) -> list[Event]:
        answer = self._answer
        events = answer.feed_text(self._speller.close()) if answer.matched is None else []
        events += answer.close()
        if answer.calls and reason is FinishReason.STOP:
            reason = FinishReason.TOOL_CALLS
        events.append(Finish(reason, matched=answer.matched if matched is None else matched))
        events.append(UsageUpdate(self._usage()))
        return events

    def _usage(self) -> Usage:
        return Usage(input_tokens=len(self.prepared.tokens), output_tokens=self.made, cached_tokens=self.cached)

    def _logprob(self, picked: Picked) -> dict[str, Any] | None:
        if picked.logprob is None:
            return None
        top = [self._entry(token, value) for token, value in picked.top]
        return {**self._entry(picked.token, picked.logprob), "top_logprobs": top}

    def _entry(self, token: int, value: float) -> dict[str, Any]:
        """In the OpenAI shape, with the token's id."""
        piece = self._model.spelling.bytes_of(token)
        return {"id": token, "token": piece.decode("utf-8", "replace"), "logprob": value, "bytes": list(piece)}


def advance(rows: Sequence[Row], scores: Any) -> list[Picked | None]:
    """One more token for each row, its events handed over. A row that fails is told so, and has ended: then None.

    All events are posted before any loop gets to read them, so that one wake-up carries them.

    Args:
        rows: the answers.
        scores: one line for each, float32; changed in place.
    """
    try:
        picked: list[Picked | None] = list(choose([row.chooser for row in rows], scores))
    except Exception:  # noqa: BLE001 -- one bad row: find out which
        picked = [_alone(row, scores[at : at + 1]) for at, row in enumerate(rows)]
    said: list[tuple[Row, list[Event]]] = []
    for at, row in enumerate(rows):
        one = picked[at]
        if one is None:
            continue
        try:
            said.append((row, row.take(one)))
        except Exception as error:  # noqa: BLE001 -- nor does one bad answer harm the others
            row.fail(typed(error, "reading an answer"))
            picked[at] = None
    speak((row.listener, events, row.ended) for row, events in said if events or row.ended)
    return picked


def _alone(row: Row, scores: Any) -> Picked | None:
    try:
        return choose([row.chooser], scores)[0]
    except Exception as error:  # noqa: BLE001 -- it alone is told
        row.fail(typed(error, "choosing a token"))
        return None
