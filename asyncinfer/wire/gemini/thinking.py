"""How much a Gemini model thinks: which families take a budget of tokens, which a level, which neither.

The facts are Google's: the 2.5 family takes ``thinkingBudget`` (its Pro cannot switch thinking off), later ones take
``thinkingLevel``, of which not every model knows all, older ones do not think.
"""

from __future__ import annotations

import re
from typing import Any

_BUDGETS = {
    "none": 0,
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 24576,
    "max": 24576,
    "auto": -1,
    "dynamic": -1,
}
_LEVELS = {"none": "MINIMAL", "max": "XHIGH"}
_LADDER = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
# Levels that some models lack, first match counts. From 3.7 on Flash knows no MINIMAL; Flash-Lite does.
_LACKING = (
    (re.compile(r"gemini-3-pro-image"), {"MINIMAL", "LOW", "MEDIUM", "XHIGH"}),
    (re.compile(r"gemini-3-pro"), {"MINIMAL", "MEDIUM", "XHIGH"}),
    (re.compile(r"gemini-3\.1-pro"), {"MINIMAL", "XHIGH"}),
    (re.compile(r"gemini-[3-9][\d.]*-pro|gemini-pro-latest"), {"MINIMAL"}),
    (re.compile(r"gemini-3\.(?:[7-9]|\d\d)-flash(?!-lite)|gemini-flash-latest"), {"MINIMAL", "XHIGH"}),
    (re.compile(r"gemini-3(?:\.\d+)?-flash"), {"XHIGH"}),
)
_WITHOUT = ("gemini-1", "gemini-2.0", "gemma", "learnlm", "text-", "aqa")
_LEAST_PRO = 128


def _bare(model: str) -> str:
    return model.lower().rpartition("/")[2]


def thinks(model: str) -> bool:
    """Whether a model takes a thinking configuration at all."""
    return not _bare(model).startswith(_WITHOUT)


def needs_signatures(model: str) -> bool:
    """Whether a model refuses calls of the current turn that carry no signature: the families after 2.5 do."""
    return thinks(model) and not _bare(model).startswith("gemini-2.5")


def thinking_config(effort: str, model: str) -> dict[str, Any] | None:
    """The ``thinkingConfig`` for an effort (``"none"`` ... ``"high"``, or a number of tokens), None for a model that
    takes none."""
    word, bare = effort.strip().lower(), _bare(model)
    if not thinks(model):
        return None
    config: dict[str, Any] = {} if word in {"none", "0"} else {"includeThoughts": True}
    tokens = int(word) if word.lstrip("-").isdigit() else None
    if tokens is None and bare.startswith("gemini-2.5"):
        tokens = _BUDGETS.get(word)
    if tokens is not None:
        if "pro" in bare and tokens >= 0:
            tokens = max(tokens, _LEAST_PRO)
        config["thinkingBudget"] = tokens
    elif word not in {"auto", "dynamic"}:
        config["thinkingLevel"] = _known_level(_LEVELS.get(word, word.upper()), bare)
    return config


def _known_level(level: str, bare: str) -> str:
    """The level that the model knows which comes nearest to ``level``, from below where there is one. What is no level
    is left for the service to refuse."""
    lacking = next((lacking for names, lacking in _LACKING if names.match(bare)), set())
    if level not in lacking:
        return level
    known = [each for each in _LADDER if each not in lacking]
    below = [each for each in known if _LADDER.index(each) < _LADDER.index(level)]
    return below[-1] if below else known[0]
