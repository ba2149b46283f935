"""Fixtures of the vLLM engine: both event loops, and one engine for all tests, as loading one takes half a minute."""

from __future__ import annotations

import json
import os

import anyio
import pytest

from asyncinfer import ModelParams, VLLMInferenceEngine
from asyncinfer.models import embedded_model

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: several threads only wait for each other

SMALL = {"kv_cache_memory_bytes": 512 * 2**20}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("vllm"):
            # What vLLM and torch do is not for us to mend; ours are errors all the same, as everywhere.
            for kind in ("DeprecationWarning", "FutureWarning", "UserWarning", "ImportWarning", "ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}:(vllm|torch|transformers|multiprocessing)"))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def make_adapter(folder, *, seed, rank=4):
    """A LoRA adapter of random numbers, large enough to change every answer."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((embedded_model("hf") / "config.json").read_text())
    width, heads, depth = config["hidden_size"], config["num_attention_heads"], config["num_hidden_layers"]
    torch.manual_seed(seed)
    weights = {}
    for layer in range(depth):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(rank, width)
        weights[f"{name}.lora_B.weight"] = torch.randn(heads * config.get("head_dim", width // heads), rank)
    folder.mkdir()
    save_file(weights, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "r": rank,
                "lora_alpha": 2 * rank,
                "target_modules": ["q_proj"],
                "bias": "none",
                "base_model_name_or_path": "asyncinfer-tiny",
            }
        )
    )
    return str(folder)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    """Two that the engine knows by name, one that it does not know, and one with too high a rank."""
    home = tmp_path_factory.mktemp("adapters")
    made = {name: make_adapter(home / name, seed=seed) for seed, name in enumerate(("first", "second", "late"), 1)}
    return made | {"high": make_adapter(home / "high", seed=4, rank=16)}


@pytest.fixture(scope="session")
def engine(adapters):
    """It lives through many event loops of both kinds."""
    known = {name: adapters[name] for name in ("first", "second")}
    engine = VLLMInferenceEngine(ModelParams(model_kwargs={**SMALL, "lora_modules": known, "unheard_of": 1}))
    yield engine
    anyio.run(engine.aclose)
