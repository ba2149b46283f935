"""Google's rows: the developer API and Vertex AI, each in Gemini's own format and through its OpenAI-compatible face.

``{region}`` and ``{project_id}`` are filled in from parameters or environment when an engine is made. Which of a
service's faces an ``api_url`` means, its path tells (`Provider.faces`).
"""

from __future__ import annotations

from dataclasses import replace

from ..dialect import CHAT_FIELDS, MESSAGES_FIELDS, Dialect
from .row import ChatModels, Provider

_FIELDS = {
    "max_new_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
    "seed": "seed",
    "stop_strings": "stopSequences",
    "n": "candidateCount",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
    "reasoning_effort": "thinkingConfig",
    "tool_choice": "toolConfig",
}
_GUIDED = {"json": "responseJsonSchema", "choice": "responseSchema", "regex": "wrapped"}
_CHAT = {
    name: wire
    for name, wire in CHAT_FIELDS.items()
    if name not in {"logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls"}
}
_COMPATIBLE = Dialect(fields=_CHAT, group_turns=True, user_field=None, call_extras=("extra_content",))
_NATIVE = Dialect(path="/models/", fields=_FIELDS, guided=_GUIDED, document_urls=True, user_field=None)
_VERTEX = replace(_NATIVE, path="/publishers/google/models/")

_DEVELOPER = "https://generativelanguage.googleapis.com/v1beta"
_PLACE = "/v1beta1/projects/{project_id}/locations/{region}"
_CLOUD = "https://{region}-aiplatform.googleapis.com" + _PLACE

_OTHERS = ("imagen", "imagetext", "veo", "lyria", "chirp", "text-embedding", "gemini-embedding", "multimodalembedding")

# Of two rows with one host the later counts: a service's own format comes after its other faces.
GOOGLE_ROWS = (
    Provider(
        "gemini_openai",
        "Google Gemini, OpenAI-compatible",
        _DEVELOPER + "/openai",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        dialect=_COMPATIBLE,
    ),
    Provider(
        "gemini",
        "Google Gemini",
        _DEVELOPER,
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        codec="gemini",
        auth="x-goog-api-key",
        dialect=_NATIVE,
        chat_models=ChatModels("supportedGenerationMethods", "generateContent"),
        api_path="/v1beta",
        faces={"/openai": "gemini_openai"},
        batch="gemini",
    ),
    Provider(
        "google_vertex_openai",
        "Google Vertex AI, OpenAI-compatible",
        _CLOUD + "/endpoints/openapi",
        auth="google",
        dialect=_COMPATIBLE,
        models_path=None,
        key_required=False,
        api_path=_PLACE + "/endpoints/openapi",
    ),
    Provider(
        "google_vertex_express",
        "Google Vertex AI, express mode",
        "https://aiplatform.googleapis.com/v1beta1",
        codec="gemini",
        auth="google",
        dialect=_VERTEX,
        models_path=None,
        key_required=False,
        api_path="/v1beta1",
    ),
    Provider(
        "google_vertex_anthropic",
        "Claude on Vertex AI",
        _CLOUD.replace("/v1beta1/", "/v1/"),
        codec="anthropic_raw_predict",
        auth="google",
        dialect=Dialect(
            path="/publishers/anthropic/",
            fields=MESSAGES_FIELDS,
            guided={"json": "output_config.format", "choice": "wrapped", "regex": "wrapped"},
            user_field="metadata.user_id",
        ),
        models_path="/v1beta1/publishers/anthropic/models",
        models_at_root=True,
        key_required=False,
        api_path=_PLACE.replace("/v1beta1/", "/v1/"),
    ),
    Provider(
        "google_vertex",
        "Google Vertex AI",
        _CLOUD,
        codec="gemini",
        auth="google",
        dialect=_VERTEX,
        models_path="/v1beta1/publishers/google/models",
        models_at_root=True,
        chat_models=ChatModels(others=_OTHERS),
        key_required=False,  # Google's application default credentials
        hosts=(
            "-aiplatform.googleapis.com",
            "aiplatform.googleapis.com",
            "aiplatform.us.rep.googleapis.com",
            "aiplatform.eu.rep.googleapis.com",
        ),
        api_path=_PLACE,
        faces={"/endpoints/openapi": "google_vertex_openai", "/publishers/anthropic": "google_vertex_anthropic"},
        # Claude has a format of its own; the open models of the garden are served through the compatible endpoint.
        families={
            "claude": "google_vertex_anthropic",
            **dict.fromkeys(("meta/", "deepseek-ai/", "qwen/", "openai/"), "google_vertex_openai"),
        },
        keyed="google_vertex_express",
    ),
)
