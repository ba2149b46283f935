"""What a model's name says about it: the vendor's own words for top_k and for thinking.

Model ids are ``[region.]vendor.name-version``, bare or at the end of an ARN; the names of application inference
profiles, prompts and routers say nothing, and neither do we.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Thinking = Literal["claude", "nova", "effort", "config"]

_NEW_CLAUDE = (
    "claude-opus-4-7",
    "claude-opus-4-8",
    "claude-sonnet-5",
    "claude-opus-5",
    "claude-haiku-5-5",
    "claude-fable-5",
    "claude-mythos-5",
)
"""These refuse sampling parameters and thinking budgets."""
_ADAPTIVE_CLAUDE = (*_NEW_CLAUDE, "claude-sonnet-4-6", "claude-opus-4-6", "claude-mythos-preview")
_BUDGET_CLAUDE = ("claude-3-7", "claude-sonnet-4", "claude-opus-4", "claude-haiku-4")
_ALWAYS_THINKING = ("claude-fable-5", "claude-mythos")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32768}
_SAMPLING = frozenset({"temperature", "top_p", "top_k"})


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one vendor are spoken to beyond what Converse has fields for.

    Attributes:
        top_k: path below ``additionalModelRequestFields``, or None where the models have no such parameter.
        thinking: how an effort is written, or None where it cannot be.
    """

    top_k: str | None = "top_k"
    thinking: Thinking | None = None


_UNKNOWN = Family()
_VENDORS: dict[str, Family] = {
    "anthropic": Family(thinking="claude"),
    "amazon": Family("inferenceConfig.topK", thinking="nova"),
    "meta": Family(None),
    "cohere": Family("k"),
    "openai": Family(None, thinking="effort"),
    "qwen": Family(thinking="config"),
    **dict.fromkeys(
        ("ai21", "deepseek", "google", "luma", "minimax", "mistral", "moonshot", "moonshotai", "nvidia"), _UNKNOWN
    ),
    **dict.fromkeys(("stability", "twelvelabs", "writer", "zai"), _UNKNOWN),
}


def vendor_and_name(model: str) -> tuple[str, str]:
    """Vendor and bare name of a model id; both empty where it does not tell."""
    parts = model.lower().rpartition("/")[2].split(".")
    for at, part in enumerate(parts[:-1]):
        if part in _VENDORS:
            return part, ".".join(parts[at + 1 :])
    return "", ""


def top_k_path(model: str) -> str | None:
    """Where top_k goes below ``additionalModelRequestFields``; None where the model knows no such thing."""
    return _VENDORS.get(vendor_and_name(model)[0], _UNKNOWN).top_k


def refused(model: str, effort: str | None) -> frozenset[str]:
    """Sampling parameters that the model refuses, with thinking at ``effort``."""
    vendor, name = vendor_and_name(model)
    if _VENDORS.get(vendor, _UNKNOWN).thinking != "claude":
        return frozenset()
    thinks = effort not in {None, "none"} and name.startswith((*_ADAPTIVE_CLAUDE, *_BUDGET_CLAUDE))
    return _SAMPLING if name.startswith(_NEW_CLAUDE) or thinks else frozenset()


def thinking(model: str, effort: str, max_tokens: int | None) -> dict[str, Any] | None:
    """What an effort means to a model: fields of ``additionalModelRequestFields``; None where it cannot be said.

    Args:
        model: model id.
        effort: ``"none"`` ... ``"max"``, in the words of `GenerationParams.reasoning_effort`.
        max_tokens: what was asked for; a thinking budget must stay below it.
    """
    vendor, name = vendor_and_name(model)
    kind = _VENDORS.get(vendor, _UNKNOWN).thinking
    if kind == "claude":
        return _claude(name, effort, max_tokens)
    if kind == "nova" and name.startswith("nova-2"):
        if effort == "none":
            return {"reasoningConfig": {"type": "disabled"}}
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort}}
    if kind == "effort" and name.startswith("gpt-oss"):
        return {"reasoning_effort": effort}
    if kind == "config":
        return {} if effort == "none" else {"reasoning_config": effort}
    return None


def _claude(name: str, effort: str, max_tokens: int | None) -> dict[str, Any] | None:
    if name.startswith(_ADAPTIVE_CLAUDE):
        if effort == "none":
            disables = name.startswith(_NEW_CLAUDE) and not name.startswith((*_ALWAYS_THINKING, "claude-opus-5-5"))
            return {"thinking": {"type": "disabled"}} if disables else {}
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    if not name.startswith(_BUDGET_CLAUDE):
        return None
    if effort == "none":
        return {}
    budget = _BUDGETS.get(effort)
    if budget is None:
        return None
    if max_tokens is not None:
        if max_tokens <= _BUDGETS["minimal"]:
            return None  # not even the least budget fits
        budget = min(budget, max(_BUDGETS["minimal"], max_tokens * 3 // 4))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}
