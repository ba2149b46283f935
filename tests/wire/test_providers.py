"""The rows, hosts that are known by name, and what an ``api_url`` may look like."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.errors import ConfigError
from asyncinfer.params import GenerationParams
from asyncinfer.providers import PROVIDERS, provider_for_host, resolve_api_url

NAMES = [
    *("openai", "together", "deepseek", "sambanova", "parasail", "lambda", "fireworks", "openrouter", "cerebras"),
    *("huggingface", "gemini", "groq", "mistral", "xai", "nvidia", "ollama", "lmstudio", "llama-server", "remote"),
    *("remote_vllm", "sglang", "azure_openai"),
]


def test_every_provider_of_the_specification_has_a_row():
    assert set(NAMES) <= set(PROVIDERS)
    assert all(name == row.name for name, row in PROVIDERS.items())


@pytest.mark.parametrize("row", PROVIDERS.values(), ids=PROVIDERS)
def test_a_row_is_consistent(row):
    if row.base_url is not None:
        assert row.base_url.startswith("https://" if row.key_required else "http")
        assert not row.base_url.endswith("/")
    assert not row.key_required or row.key_env
    known = set(GenerationParams.model_fields)
    assert set(row.dialect.fields) <= known
    assert set(row.dialect.guided) <= {"json", "regex", "choice", "grammar"}
    for rule in row.dialect.model_rules:
        assert set(rule.drops) <= known
        assert all(prefix == prefix.lower() for prefix in rule.prefixes)
    assert pickle.loads(pickle.dumps(row)) == row


def test_a_service_that_ended_says_so():
    assert PROVIDERS["lambda"].base_url is None
    assert "2025" in PROVIDERS["lambda"].note
    assert "api_url" in PROVIDERS["lambda"].note


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.openai.com", "openai"),
        ("API.OpenAI.com.", "openai"),
        ("eu.api.openai.com", "openai"),
        ("api.openai.com:443", "openai"),
        ("api.openai.com.evil.example", None),
        ("notapi.openai.com", None),
        ("my-resource.openai.azure.com", "azure_openai"),
        ("api.together.xyz", "together"),
        ("api.together.ai", "together"),
        ("router.huggingface.co", "huggingface"),
        ("ollama.com", "ollama"),
        ("localhost", None),
        ("127.0.0.1:11434", None),
        ("example.org", None),
        ("", None),
    ],
)
def test_known_hosts(host, name):
    row = provider_for_host(host)
    assert (row.name if row else None) == name


@pytest.mark.parametrize(
    ("url", "name", "chat", "models"),
    [
        ("http://h:8000", "remote", "http://h:8000/v1/chat/completions", "http://h:8000/v1/models"),
        ("http://h:8000/", "remote", "http://h:8000/v1/chat/completions", "http://h:8000/v1/models"),
        (" http://h:8000/v1/ ", "remote", "http://h:8000/v1/chat/completions", "http://h:8000/v1/models"),
        ("http://h/v1/chat/completions", "remote", "http://h/v1/chat/completions", "http://h/v1/models"),
        ("http://h/v1/chat/completions/", "remote", "http://h/v1/chat/completions", "http://h/v1/models"),
        ("http://h/chat/completions", "remote", "http://h/chat/completions", "http://h/models"),
        ("http://h/v1/completions", "remote", "http://h/v1/chat/completions", "http://h/v1/models"),
        ("http://h/v1/models", "remote", "http://h/v1/chat/completions", "http://h/v1/models"),
        ("http://h/proxy/llm/v1", "remote", "http://h/proxy/llm/v1/chat/completions", "http://h/proxy/llm/v1/models"),
        ("http://h/v1?tier=a", "remote", "http://h/v1/chat/completions?tier=a", "http://h/v1/models?tier=a"),
        ("http://[::1]:8000", "remote", "http://[::1]:8000/v1/chat/completions", "http://[::1]:8000/v1/models"),
        ("http://h:30000/generate", "sglang", "http://h:30000/v1/chat/completions", "http://h:30000/v1/models"),
        (
            "https://api.groq.com",
            "remote",
            "https://api.groq.com/openai/v1/chat/completions",
            "https://api.groq.com/openai/v1/models",
        ),
        (
            "https://api.deepseek.com",
            "remote",
            "https://api.deepseek.com/chat/completions",
            "https://api.deepseek.com/models",
        ),
        ("http://h:1", "deepseek", "http://h:1/v1/chat/completions", "http://h:1/v1/models"),
        (
            "https://openrouter.ai/api/v1",
            "openrouter",
            "https://openrouter.ai/api/v1/chat/completions",
            "https://openrouter.ai/api/v1/models",
        ),
        (
            "https://r.openai.azure.com",
            "remote",
            "https://r.openai.azure.com/openai/v1/chat/completions",
            "https://r.openai.azure.com/openai/v1/models",
        ),
        (
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "azure_openai",
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "https://r.openai.azure.com/openai/models?api-version=2024-10-21",
        ),
        (
            "https://r.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
            "azure_openai",
            "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "https://r.openai.azure.com/openai/models?api-version=2024-10-21",
        ),
    ],
)
def test_an_api_url_in_every_form(url, name, chat, models):
    urls = resolve_api_url(url, PROVIDERS[name])
    assert urls.join("/chat/completions") == chat
    assert urls.models == models


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://h/v1", "http://", "http://h:99999", "//h/v1", "h/v1"])
def test_what_is_no_url_is_an_error_with_an_example(url):
    with pytest.raises(ConfigError, match="http://localhost:8000/v1") as caught:
        resolve_api_url(url, PROVIDERS["remote"])
    assert caught.value.path == "remote_params.api_url"


def test_a_password_in_a_bad_url_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        resolve_api_url("ftp://user:hunter2@h/v1", PROVIDERS["remote"])
    assert "hunter2" not in str(caught.value)


@given(st.text("abc/:.?@[]#%1", max_size=20))
def test_any_text_is_a_url_or_a_typed_error(text):
    try:
        urls = resolve_api_url("http://" + text, PROVIDERS["remote"])
    except ConfigError:
        return
    again = resolve_api_url(urls.join("/chat/completions"), PROVIDERS["remote"])
    assert again.join("/chat/completions") == urls.join("/chat/completions")
