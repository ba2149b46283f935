"""A Llama folder of Transformers as a GGUF file: the few numbers and names that llama.cpp wants, and the tensors.

Format: ggml/docs/gguf.md of the ggml project; tensor names: ``gguf.constants``. Written for the embedded model: a
byte-level BPE tokenizer with the pre-tokenizer of Qwen 2, tied or untied output weights, grouped-query attention.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TYPES = ("f32", "f16", "bf16", "q8_0")

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OTHER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def to_gguf(folder: Path, target: Path, kind: str = "f16") -> None:
    """Write ``folder`` (config.json, tokenizer.json, model.safetensors, chat_template.jinja) as ``target``.

    Args:
        folder: where Transformers saved the model.
        target: the GGUF file to write.
        kind: number format of the matrices, one of `TYPES`; vectors stay f32.

    Raises:
        ImportError: gguf, numpy or safetensors is not installed (``pip install 'asyncinfer[training]'``).
    """
    import gguf

    config = json.loads((folder / "config.json").read_text("utf-8"))
    writer = gguf.GGUFWriter(str(target), "llama")
    _add_shape(writer, config, kind)
    _add_tokenizer(writer, config, folder)
    _add_tensors(writer, config, folder, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _head_size(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _add_shape(writer: Any, config: dict[str, Any], kind: str) -> None:
    import gguf

    head = _head_size(config)
    writer.add_name("tiny-chat")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(config["vocab_size"])
    rope = config.get("rope_parameters") or config
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    files = gguf.LlamaFileType
    writer.add_file_type(
        {
            "f32": files.ALL_F32,
            "f16": files.MOSTLY_F16,
            "bf16": files.MOSTLY_BF16,
            "q8_0": files.MOSTLY_Q8_0,
        }[kind]
    )


def _add_tokenizer(writer: Any, config: dict[str, Any], folder: Path) -> None:
    import gguf

    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    names = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    kinds = dict.fromkeys(names, gguf.TokenType.NORMAL)
    for added in tokenizer["added_tokens"]:
        names[added["id"]] = added["content"]
        kinds[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    size = range(config["vocab_size"])
    merges = tokenizer["model"]["merges"]
    numbers = {token: number for number, token in names.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([names.get(number, f"[PAD{number}]") for number in size])
    writer.add_token_types([kinds.get(number, gguf.TokenType.UNUSED) for number in size])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(numbers["<|im_end|>"])
    writer.add_bos_token_id(numbers["<|endoftext|>"])
    writer.add_pad_token_id(numbers["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text("utf-8"))


def _add_tensors(writer: Any, config: dict[str, Any], folder: Path, kind: str) -> None:
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    quantization = gguf.GGMLQuantizationType[kind.upper()]
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, values in load_file(folder / "model.safetensors").items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        target = _OTHER_NAMES.get(name) or _layer_name(name)
        tensor = np.asarray(values, dtype=np.float32)
        count = heads.get(target.split(".")[-2])
        if count:
            tensor = _interleave(tensor, count)
        tensor = np.ascontiguousarray(tensor)
        if tensor.ndim == 1 or kind == "f32":
            writer.add_tensor(target, tensor)
        else:
            writer.add_tensor(target, gguf.quants.quantize(tensor, quantization), raw_dtype=quantization)


def _layer_name(name: str) -> str:
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def _interleave(tensor: Any, heads: int) -> Any:
    """Rotary pairs side by side: Transformers keeps the two halves of a head apart, ggml its pairs together."""
    rows = tensor.shape[0] // heads // 2
    split = tensor.reshape(heads, 2, rows, *tensor.shape[1:])
    return split.swapaxes(1, 2).reshape(tensor.shape)
