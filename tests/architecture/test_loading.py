"""What an import loads: `import asyncinfer` is paid by every web worker, notebook and command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "vllm",
    "llama_cpp",
    "xllamacpp",
    "transformers",
    "ray",
    "numpy",
    "yaml",
    "botocore",
    "aiobotocore",
    "httpx",
    "httpx2",
    "httpcore",
    "aiohttp",
    "rich",
    "typer",
    "click",
    "structlog",
    "tenacity",
    "trio",
}
NOT_EVEN_FOR_REMOTE = HEAVY | {"anyio", "asyncio", "msgspec", "ssl", "http.client"}


def loaded_by(code: str) -> set[str]:
    """Names of all modules that a fresh interpreter has after running ``code``."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import asyncinfer", NOT_EVEN_FOR_REMOTE | {"pydantic"}),
        ("from asyncinfer import Conversation, RemoteInferenceEngine", NOT_EVEN_FOR_REMOTE),
        ("import asyncinfer.__main__", {"torch", "vllm", "transformers", "xllamacpp", "llama_cpp", "ray", "httpx"}),
    ],
)
def test_an_import_loads_no_heavy_package(code, forbidden):
    before = loaded_by("")
    assert not (loaded_by(code) - before) & forbidden


def test_every_public_name_is_there():
    import asyncinfer

    missing = [name for name in asyncinfer.__all__ if not hasattr(asyncinfer, name)]
    assert not missing
    assert set(asyncinfer.__all__) <= set(dir(asyncinfer))


def test_an_unknown_name_is_an_attribute_error():
    import asyncinfer

    with pytest.raises(AttributeError, match="Enginee"):
        asyncinfer.Enginee  # noqa: B018
