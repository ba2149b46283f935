"""What a model's name says about it: the vendor's own words for top_k and for thinking.

Model ids are ``[region.]vendor.name-version``, bare or at the end of an ARN; the names of application inference
profiles, prompts and routers say nothing, and neither do we. What each Claude takes stands in `wire.anthropic.models`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..anthropic.models import BUDGETS, LADDER, nearest_effort, rules_of

Thinking = Literal["claude", "nova", "effort", "config"]

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


def structured(model: str) -> bool:
    """Whether the model can be held to a JSON Schema, as far as its name tells."""
    return rules_of(model).structured


def takes_tools(model: str) -> bool:
    """Whether the model takes tools, as far as its name tells."""
    return rules_of(model).tools


def refused(model: str, effort: str | None) -> frozenset[str]:
    """Sampling parameters that the model refuses, with thinking at ``effort``."""
    rules = rules_of(model)
    thinks = effort not in {None, "none"} and rules.thinking is not None
    return _SAMPLING if thinks or not rules.sampling else frozenset()


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
    rules = rules_of(name)
    if effort == "none":
        if rules.always:
            return None
        # Where sampling is taken, thinking is off unless it is asked for.
        return {"thinking": {"type": "disabled"}} if rules.disable and not rules.sampling else {}
    if effort not in LADDER or rules.thinking is None:
        return None
    if rules.thinking == "adaptive":
        level = nearest_effort(effort, rules.efforts)
        return {"thinking": {"type": "adaptive"}, **({"output_config": {"effort": level}} if level else {})}
    budget, least = BUDGETS[effort], min(BUDGETS.values())
    if max_tokens is not None:
        if max_tokens <= least:
            return None  # not even the least budget fits
        budget = min(budget, max(least, max_tokens * 3 // 4))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}
