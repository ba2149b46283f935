"""Models that only read are refused; one that cannot be batched continuously says so in one line."""

from __future__ import annotations

import shutil

import pytest

from asyncinfer import EngineError, ModelParams, NativeTextInferenceEngine
from asyncinfer.models import embedded_model

pytestmark = [pytest.mark.native, pytest.mark.asyncio]


async def test_an_encoder_is_refused(tmp_path):
    """Transformers takes BERT for a model that writes."""
    from transformers import BertConfig, BertForMaskedLM

    shutil.copytree(
        embedded_model("hf"), tmp_path / "model", ignore=shutil.ignore_patterns("config.json", "*.safetensors")
    )
    config = BertConfig(
        vocab_size=3000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertForMaskedLM(config).save_pretrained(tmp_path / "model")
    engine = NativeTextInferenceEngine(ModelParams(model_name=str(tmp_path / "model")))
    with pytest.raises(EngineError, match=r"is an encoder \(bert\)"):
        await engine.ready()


async def test_a_model_that_the_library_cannot_batch_is_served_without_a_traceback(monkeypatch, caplog, capfd):
    from transformers.generation.continuous_batching import continuous_api

    def fail(self):
        raise ValueError("not with this model")

    monkeypatch.setattr(continuous_api.ContinuousBatchingManager, "_create_batch_processor", fail)
    with caplog.at_level("DEBUG"):
        async with NativeTextInferenceEngine() as engine:
            assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
    assert not capfd.readouterr().err
    assert not [record for record in caplog.records if record.name == continuous_api.logger.name]
    assert [record.levelname for record in caplog.records if "not with this model" in record.getMessage()] == [
        "DEBUG",
        "WARNING",
    ]
