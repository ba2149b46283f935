"""Token counts in every spelling of the OpenAI-compatible world, and finish reasons likewise."""

from __future__ import annotations

from typing import Any

from ...events import FinishReason, Usage
from ..lenient import count

FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,  # Together
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,  # Mistral
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
    "abort": FinishReason.ABORT,  # SGLang, vLLM
    "error": FinishReason.ERROR,
    "insufficient_system_resource": FinishReason.ERROR,  # DeepSeek
}
"""A provider's word, in lower case -> ours; any other word is `FinishReason.UNKNOWN`."""


def read_usage(value: Any) -> Usage | None:
    """The counts in a ``usage`` object, None where it has none.

    ``prompt_tokens`` includes cached ones and ``completion_tokens`` includes reasoning; where a provider counts
    reasoning beside the completion (xAI: the total says so), it is added. Cached tokens are found in
    ``prompt_tokens_details`` (OpenAI), ``prompt_cache_hit_tokens`` (DeepSeek) or flat (Together), reasoning in
    ``completion_tokens_details`` or flat (SGLang).
    """
    if not isinstance(value, dict):
        return None
    prompt_details = value.get("prompt_tokens_details") or value.get("input_tokens_details")
    output_details = value.get("completion_tokens_details") or value.get("output_tokens_details")
    cached = _first(prompt_details, "cached_tokens") or _first(
        value, "cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "num_cached_tokens"
    )
    written = _first(prompt_details, "cache_write_tokens", "created_cache_tokens") or _first(
        value, "cache_write_tokens", "created_cache_tokens", "cache_creation_input_tokens"
    )
    reasoning = _first(output_details, "reasoning_tokens") or _first(value, "reasoning_tokens") or 0
    prompt = _first(value, "prompt_tokens", "input_tokens")
    output = _first(value, "completion_tokens", "output_tokens")
    total = _first(value, "total_tokens")
    if prompt is None:
        hit, miss = _first(value, "prompt_cache_hit_tokens"), _first(value, "prompt_cache_miss_tokens")
        if hit is not None and miss is not None:
            prompt = hit + miss
        elif total is not None and output is not None:
            prompt = max(0, total - output)
    if output is None and total is not None and prompt is not None:
        output = max(0, total - prompt)
    if prompt is None and output is None:
        return None
    prompt, output = prompt or 0, output or 0
    if reasoning and total == prompt + output + reasoning:
        output += reasoning
    return Usage(prompt, output, cached or 0, written or 0, reasoning)


def write_usage(usage: Usage) -> dict[str, Any]:
    """The ``usage`` object that OpenAI's clients expect."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _first(value: Any, *names: str) -> int | None:
    """The first of some keys that holds a count."""
    if isinstance(value, dict):
        for name in names:
            found = count(value.get(name))
            if found is not None:
                return found
    return None
