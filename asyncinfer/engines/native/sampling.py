"""From scores to tokens, each row by its own parameters.

The order is that of Transformers: what is added to scores, penalties, what may not come, temperature, top_k, top_p,
min_p. A row draws from a generator of its own, so that a seed repeats an answer whatever else is in the batch.

``frequency_penalty`` and ``presence_penalty`` look at the answer, ``repetition_penalty`` at prompt and answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..local.ask import Ask
    from .guide import Guide


@dataclass(slots=True)
class Picked:
    """The token that was chosen, and, where asked for, the logarithms of its and the likeliest tokens' probabilities
    (the model's own: before any parameter)."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Chooser:
    """How one answer's tokens are chosen.

    Args:
        ask: the request.
        prompt: its tokens.
        ends: tokens that end an answer.
        guide: what the answer has to look like, or None.
    """

    __slots__ = ("_counts", "_seen", "ask", "edits", "ends", "guide", "made", "random", "samples")

    def __init__(self, ask: Ask, prompt: Sequence[int], ends: Iterable[int], guide: Guide | None) -> None:
        self.ask = ask
        self.guide = guide
        self.made = 0
        self.samples = ask.temperature > 0
        self.random = random.Random(ask.seed)  # noqa: S311 -- reproducible, not secret
        self.ends = list(ends)
        self._counts: dict[int, int] = {}
        self._seen: set[int] = set(prompt) if ask.repetition_penalty != 1.0 else set()
        self.edits = bool(
            ask.logit_bias
            or ask.repetition_penalty != 1.0
            or ask.frequency_penalty
            or ask.presence_penalty
            or ask.min_tokens
            or guide is not None
        )

    def edit(self, scores: Any) -> None:
        """Change one row of scores in place, by all that is not mere shaping of their distribution."""
        ask = self.ask
        if ask.logit_bias:
            _add(scores, ask.logit_bias)
        if self._seen:
            at = _index(scores, [token for token in self._seen if token < scores.shape[-1]])
            found = scores[at]
            scores[at] = found.where(found > 0, found * ask.repetition_penalty).where(
                found <= 0, found / ask.repetition_penalty
            )
        if self._counts and (ask.frequency_penalty or ask.presence_penalty):
            _add(
                scores,
                {
                    token: -(ask.frequency_penalty * count + ask.presence_penalty)
                    for token, count in self._counts.items()
                },
            )
        if self.made < ask.min_tokens and self.ends:
            scores[_index(scores, [token for token in self.ends if 0 <= token < scores.shape[-1]])] = -float("inf")
        if self.guide is not None:
            self.guide.forbid(scores)

    def repeat(self, tokens: Iterable[int]) -> None:
        """Take note of what was said already; the guide knows it."""
        guide, self.guide = self.guide, None
        for token in tokens:
            self.accept(token)
        self.guide = guide

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        self.made += 1
        ask = self.ask
        if ask.repetition_penalty != 1.0:
            self._seen.add(token)
        if ask.frequency_penalty or ask.presence_penalty:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self.guide is not None:
            self.guide.accept(token)


def _index(scores: Any, tokens: list[int]) -> Any:
    import torch

    return torch.tensor(tokens, dtype=torch.long, device=scores.device)


def _add(scores: Any, amounts: dict[int, float]) -> None:
    import torch

    known = {token: amount for token, amount in amounts.items() if 0 <= token < scores.shape[-1]}
    if known:
        values = torch.tensor(list(known.values()), dtype=scores.dtype, device=scores.device)
        scores[_index(scores, list(known))] += values


def choose(choosers: Sequence[Chooser], scores: Any) -> list[Picked]:
    """The next token of each row; ``scores`` (one row each, float32) are changed in place."""
    logs: dict[int, tuple[Any, int]] = {}
    for row, chooser in enumerate(choosers):
        if chooser.ask.logprobs is not None:
            logs[row] = scores[row].log_softmax(-1), chooser.ask.logprobs
        if chooser.edits:
            chooser.edit(scores[row])
    tokens = scores.argmax(-1)
    sampled = [row for row, chooser in enumerate(choosers) if chooser.samples]
    if sampled:
        at = _index(scores, sampled)
        tokens[at] = _draw([choosers[row] for row in sampled], scores[at])
    picked = [Picked(token) for token in tokens.tolist()]
    for row, (log, alternatives) in logs.items():
        picked[row].logprob = float(log[picked[row].token])
        if alternatives:
            best = log.topk(min(alternatives, log.shape[-1]))
            picked[row].top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    for chooser, one in zip(choosers, picked, strict=True):
        chooser.accept(one.token)
    return picked


def _draw(choosers: Sequence[Chooser], scores: Any) -> Any:
    """One token for each row, at random: by inversion, one number of the row's own generator for each token."""
    import torch

    def column(values: Iterable[float]) -> Any:
        return torch.tensor(list(values), dtype=torch.float32, device=scores.device).unsqueeze(-1)

    asks = [chooser.ask for chooser in choosers]
    size = scores.shape[-1]
    ranked, order = (scores / column(ask.temperature for ask in asks)).sort(dim=-1, descending=True)
    rank = torch.arange(size, device=scores.device)
    kept = rank < column(ask.top_k or size for ask in asks)
    shares = ranked.masked_fill(~kept, -float("inf")).softmax(-1)
    if any(ask.top_p < 1 for ask in asks):
        # What comes before a token, without it: the first one always stays.
        kept &= shares.cumsum(-1) - shares < column(ask.top_p for ask in asks)
    if any(ask.min_p > 0 for ask in asks):
        kept &= shares >= column(ask.min_p for ask in asks) * shares[:, :1]
    kept[:, 0] = True
    sums = shares.masked_fill(~kept, 0.0).cumsum(-1)
    goal = column(chooser.random.random() for chooser in choosers) * sums[:, -1:]
    found = torch.searchsorted(sums, goal, right=True).clamp_max(size - 1)
    # Rounding may point behind the last token that can come.
    found = found.minimum(kept.int().mul(rank.int()).amax(-1, keepdim=True).long())
    return order.gather(-1, found).squeeze(-1)
