"""Every documented ``model_kwargs`` on both bindings: it does what it says, or is named in a warning. And adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncinfer import GenerationParams, ModelParams
from asyncinfer.engines.llama_cpp import settings
from asyncinfer.engines.llama_cpp.options import ELSEWHERE, OPTIONS
from asyncinfer.errors import ConfigError, EngineError
from asyncinfer.models import EMBEDDED_MODEL, embedded_model

pytestmark = pytest.mark.anyio

LORA = Path(__file__).parent / "data/lora.gguf"
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."

EVERYTHING = {
    "n_parallel": 2,
    "n_ctx": 512,
    "n_batch": 64,
    "n_ubatch": 32,
    "last_n_tokens_size": 64,
    "n_threads": 2,
    "n_threads_batch": 1,
    "numa": False,
    "use_mmap": True,
    "use_mlock": False,
    "check_tensors": True,
    "n_gpu_layers": 0,
    "main_gpu": 0,
    "split_mode": "layer",
    "tensor_split": [1.0],
    "offload_kqv": True,
    "op_offload": True,
    "flash_attn": True,
    "type_k": "q8_0",
    "cache_type_v": 8,
    "swa_full": False,
    "rope_scaling_type": "none",
    "rope_freq_base": 10000.0,
    "rope_freq_scale": 1,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
    "yarn_orig_ctx": 0,
    "kv_overrides": {"general.name": "mine", "some.flag": True, "some.count": 3, "some.scale": 0.5},
    "low_vram": True,
    "verbose": False,
    "mmproj": None,
}


def read(params=None, **kwargs):
    return settings.read(ModelParams(**(params or {}), model_kwargs=kwargs))


async def test_all_options_at_once(make, binding, caplog):
    async with make(**EVERYTHING) as engine:
        assert (await engine.generate(QUESTION)).text == ANSWER
    assert ("kv_overrides" in caplog.text) is (binding == "xllamacpp")
    assert EVERYTHING.keys() | {"binding", "filename", "n_seq_max", "type_v", "cache_type_k"} >= OPTIONS.keys() - {
        "draft_n_max",
        "draft_n_min",
        "draft_p_min",
    }


async def test_options_reach_the_library(make, caplog):
    """What is wrong for this model fails, so it was not dropped on the way."""
    with pytest.raises(EngineError, match="verbose"):  # a head of 32 values is no multiple of a block of 256
        async with make(type_v="q8_0", flash_attn=False) as engine:
            await engine.generate(QUESTION)
    async with make(rope_freq_scale=0.01) as engine, make() as usual:
        assert await scores(engine) != await scores(usual)
    async with make(n_ctx=0, n_parallel=1) as engine:
        completion = await engine.generate("hi there " * 330, generation=GenerationParams(max_new_tokens=1))
        assert completion.usage.input_tokens > 900


async def test_overrides_of_the_file_s_own_values(make, binding):
    if binding == "xllamacpp":
        return
    async with make(kv_overrides={"tokenizer.ggml.eos_token_id": 19}) as engine:  # the figure 1
        completion = await engine.generate("Count from 1 to 20.")
        assert completion.text == ""


async def test_a_draft_speaks_for_the_model_but_never_changes_it(make, binding, caplog):
    """The model is its own draft: every proposal is accepted."""
    async with make(draft_model=str(embedded_model("gguf")), draft_n_max=4, draft_n_min=1, draft_p_min=0.1) as engine:
        completion = await engine.generate("Count from 1 to 20.")
        assert completion.text == " ".join(map(str, range(1, 21)))
        assert completion.usage.output_tokens > 40
    assert ("draft" in caplog.text) is (binding == "llama-cpp-python")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_from_elsewhere_say_what_to_do_instead(name, caplog):
    read(**{name: 1})
    assert f"model_kwargs.{name}" in caplog.text
    assert ELSEWHERE[name] in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type_k", "q9_9"),
        ("type_k", True),
        ("type_v", 99),
        ("split_mode", "diagonal"),
        ("rope_scaling_type", 1.5),
        ("kv_overrides", ["a"]),
        ("kv_overrides", {"a": [1]}),
        ("tensor_split", 0.5),
        ("offload_kqv", 1),
        ("numa", -1),
        ("low_vram", "yes"),
        ("mmproj", 3),
        ("draft_model", "/no/such/file.gguf"),
        ("lora_scale", "much"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(name, value):
    with pytest.raises(ConfigError) as caught:
        read(**{name: value})
    assert caught.value.path == f"model.model_kwargs.{name}"


def test_a_batch_holds_one_token_of_every_sequence():
    assert read(n_batch=4, n_parallel=32).n_batch == 32


def test_low_vram_keeps_the_cache_off_the_card():
    assert read(low_vram=True).offload_kqv is False
    assert read(low_vram=False).offload_kqv is True
    assert read(low_vram=False, offload_kqv=False).offload_kqv is False


def test_fields_of_other_engines(caplog):
    assert read({"device_map": "cpu"}).n_gpu_layers == 0
    one = read({"device_map": "cuda:1"})
    assert (one.main_gpu, one.split_mode) == (1, 0)
    one = read({"device_map": "cuda:1"}, device_map="auto")
    assert (one.main_gpu, one.split_mode) == (1, 0)
    assert read(device_map="cpu").n_gpu_layers == 0
    assert read({"attn_implementation": "flash_attention_2"}).flash_attn is True
    assert read({"attn_implementation": "eager"}).flash_attn is False
    assert not caplog.text
    read({"torch_dtype_str": "bfloat16", "tokenizer_name": "x", "compile": True, "device_map": {"": 0}})
    for name in ("torch_dtype_str", "tokenizer_name", "compile", "device_map"):
        assert f"model.{name}" in caplog.text
    with pytest.raises(ConfigError, match="load_pretrained_weights"):
        read({"load_pretrained_weights": False})


# -- adapters ----------------------------------------------------------------------------------------------------------


async def scores(engine):
    asked = GenerationParams(logprobs=True, max_new_tokens=4, logit_bias={2: -100})
    completion = await engine.generate(QUESTION, generation=asked)
    return [entry["logprob"] for entry in completion.choices[0].logprobs]


async def test_adapters_with_scales(make):
    async def at(**kwargs):
        async with make(**kwargs) as engine:
            return await scores(engine)

    plain, full = await at(), await at(lora_path=str(LORA))
    assert plain != full
    assert await at(lora=[{"path": str(LORA), "scale": 0.0}]) == pytest.approx(plain, abs=1e-3)
    half = await at(lora=[{"path": str(LORA), "scale": 0.5}])
    assert half != full
    assert await at(lora_path=str(LORA), lora_scale=0.5) == pytest.approx(half, abs=1e-3)
    both = await at(lora=[{"path": LORA, "scale": 0.25}, {"path": LORA, "scale": 0.25}])
    assert both == pytest.approx(half, abs=0.02)


def test_adapters_are_found_or_refused(tmp_path):
    assert read({"adapter_model": str(LORA)}, lora=str(LORA), lora_scale=2).adapters == [(LORA, 2.0), (LORA, 1.0)]
    folder = tmp_path / "as-gguf"
    folder.mkdir()
    (folder / "adapter_config.json").touch()
    (folder / "a.gguf").touch()
    assert read({"adapter_model": str(folder)}).adapters == [(folder / "a.gguf", 1.0)]
    (folder / "a.gguf").rename(folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match="convert_lora_to_gguf") as caught:
        read({"adapter_model": str(folder)})
    assert caught.value.path == "model.adapter_model"
    for wrong in ([{"file": str(LORA)}], [3], [{"path": str(LORA), "scale": None}], ["/no/such.gguf"]):
        with pytest.raises(ConfigError, match=r"lora\[0\]"):
            read(lora=wrong)


def test_the_embedded_model_has_no_vision_part_beside_it():
    found = read()
    assert found.model == EMBEDDED_MODEL
    assert found.projector_file(found.file()) is None
