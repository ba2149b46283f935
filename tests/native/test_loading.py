"""What is loaded, and how: folders, adapters, quantization, templates, tokenizers, and what cannot be loaded."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from asyncinfer import GenerationParams, ModelParams, NativeTextInferenceEngine
from asyncinfer.errors import BadRequestError, ConfigError, EngineError, MissingDependencyError
from asyncinfer.models import embedded_model

pytestmark = [
    pytest.mark.native,
    pytest.mark.asyncio,
    # of torch's and bitsandbytes' own, about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
FOLDER = embedded_model("hf")


async def answer(prompt=FRANCE, generation=None, **fields):
    async with NativeTextInferenceEngine(ModelParams(**fields), generation_params=generation) as engine:
        return (await engine.generate(prompt)).text


async def test_a_path_and_the_embedded_name_mean_the_same():
    assert await answer(model_name=str(FOLDER)) == PARIS
    assert await answer(model_name="asyncinfer-tiny", model_max_length=100) == PARIS


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
async def test_dtypes(dtype):
    async with NativeTextInferenceEngine(ModelParams(torch_dtype_str=dtype, device_map="cpu")) as engine:
        assert (await engine.generate(FRANCE)).text == PARIS
        assert str(engine._life.worker._loaded.model.dtype) == f"torch.{dtype}"


@pytest.mark.parametrize(
    "kwargs",
    [
        {"load_in_8bit": True},
        {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_type": "nf4"},
    ],
)
async def test_weights_of_few_bits(kwargs):
    async with NativeTextInferenceEngine(ModelParams(model_kwargs={**kwargs, "device_map": "cpu"})) as engine:
        assert (await engine.generate(FRANCE)).text == PARIS
        kinds = {type(module).__name__ for module in engine._life.worker._loaded.model.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
async def test_attention(attention):
    async with NativeTextInferenceEngine(ModelParams(attn_implementation=attention)) as engine:
        assert (await engine.generate(FRANCE)).text == PARIS
        assert (engine._life.worker._paged is None) is (attention == "eager")  # pages need another


async def test_random_weights_say_something_else():
    few = GenerationParams(max_new_tokens=8)
    assert await answer(load_pretrained_weights=False, generation=few) != PARIS


async def test_compiled(monkeypatch):
    """Traced by torch's compiler, but not made into C++: that alone takes minutes."""
    import torch

    whole = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: whole(self, **how, backend="eager"))
    few = GenerationParams(max_new_tokens=2)
    assert PARIS.startswith(await answer(compile=True, generation=few))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA adapter that makes the model say something else."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(FOLDER),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_alpha=32),
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    return folder


async def test_an_adapter_and_a_folder_that_is_one(adapter):
    few = GenerationParams(max_new_tokens=12)
    adapted = await answer(adapter_model=str(adapter), generation=few)
    assert adapted != PARIS
    assert await answer(model_name=str(adapter), generation=few) == adapted


async def test_an_adapter_on_weights_of_few_bits(adapter):
    few = GenerationParams(max_new_tokens=12)
    bits = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32", "device_map": "cpu"}
    assert await answer(adapter_model=str(adapter), generation=few, model_kwargs=bits) != PARIS


