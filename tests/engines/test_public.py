"""The flat public face."""

from __future__ import annotations

import pytest

import asyncinfer
from asyncinfer.engines.opening import ENGINES, engine_class
from asyncinfer.providers import PROVIDERS


def test_every_promised_name_is_there() -> None:
    rooms = {name for names in asyncinfer._ROOMS.values() for name in names.split()}
    assert set(asyncinfer.__all__) == rooms | {"__version__"}
    for name in asyncinfer.__all__:
        assert getattr(asyncinfer, name) is not None
    assert set(asyncinfer.__all__) <= set(dir(asyncinfer))
    with pytest.raises(AttributeError, match="Nonsense"):
        asyncinfer.Nonsense  # noqa: B018


def test_every_engine_type_opens_the_class_of_its_row() -> None:
    assert set(ENGINES) == set(asyncinfer.InferenceEngineType)
    for kind in ENGINES:
        found = engine_class(kind)
        assert issubclass(found, asyncinfer.Engine)
        assert found.get_supported_params() <= set(asyncinfer.GenerationParams.model_fields)
        if issubclass(found, asyncinfer.RemoteInferenceEngine):
            assert found.name in PROVIDERS


def test_unknown_engines_name_the_nearest() -> None:
    with pytest.raises(asyncinfer.ConfigError, match="openai"):
        asyncinfer.open_engine("opnai:gpt-4o")
    with pytest.raises(asyncinfer.ConfigError, match="engine:model"):
        asyncinfer.open_engine("gpt-4o")


def test_unsupported_parameters_warn_once_or_fail(caplog: pytest.LogCaptureFixture) -> None:
    remote = asyncinfer.RemoteParams(api_url="http://127.0.0.1:9")
    model = asyncinfer.ModelParams(model_name="m")
    odd = asyncinfer.GenerationParams(num_beams=4)
    engine = asyncinfer.RemoteInferenceEngine(model, remote_params=remote)
    for _ in range(3):
        engine.stream("x", generation=odd)
    assert [record.message for record in caplog.records if "num_beams" in record.message] != []
    assert sum("num_beams" in record.message for record in caplog.records) == 1
    with pytest.raises(asyncinfer.UnsupportedParameterError, match="num_beams"):
        engine.stream("x", generation=asyncinfer.GenerationParams(num_beams=4, strict_params=True))


def test_engines_keep_their_own_copies() -> None:
    model = asyncinfer.ModelParams(model_name="m")
    remote = asyncinfer.RemoteParams(api_url="http://127.0.0.1:9")
    engine = asyncinfer.RemoteInferenceEngine(model, remote_params=remote)
    model.model_name = "other"
    remote.api_key = "sk-later"
    assert engine.model_params.model_name == "m"
    assert engine.remote_params is not None
    assert engine.remote_params.api_key is None
