"""``ModelParams`` read as settings; needs neither torch nor Transformers."""

from __future__ import annotations

import pytest

from asyncinfer import ModelParams, NativeTextInferenceEngine, open_engine
from asyncinfer.engines.native.settings import read
from asyncinfer.errors import ConfigError
from asyncinfer.models import embedded_model


def settings(name=None, **fields):
    return read(ModelParams(model_name=name, **fields))


def test_no_name_is_the_embedded_model():
    for name in (None, "asyncinfer-tiny"):
        assert settings(name).source == str(embedded_model("hf"))
    assert settings("Qwen/Qwen3-0.6B").source == "Qwen/Qwen3-0.6B"


def test_the_documented_kwargs_go_where_they_belong(caplog):
    found = settings(
        model_kwargs={
            "torch_dtype": "float16",
            "device_map": "cpu",
            "attn_implementation": "eager",
            "load_in_4bit": True,
            "bnb_4bit_compute_dtype": "float16",
            "bnb_4bit_quant_type": "nf4",
            "max_num_seqs": 7,
            "max_model_len": 100,
            "num_threads": 2,
            "continuous_batching": False,
            "enable_prefix_caching": False,
            "gpu_memory_utilization": 0.5,
            "cache_tokens": 1000,
            "low_cpu_mem_usage": True,
        }
    )
    assert (found.dtype, found.device_map, found.attention) == ("float16", "cpu", "eager")
    assert found.quantization == {
        "load_in_4bit": True,
        "bnb_4bit_compute_dtype": "float16",
        "bnb_4bit_quant_type": "nf4",
    }
    assert (found.slots, found.max_length, found.threads, found.cache_tokens) == (7, 100, 2, 1000)
    assert (found.paged, found.prefix_caching, found.memory) == (False, False, 0.5)
    assert found.constructor == {"low_cpu_mem_usage": True}
    assert not caplog.records


def test_kwargs_of_other_engines_are_named_and_ignored(caplog):
    found = settings(model_kwargs={"n_gpu_layers": -1, "flash_attn": True, "low_vram": True, "enforce_eager": True})
    assert found.constructor == {}
    assert "enforce_eager, flash_attn, low_vram, n_gpu_layers" in caplog.text


def test_a_kwarg_that_leaves_it_open_does_not_undo_what_a_field_says():
    assert settings(device_map="cuda:0", model_kwargs={"device_map": "auto"}).device_map == "cuda:0"
    assert settings(torch_dtype_str="float32", model_kwargs={"torch_dtype": "auto"}).dtype == "float32"
    assert settings(device_map="cuda:0", model_kwargs={"device_map": "cpu"}).device_map == "cpu"
    assert settings(model_kwargs={"device_map": None}).device_map is None


def test_tensor_parallelism_is_read_as_layers_over_devices(caplog):
    assert settings(device_map="cpu", model_kwargs={"tensor_parallel_size": 2}).device_map == "auto"
    assert "tensor_parallel_size is device_map=auto" in caplog.text
    assert settings(device_map="cpu", model_kwargs={"tensor_parallel_size": 1}).device_map == "cpu"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_num_seqs", 0),
        ("n_parallel", True),
        ("num_threads", "many"),
        ("continuous_batching", "no"),
        ("gpu_memory_utilization", 1.5),
        ("cache_tokens", -1),
    ],
)
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(ConfigError) as caught:
        settings(model_kwargs={name: value})
    assert caught.value.path == f"model.model_kwargs.{name}"


@pytest.mark.parametrize(("given", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16"), ("double", "float64")])
def test_every_spelling_of_a_dtype(given, dtype):
    assert settings(torch_dtype_str=given).dtype == dtype


def test_a_template_may_be_a_file(tmp_path):
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    assert settings(chat_template=str(tmp_path / "chat.jinja")).chat_template == "{{ messages }}"
    assert settings(chat_template="{{ 1 }}").chat_template == "{{ 1 }}"


def test_the_engine_is_opened_by_name():
    engine = open_engine("native:some/model")
    assert isinstance(engine, NativeTextInferenceEngine)
    assert engine.model_params.model_name == "some/model"
    assert engine.slots == 32
