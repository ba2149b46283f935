"""What each Claude model accepts, as data: read by every codec that carries Claude's words, whoever serves it.

Rule: values and one lookup. A model that is not in the table and calls itself Claude is taken for a new one, which
takes what the newest take; any other name is a server's own model, of which nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LADDER = ("minimal", "low", "medium", "high", "xhigh", "max")
"""Words for effort, least first. ``minimal`` is nobody's word here; it becomes the least that a model knows."""

_ALL = ("low", "medium", "high", "xhigh", "max")

BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}
"""Thinking tokens for models that take a budget and no effort; 1024 is the least that the API takes."""


@dataclass(frozen=True, slots=True)
class ModelRules:
    """What models whose names begin alike accept.

    Attributes:
        prefixes: beginnings of names.
        max_tokens: the most that one answer may have; None where nobody knows.
        thinking: ``"adaptive"`` (the model decides how much), ``"budget"`` (a number of tokens), or None.
        sampling: whether ``temperature``, ``top_p`` and ``top_k`` are taken.
        disable: whether ``thinking: disabled`` is taken.
        always: the model thinks whether asked or not.
        efforts: levels of ``output_config.effort``.
        structured: whether ``output_config.format`` is taken.
        tools: whether tools are.
        system_turns: whether a system message may stand between the turns.
    """

    prefixes: tuple[str, ...]
    max_tokens: int | None = 128_000
    thinking: Literal["adaptive", "budget"] | None = "adaptive"
    sampling: bool = False
    disable: bool = True
    always: bool = False
    efforts: tuple[str, ...] = _ALL
    structured: bool = True
    tools: bool = True
    system_turns: bool = True


_TABLE = (
    ModelRules(("claude-mythos-preview",), disable=False, always=True, sampling=True, system_turns=False),
    ModelRules(("claude-fable", "claude-mythos"), disable=False, always=True),
    ModelRules(("claude-opus-5-5",), disable=False, always=True),
    ModelRules(("claude-opus-5", "claude-sonnet-5", "claude-haiku-5", "claude-opus-4-8")),
    ModelRules(("claude-opus-4-7",), system_turns=False),
    ModelRules(
        ("claude-opus-4-6", "claude-sonnet-4-6"),
        sampling=True,
        efforts=("low", "medium", "high", "max"),
        system_turns=False,
    ),
    ModelRules(
        ("claude-opus-4-5",), 64_000, "budget", sampling=True, efforts=("low", "medium", "high"), system_turns=False
    ),
    ModelRules(
        ("claude-sonnet-4-5", "claude-haiku-4-5"), 64_000, "budget", sampling=True, efforts=(), system_turns=False
    ),
    ModelRules(
        ("claude-opus-4", "claude-4-opus"),
        32_000,
        "budget",
        sampling=True,
        efforts=(),
        structured=False,
        system_turns=False,
    ),
    ModelRules(
        ("claude-sonnet-4", "claude-4-sonnet", "claude-3-7"),
        64_000,
        "budget",
        sampling=True,
        efforts=(),
        structured=False,
        system_turns=False,
    ),
    ModelRules(
        ("claude-3-5",), 8192, None, sampling=True, disable=False, efforts=(), structured=False, system_turns=False
    ),
    ModelRules(
        ("claude-3",), 4096, None, sampling=True, disable=False, efforts=(), structured=False, system_turns=False
    ),
    ModelRules(
        ("claude-2", "claude-v2", "claude-instant"),
        4096,
        None,
        sampling=True,
        disable=False,
        efforts=(),
        structured=False,
        tools=False,
        system_turns=False,
    ),
    ModelRules(("claude",), max_tokens=64_000),
)
_FOREIGN = ModelRules((), None, None, sampling=True, disable=False, system_turns=False)


def rules_of(model: str) -> ModelRules:
    """The rules for a model, however its name is dressed (``us.anthropic.claude-...``, ``claude-...@20250929``)."""
    name = model.lower()
    at = name.find("claude")
    if at < 0:
        return _FOREIGN
    bare = name[at:].replace(".", "-")
    return next((rules for rules in _TABLE if bare.startswith(rules.prefixes)), _FOREIGN)


def nearest_effort(word: str, efforts: tuple[str, ...]) -> str | None:
    """The level that a model knows which comes nearest to ``word``, from below where there is one; None if the model
    knows no levels. ``word`` is one of `LADDER`."""
    if not efforts:
        return None
    height = LADDER.index(word)
    return next((level for level in reversed(efforts) if LADDER.index(level) <= height), efforts[0])
