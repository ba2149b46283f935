"""The rows. The facts come from the providers' public documentation and client packages; a wrong one is mended here and
nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..dialect import CHAT_FIELDS as _FIELDS
from ..dialect import MESSAGES_FIELDS, PATTERNS, Dialect, ModelRule
from ..limits import Limits
from .faces import with_faces
from .google import GOOGLE_ROWS
from .row import ChatModels, Provider

_SAMPLERS = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}
_SERVER = {
    **_FIELDS,
    **_SAMPLERS,
    "stop_token_ids": "stop_token_ids",
    "min_new_tokens": "min_tokens",
    "skip_special_tokens": "skip_special_tokens",
}


def _but(fields: dict[str, str], *without: str, **spelled: str) -> dict[str, str]:
    """A copy of a table of parameters, without some and with some spelled otherwise."""
    return {name: wire for name, wire in (fields | spelled).items() if name not in without}


# OpenAI's models, first match counts: which of them reason by default, and whether effort "none" turns that off.
_WHILE_REASONING: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": None,
}
_OPENAI_RULES = (
    ModelRule(("gpt-6.1-terra", "gpt-6-sol", "gpt-6-luna"), _WHILE_REASONING, "unless_none"),
    ModelRule(("gpt-6",), _WHILE_REASONING),
    ModelRule(("gpt-5.5-pro", "gpt-5.4-pro", "gpt-5.2-pro"), _WHILE_REASONING),
    ModelRule(("gpt-5.6", "gpt-5.5"), _WHILE_REASONING, "unless_none"),
    ModelRule(
        ("gpt-5.1-chat", "gpt-5.2-chat", "gpt-5.3-chat", "gpt-5.1-codex", "gpt-5.2-codex", "gpt-5.3-codex"),
        _WHILE_REASONING,
    ),
    ModelRule(("gpt-5.1", "gpt-5.2", "gpt-5.3", "gpt-5.4"), _WHILE_REASONING, "if_effort"),
    ModelRule(("gpt-5-chat",), {"reasoning_effort": None}),
    ModelRule(("gpt-5",), _WHILE_REASONING),
    ModelRule(("o3", "o4"), {**_WHILE_REASONING, "stop_strings": None}),
    ModelRule(("o1",), _WHILE_REASONING),
)
_GROK_RULES = (
    ModelRule(
        ("grok-4", "grok-3-mini", "grok-code"),
        {"presence_penalty": 0.0, "frequency_penalty": 0.0, "stop_strings": None},
    ),
)

_OPENAI_OTHERS = (
    "babbage-",
    "chatgpt-image",
    "computer-use",
    "dall-e-",
    "davinci-",
    "gpt-image",
    "gpt-realtime",
    "gpt-audio",
    "omni-moderation-",
    "sora-",
    "text-embedding-",
    "text-moderation",
    "tts-",
    "whisper-",
)
_COMPLETION_TOKENS = _but(_FIELDS, max_new_tokens="max_completion_tokens")
_OPENAI = Dialect(
    fields=_COMPLETION_TOKENS,
    guided=PATTERNS,
    strict="closable",
    # Padding against length-guessing costs bytes on every token; TLS users who want it set it through extra_body.
    stream_options={"include_usage": True, "include_obfuscation": False},
    developer_role=True,
    user_field="safety_identifier",
    model_rules=_OPENAI_RULES,
)
_ANY_SERVER = Dialect(fields=_SERVER, guided=PATTERNS)
_VLLM = Dialect(
    fields=_SERVER,
    guided={
        "json": "json_schema",
        "regex": "structured_outputs.regex",
        "choice": "structured_outputs.choice",
        "grammar": "structured_outputs.grammar",
    },
    reasoning="reasoning",
    group_turns=True,
    tool_images=True,
    template_kwargs=True,
    adapter_field="model",
)
_LLAMA = Dialect(
    fields=_but(
        _SERVER, "stop_token_ids", "min_new_tokens", "skip_special_tokens", repetition_penalty="repeat_penalty"
    ),
    guided={"json": "json_schema", "grammar": "grammar", "choice": "grammar", "regex": "wrapped"},
    reasoning="reasoning_content",
    template_kwargs=True,
)

_OWN: tuple[Provider, ...] = (
    Provider(
        "openai",
        "OpenAI",
        "https://api.openai.com/v1",
        ("OPENAI_API_KEY",),
        dialect=_OPENAI,
        limits=Limits(charge="reserve"),
        chat_models=ChatModels(others=_OPENAI_OTHERS),
        hosts=(".api.openai.com",),
        batch="openai",
    ),
    Provider(
        "anthropic",
        "Anthropic",
        "https://api.anthropic.com/v1",
        ("ANTHROPIC_API_KEY",),
        codec="anthropic_messages",
        auth="x-api-key",
        dialect=Dialect(
            path="/messages",
            fields=MESSAGES_FIELDS,
            guided={"json": "output_config.format", "choice": "wrapped", "regex": "wrapped"},
            document_urls=True,
            user_field="metadata.user_id",
            system_turns=True,
        ),
        # The later 2026-10-21 takes no sampling parameters from any model; extra_headers can ask for it.
        headers={"anthropic-version": "2023-06-01"},
        auth_elsewhere="bearer",
        batch="anthropic",
    ),
    Provider(
        "azure_openai",
        "Azure OpenAI",
        None,
        ("AZURE_OPENAI_API_KEY",),
        auth="api-key",
        dialect=replace(_OPENAI, stream_options={"include_usage": True}, user_field="user"),
        limits=Limits(charge="reserve"),
        hosts=(".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
        api_path="/openai/v1",
    ),
    Provider(
        "together",
        "Together AI",
        "https://api.together.ai/v1",
        ("TOGETHER_API_KEY",),
        # Its final chunk has the usage unasked; stream_options is not among its documented fields.
        dialect=Dialect(
            fields=_but(_FIELDS | _SAMPLERS, "top_logprobs", "parallel_tool_calls"),
            stream_options=None,
            user_field=None,
            logprobs_count=True,
        ),
        chat_models=ChatModels("type", "chat"),
        hosts=("api.together.xyz",),
        batch="together",
    ),
    Provider(
        "deepseek",
        "DeepSeek",
        "https://api.deepseek.com",
        ("DEEPSEEK_API_KEY",),
        dialect=Dialect(
            fields=_but(_FIELDS, "seed", "logit_bias", "n", "parallel_tool_calls"),
            guided={"json": "json_object", "choice": "wrapped", "regex": "wrapped"},
            reasoning="reasoning_content",
            reasoning_turns="tools",
            flat_text=True,
            user_field=None,
        ),
        limits=Limits(max_concurrency=500),
    ),
    Provider(
        "sambanova",
        "SambaNova",
        "https://api.sambanova.ai/v1",
        ("SAMBANOVA_API_KEY",),
        dialect=Dialect(
            fields=_but(_FIELDS, "n", "logit_bias", "frequency_penalty", "presence_penalty") | {"top_k": "top_k"},
            user_field=None,
        ),
    ),
    Provider(
        "parasail",
        "Parasail",
        "https://api.parasail.io/v1",
        ("PARASAIL_API_KEY",),
        dialect=Dialect(fields=_FIELDS | _SAMPLERS, guided=PATTERNS),
        batch="openai",
    ),
    Provider(
        "lambda",
        "Lambda",
        None,
        ("LAMBDA_API_KEY",),
        dialect=_ANY_SERVER,
        note=(
            "Lambda ended its Inference API on 2025-09-25, so there is no default endpoint: set remote_params.api_url "
            "to a server of your own (any OpenAI-compatible one), or choose another engine."
        ),
        key_required=False,
    ),
    Provider(
        "fireworks",
        "Fireworks AI",
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY",),
        dialect=Dialect(
            fields=_FIELDS | _SAMPLERS,
            guided={
                "json": "json_schema",
                "grammar": "response_format.grammar",
                "choice": "response_format.grammar",
                "regex": "told",
            },
            reasoning="reasoning_content",
        ),
        chat_models=ChatModels("supports_chat", value=True),
        hosts=("us.api.fireworks.ai",),
        batch="fireworks",
    ),
    Provider(
        "openrouter",
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY", "OR_API_KEY"),
        dialect=Dialect(
            fields=_but(_FIELDS | _SAMPLERS, reasoning_effort="reasoning.effort"),
            reasoning="reasoning_details",
            document_urls=True,
        ),
    ),
    Provider(
        "cerebras",
        "Cerebras",
        "https://api.cerebras.ai/v1",
        ("CEREBRAS_API_KEY",),
        dialect=Dialect(
            fields=_but(_COMPLETION_TOKENS, "n") | {"min_new_tokens": "min_tokens"},
            reasoning="reasoning",
            reasoning_turns="tools",
            flat_text=True,
        ),
        limits=Limits(charge="reserve"),
    ),
    Provider(
        "huggingface",
        "Hugging Face Router",
        "https://router.huggingface.co/v1",
        ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        dialect=Dialect(fields=_FIELDS | _SAMPLERS),
    ),
    *GOOGLE_ROWS,
    Provider(
        "groq",
        "Groq",
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        dialect=Dialect(
            fields=_but(_COMPLETION_TOKENS, "n", "logit_bias", "logprobs", "top_logprobs"),
            strict="asked",  # some of its models refuse the word
            rate_windows={"requests": 86400.0},
        ),
        batch="openai",
    ),
    Provider(
        "mistral",
        "Mistral AI",
        "https://api.mistral.ai/v1",
        ("MISTRAL_API_KEY",),
        # Unknown body keys are refused with 422; usage comes unasked on the last chunk.
        dialect=Dialect(
            fields=_but(_FIELDS, "logit_bias", "logprobs", "top_logprobs", seed="random_seed"),
            stream_options=None,
            reasoning="content",
            user_field=None,
        ),
    ),
    Provider(
        "xai",
        "xAI",
        "https://api.x.ai/v1",
        ("XAI_API_KEY", "GROK_API_KEY"),
        dialect=Dialect(fields=_COMPLETION_TOKENS, model_rules=_GROK_RULES),
        hosts=("us.api.x.ai",),
    ),
    Provider(
        "nvidia",
        "NVIDIA NIM",
        "https://integrate.api.nvidia.com/v1",
        ("NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"),
        dialect=Dialect(fields=_FIELDS, guided=PATTERNS, user_field=None),
    ),
    Provider(
        "ollama",
        "Ollama",
        "http://127.0.0.1:11434/v1",
        ("OLLAMA_API_KEY",),
        dialect=Dialect(
            fields=_but(_FIELDS, "tool_choice", "parallel_tool_calls", "logit_bias", "n", "logprobs", "top_logprobs"),
            guided=PATTERNS,
            image_urls=False,
            user_field=None,
        ),
        key_required=False,
        hosts=("ollama.com",),
    ),
    Provider(
        "lmstudio",
        "LM Studio",
        "http://localhost:1234/v1",
        ("LM_STUDIO_API_KEY",),
        dialect=Dialect(
            fields=_but(_FIELDS | {"top_k": "top_k", "repetition_penalty": "repeat_penalty"}, "n"),
            guided=PATTERNS,
            image_urls=False,
            user_field=None,
        ),
        key_required=False,
    ),
    Provider(
        "llama-server",
        "llama.cpp server",
        "http://127.0.0.1:8080/v1",
        ("LLAMACPP_API_KEY",),
        dialect=_LLAMA,
        key_required=False,
    ),
    Provider(
        "sglang",
        "SGLang",
        "http://localhost:30000/v1",
        ("SGLANG_API_KEY",),
        dialect=replace(
            _VLLM,
            guided={"json": "json_schema", "regex": "regex", "choice": "regex", "grammar": "ebnf"},
            reasoning="reasoning_content",
            adapter_field="lora_path",
        ),
        key_required=False,
    ),
    Provider(
        "bedrock",
        "Amazon Bedrock",
        None,
        ("AWS_BEARER_TOKEN_BEDROCK",),
        codec="bedrock",
        dialect=Dialect(
            fields={
                "max_new_tokens": "inferenceConfig.maxTokens",
                "temperature": "inferenceConfig.temperature",
                "top_p": "inferenceConfig.topP",
                "stop_strings": "inferenceConfig.stopSequences",
                "tool_choice": "toolConfig.toolChoice",
                # The names of these two are the model vendor's: see wire.bedrock.families.
                "top_k": "additionalModelRequestFields",
                "reasoning_effort": "additionalModelRequestFields",
            },
            guided={"json": "outputConfig.textFormat", "choice": "wrapped", "regex": "told"},
            image_urls=False,
            user_field="requestMetadata.user_id",
        ),
        limits=Limits(charge="settle"),
        models_path=None,
        key_required=False,  # there is the whole chain of AWS credentials
        batch="bedrock",
    ),
    Provider("remote_vllm", "vLLM server", None, ("VLLM_API_KEY",), dialect=_VLLM, key_required=False),
    Provider("remote", "OpenAI-compatible server", None, dialect=_ANY_SERVER, key_required=False, batch="openai"),
)

ROWS = with_faces(
    _OWN,
    speak_responses={
        "openai",
        "azure_openai",
        "deepseek",
        "fireworks",
        "openrouter",
        "groq",
        "xai",
        "ollama",
        "lmstudio",
        "llama-server",
        "sglang",
        "remote_vllm",
        "remote",
    },
    speak_generate={"sglang"},
)
