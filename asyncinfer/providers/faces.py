"""Further formats of providers that also speak Chat Completions: OpenAI Responses, and SGLang's own ``/generate``.

A face is a row of its own, made from the provider's: an ``api_url`` whose path says ``/responses`` or ``/generate``
chooses it (`Provider.faces`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..dialect import PATTERNS, TOLD, Dialect

if TYPE_CHECKING:
    from .row import Provider

_RESPONSES = {
    "max_new_tokens": "max_output_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "logprobs": "include",
    "top_logprobs": "top_logprobs",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
    "reasoning_effort": "reasoning.effort",
}
_GENERATE = {
    name: f"sampling_params.{wire}"
    for name, wire in {
        "max_new_tokens": "max_new_tokens",
        "min_new_tokens": "min_new_tokens",
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "min_p": "min_p",
        "frequency_penalty": "frequency_penalty",
        "presence_penalty": "presence_penalty",
        "repetition_penalty": "repetition_penalty",
        "stop_strings": "stop",
        "stop_token_ids": "stop_token_ids",
        "logit_bias": "logit_bias",
        "seed": "sampling_seed",
        "skip_special_tokens": "skip_special_tokens",
        "n": "n",
    }.items()
} | {"logprobs": "return_logprob", "top_logprobs": "top_logprobs_num"}
_GUIDED = {
    "json": "sampling_params.json_schema",
    "regex": "sampling_params.regex",
    "choice": "sampling_params.regex",
    "grammar": "sampling_params.ebnf",
}


def responses(row: Provider) -> Provider:
    """The face of a provider that speaks OpenAI Responses. Where its models have rules, they are those of models that
    reason, and their reasoning comes back encrypted."""
    chat = row.dialect
    options = {name: value for name, value in (chat.stream_options or {}).items() if name != "include_usage"}
    return replace(
        row,
        name=f"{row.name}_responses",
        title=f"{row.title}, Responses",
        codec="openai_responses",
        dialect=Dialect(
            path="/responses",
            fields=_RESPONSES,
            guided=TOLD if chat.guided.get("regex") == "told" else PATTERNS,
            strict=chat.strict,
            stream_options=options or None,
            reasoning="reasoning_details" if chat.model_rules else None,
            developer_role=chat.developer_role,
            image_urls=chat.image_urls,
            document_urls=True,
            user_field=chat.user_field,
            adapter_field=chat.adapter_field if chat.adapter_field == "model" else None,
            model_rules=chat.model_rules,
            rate_windows=chat.rate_windows,
        ),
        faces={},
    )


def generate(row: Provider) -> Provider:
    """The face of a server that speaks SGLang's own format, at its root."""
    return replace(
        row,
        name=f"{row.name}_generate",
        title=f"{row.title}, /generate",
        codec="sglang",
        dialect=Dialect(
            path="/generate",
            fields=_GENERATE,
            guided=_GUIDED,
            user_field=None,
            adapter_field="lora_path",
            template_kwargs=True,
        ),
        models_path="/v1/models",
        faces={},
        api_path="",
        takes_prompt=True,
    )


def with_faces(rows: tuple[Provider, ...], speak_responses: set[str], speak_generate: set[str]) -> tuple[Provider, ...]:
    """The rows and their further faces, these first: of two rows with one host the later counts."""
    faces: list[Provider] = []
    own: list[Provider] = []
    for row in rows:
        found = dict(row.faces)
        for name, make in (("/responses", responses), ("/generate", generate)):
            if row.name in (speak_responses if make is responses else speak_generate):
                faces.append(make(row))
                found[name] = faces[-1].name
        own.append(replace(row, faces=found) if found != row.faces else row)
    return (*faces, *own)
