"""GGUF files that the library cannot load: what is said of them."""

from __future__ import annotations

import anyio
import pytest

from asyncinfer import LlamaCppInferenceEngine, ModelParams
from asyncinfer.engines.llama_cpp.gguf import damage
from asyncinfer.errors import EngineError
from asyncinfer.models import embedded_model

WHOLE = embedded_model("gguf")


async def load(path, binding):
    async with LlamaCppInferenceEngine(ModelParams(model_name=str(path), model_kwargs={"binding": binding})) as engine:
        await engine.ready()


def test_a_whole_file_has_no_damage():
    assert damage(WHOLE) is None


def test_one_byte_less_is_missed(tmp_path):
    short = tmp_path / "short.gguf"
    short.write_bytes(WHOLE.read_bytes()[:-1])
    size = WHOLE.stat().st_size
    assert damage(short) == f"it has {size - 1:,} bytes, and its weights need {size:,}: it was not copied whole"


def test_a_file_that_was_cut_says_so(tmp_path, binding):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(WHOLE.read_bytes()[:300_000])
    with pytest.raises(EngineError, match=r"it has 300,000 bytes, and its weights need .* it was not copied whole"):
        anyio.run(load, cut, binding)


def test_a_damaged_head_is_said_to_be_one(tmp_path, binding):
    broken = tmp_path / "broken.gguf"
    whole = WHOLE.read_bytes()
    broken.write_bytes(whole[:2000] + b"\xff" * 1000 + whole[3000:])
    with pytest.raises(EngineError, match="its head is damaged: a string of"):
        anyio.run(load, broken, binding)
