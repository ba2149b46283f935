"""`Ask` as vLLM's ``SamplingParams``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..local.answer import TOOL_CLOSE, TOOL_OPEN
from ..local.ask import arguments

if TYPE_CHECKING:
    from ..local.ask import Ask

_SEEDS = 2**63


def sampling(ask: Ask, *, structured: Any = None, skip_special: bool | None = None) -> Any:
    """The parameters of one request.

    Args:
        ask: what is asked. Stop strings are vLLM's to find: it ends the sequence in the very step, and counts no token
            after the one that completed the string.
        structured: ``StructuredOutputsParams`` that replace those of ``ask``.
        skip_special: whether special tokens are left out of the text, if not as ``ask`` says.

    Raises:
        vllm.exceptions.VLLMValidationError: a value is out of range.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    # vLLM wants a top_p above nothing, and more than one answer only where there is a choice.
    only_the_best = ask.top_p <= 0.0 or (ask.n > 1 and ask.temperature <= 0)
    return SamplingParams(
        n=ask.n,
        max_tokens=ask.max_tokens,
        min_tokens=ask.min_tokens,
        temperature=1.0 if only_the_best else ask.temperature,
        top_k=1 if only_the_best else ask.top_k,
        top_p=1.0 if only_the_best else ask.top_p,
        min_p=ask.min_p,
        frequency_penalty=ask.frequency_penalty,
        presence_penalty=ask.presence_penalty,
        repetition_penalty=ask.repetition_penalty,
        seed=None if ask.seed is None else ask.seed % _SEEDS,
        # Of two that end at the same character vLLM takes the first in the list; with us the longer one counts.
        stop=sorted((stop for stop in ask.stop if stop), key=len, reverse=True) or None,
        stop_token_ids=list(ask.stop_ids) or None,
        logit_bias=dict(ask.logit_bias) or None,
        logprobs=ask.logprobs,
        structured_outputs=structured if structured is not None else shape(ask),
        skip_special_tokens=ask.skip_special if skip_special is None else skip_special,
        spaces_between_special_tokens=False,
        output_kind=RequestOutputKind.DELTA,
    )


def shape(ask: Ask) -> Any:
    """The prescribed form of the answer, or None."""
    from vllm.sampling_params import StructuredOutputsParams

    if ask.schema is not None:
        return StructuredOutputsParams(json=ask.schema)
    if ask.regex is not None:
        return StructuredOutputsParams(regex=ask.regex)
    if ask.choice is not None:
        return StructuredOutputsParams(choice=list(ask.choice))
    if ask.grammar is not None:
        return StructuredOutputsParams(grammar=ask.grammar)
    if ask.must_call and ask.tools:
        return StructuredOutputsParams(structural_tag=json.dumps(_one_call(ask.tools)))
    return None


def _one_call(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """The "hermes" markup around one call, as xgrammar's structural tag."""
    calls = [_call(tool["function"]["name"], arguments(tool)) for tool in tools]
    return {
        "type": "structural_tag",
        "format": {
            "type": "tag",
            "begin": f"{TOOL_OPEN}\n",
            "content": {"type": "or", "elements": calls} if len(calls) > 1 else calls[0],
            "end": f"\n{TOOL_CLOSE}",
        },
    }


def _call(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if not schema.get("properties") and schema.get("additionalProperties") is False:
        # To the letter: a schema leaves room for blanks, and a model that wants to say more would go on with them.
        return {"type": "const_string", "value": json.dumps({"name": name, "arguments": {}}, ensure_ascii=False)}
    properties = {"name": {"const": name}, "arguments": schema}
    called = {"type": "object", "properties": properties, "required": ["name", "arguments"]}
    return {"type": "json_schema", "json_schema": called}
