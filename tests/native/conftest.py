"""Fixtures of the Transformers engine: both event loops, and one engine for all tests."""

from __future__ import annotations

import os

import anyio
import pytest

from asyncinfer import ModelParams, NativeTextInferenceEngine

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: several threads only wait for each other


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="session")
def engine():
    """It lives through many event loops of both kinds."""
    engine = NativeTextInferenceEngine()
    yield engine
    anyio.run(engine.aclose)


@pytest.fixture
def make():
    """Engines of one's own."""

    def make(params=None, **kwargs):
        return NativeTextInferenceEngine(ModelParams(model_kwargs=kwargs, **(params or {})))

    return make