async def test_an_adapter_without_a_base_says_so(adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "a")
    description = json.loads((tmp_path / "a/adapter_config.json").read_text())
    (tmp_path / "a/adapter_config.json").write_text(json.dumps({**description, "base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match="adapter_model"):
        await answer(model_name=str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="adapter_config"):
        await answer(adapter_model=str(tmp_path))


async def test_a_template_of_ones_own_and_its_variables():
    template = (
        "{% for m in messages %}{{ '<|im_start|>user\\nWhat is the capital of ' + m.content + land }}"
        "{{ '?<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    assert await answer("It", chat_template=template, chat_template_kwargs={"land": "aly"}) == (
        "The capital of Italy is Rome."
    )
    with pytest.raises(BadRequestError, match="no such"):
        await answer(chat_template="{{ raise_exception('no such role') }}")


async def test_another_tokenizer_and_pad_token(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "bare" / name).unlink()
    fields = {"model_name": str(tmp_path / "bare"), "tokenizer_name": str(FOLDER)}
    assert (
        await answer(**fields, tokenizer_pad_token="<|im_start|>", tokenizer_kwargs={"padding_side": "left"}) == PARIS
    )
    with pytest.raises(ConfigError) as caught:
        await answer(tokenizer_pad_token="<nothing>")
    assert caught.value.path == "model.tokenizer_pad_token"


async def test_a_model_without_a_template_gets_chatml(tmp_path, caplog):
    shutil.copytree(FOLDER, tmp_path / "bare")
    (tmp_path / "bare/chat_template.jinja").unlink()
    assert await answer(model_name=str(tmp_path / "bare")) == PARIS
    assert "has no chat template" in caplog.text


async def test_the_model_s_own_sampling_is_not_mixed_in(tmp_path):
    """What a model's author thinks of temperatures and penalties is not what the caller said."""
    shutil.copytree(FOLDER, tmp_path / "own")
    own = json.loads((tmp_path / "own/generation_config.json").read_text())
    own |= {"do_sample": True, "temperature": 9.0, "repetition_penalty": 3.0, "no_repeat_ngram_size": 1}
    (tmp_path / "own/generation_config.json").write_text(json.dumps(own))
    for kwargs in ({}, {"continuous_batching": False}):
        assert await answer(model_name=str(tmp_path / "own"), model_kwargs=kwargs) == PARIS


async def test_what_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_text(json.dumps({"model_type": "never_heard_of"}))
    cut = tmp_path / "cut"
    shutil.copytree(FOLDER, cut)
    (cut / "model.safetensors").write_bytes((FOLDER / "model.safetensors").read_bytes()[:100_000])
    for name in ("empty", "cut", "missing"):
        with pytest.raises(EngineError, match=name):
            await answer(model_name=str(tmp_path / name))
    with pytest.raises(ConfigError, match="trust_remote_code"):
        await answer(model_name=str(strange))
    with pytest.raises(ConfigError) as caught:
        await answer(device_map="cuda:0")
    assert caught.value.path == "model.device_map"
    with pytest.raises(ConfigError, match="cuda:1"):
        await answer(device_map="cuda:1,cuda:0")
    with pytest.raises(ConfigError, match="nonsense"):
        await answer(model_kwargs={"nonsense": 3})


async def test_memory_that_is_not_there_is_a_typed_error_and_the_next_engine_works():
    with pytest.raises(EngineError, match="memory"):
        await answer(model_kwargs={"cache_tokens": 1 << 50})
    assert await answer(model_kwargs={"cache_tokens": 256}) == PARIS


async def test_missing_packages_come_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"asyncinfer\[native\]"):
        await answer()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match="peft"):
        await answer(adapter_model="some/adapter")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
async def test_a_folder_that_is_not_there_is_said_to_be_none(name):
    with pytest.raises(EngineError, match="there is no such folder"):
        await answer(model_name=name)


async def test_a_file_is_no_model(tmp_path):
    with pytest.raises(EngineError, match="LlamaCppInferenceEngine runs GGUF files"):
        await answer(model_name=str(embedded_model("gguf")))
    with pytest.raises(EngineError, match="name the folder it lies in"):
        await answer(model_name=str(FOLDER / "model.safetensors"))


async def test_a_model_without_a_tokenizer_says_which_field_names_one(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ConfigError, match="has no tokenizer") as caught:
        await answer(model_name=str(tmp_path / "model"))
    assert caught.value.path == "model.tokenizer_name"
    assert await answer(model_name=str(tmp_path / "model"), tokenizer_name=str(FOLDER)) == PARIS


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:100_000], lambda whole: whole[:20] + b"\xff" * 40 + whole[60:]]
)
async def test_broken_weights_are_one_error_and_no_traceback_in_the_log(tmp_path, damage, caplog):
    shutil.copytree(FOLDER, tmp_path / "model")
    file = tmp_path / "model/model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(EngineError, match=r"loading .*model: SafetensorError") as caught:
        await answer(model_name=str(tmp_path / "model"))
    assert caught.value.__cause__ is not None
    assert not caplog.records
