"""A model of a chosen size for `local.py`: random weights, the tokenizer and the template of the embedded model.

    python benchmarks/random_model.py /tmp/model                           # 25 M parameters
    python benchmarks/random_model.py /tmp/model --hidden 768 --layers 12  # 85 M
    python benchmarks/local.py --engine llamacpp --model /tmp/model/model-f16.gguf
    python benchmarks/local.py --engine native vllm --model /tmp/model

The embedded model is a thousand times smaller than what people use, so whatever is done around it weighs a thousand
times more. A model that computes longer shows what is left of that; what it says does not matter, ``local.py`` makes
it say exactly ``--tokens`` tokens. gguf and safetensors are in ``pip install -e '.[bench]'``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from asyncinfer.models import embedded_model

HEAD = 64
"""Width of an attention head."""


def write(folder: Path, hidden: int, layers: int, seed: int) -> int:
    """A Llama in Transformers' form, and the same as GGUF; the number of its parameters."""
    import numpy as np
    from safetensors.numpy import save_file

    from asyncinfer.models.convert import to_gguf

    folder.mkdir(parents=True, exist_ok=True)
    source = embedded_model("hf")
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    config: dict[str, Any] = json.loads((source / "config.json").read_text("utf-8"))
    heads = hidden // HEAD
    config |= {
        "head_dim": HEAD,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": max(1, heads // 4),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    rng = np.random.default_rng(seed)
    tensors = {
        name: np.ones(shape, np.float32) if len(shape) == 1 else 0.02 * rng.standard_normal(shape, dtype=np.float32)
        for name, shape in shapes(config).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    to_gguf(folder, folder / "model-f16.gguf")
    return sum(tensor.size for tensor in tensors.values())


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Llama whose output weights are its input weights."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = HEAD * config["num_attention_heads"], HEAD * config["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(config["num_hidden_layers"]):
        found |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": (hidden,),
                "self_attn.q_proj": (queries, hidden),
                "self_attn.k_proj": (keys, hidden),
                "self_attn.v_proj": (keys, hidden),
                "self_attn.o_proj": (hidden, queries),
                "post_attention_layernorm": (hidden,),
                "mlp.gate_proj": (inner, hidden),
                "mlp.up_proj": (inner, hidden),
                "mlp.down_proj": (hidden, inner),
            }.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is made; what is in there is written over")
    parser.add_argument("--hidden", type=int, default=512, help=f"width, a multiple of {HEAD}")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.hidden < HEAD or options.hidden % HEAD or options.layers < 1:
        parser.error(f"--hidden must be a multiple of {HEAD}, --layers at least 1")
    count = write(options.folder, options.hidden, options.layers, options.seed)
    print(f"{options.folder}: {count / 1e6:,.1f} M parameters")


if __name__ == "__main__":
    main()
