"""Fixtures of the local engines: both event loops, and every binding of llama.cpp that is installed."""

from __future__ import annotations

from importlib.util import find_spec

import anyio
import pytest

from asyncinfer import LlamaCppInferenceEngine, ModelParams

INSTALLED = [
    name for name, module in (("llama-cpp-python", "llama_cpp"), ("xllamacpp", "xllamacpp")) if find_spec(module)
]
assert INSTALLED, "these tests need a binding of llama.cpp: pip install 'asyncinfer[llamacpp]'"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="session", params=INSTALLED)
def binding(request):
    return request.param


@pytest.fixture(scope="session")
def engine(binding):
    """One engine for all tests: it lives through many event loops of both kinds."""
    engine = LlamaCppInferenceEngine(ModelParams(model_kwargs={"binding": binding}))
    yield engine
    anyio.run(engine.aclose)


@pytest.fixture
def make(binding):
    """Engines of one's own, with further ``model_kwargs``."""

    def make(**kwargs):
        params = kwargs.pop("params", {})
        return LlamaCppInferenceEngine(ModelParams(model_kwargs={"binding": binding, **kwargs}, **params))

    return make
