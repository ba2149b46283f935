"""The ``model_kwargs`` of the llama.cpp engine: their names, those of ``llama_cpp.Llama`` among them, and their values.

One table for both bindings; what a name means to the library is said in the same words there (the constructor of
``llama_cpp.Llama``, ``common/arg.cpp`` of llama.cpp). Rule: pure; a wrong value is a `ConfigError` with its path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_PATH = "model.model_kwargs"


_MOST = 2**31 - 1
"""The library counts in 32 bits, and would take the rest of a larger number for it."""

_MOST_DEVICES = 128
"""As many as the library's tables have places for."""


def wrong(name: str, wanted: str, value: object) -> ConfigError:
    """The error for a value of the wrong kind."""
    return ConfigError(f"{_PATH}.{name} must be {wanted}, not {value!r}", path=f"{_PATH}.{name}")


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def whole(least: int) -> Callable[[str, Any], int]:
    """Reads a whole number of at least ``least``."""

    def read(name: str, value: Any) -> int:
        if not _is(value, int):
            raise wrong(name, "of type int", value)
        if value < least:
            raise wrong(name, f"at least {least}", value)
        if value > _MOST:
            raise wrong(name, f"at most {_MOST}", value)
        return int(value)

    return read


def flag(name: str, value: Any) -> bool:
    """Reads a truth value."""
    if not isinstance(value, bool):
        raise wrong(name, "of type bool", value)
    return value


def number(name: str, value: Any) -> float:
    """Reads a number."""
    if not _is(value, (int, float)):
        raise wrong(name, "a number", value)
    return float(value)


def word(name: str, value: Any) -> str:
    """Reads a string."""
    if not isinstance(value, str):
        raise wrong(name, "of type str", value)
    return value


def one_of(names: dict[str, int]) -> Callable[[str, Any], int]:
    """Reads a name of one of the library's constants, or its number."""

    def read(name: str, value: Any) -> int:
        if _is(value, int) and value in names.values():
            return int(value)
        if isinstance(value, str) and value.lower() in names:
            return names[value.lower()]
        raise wrong(name, f"one of {', '.join(names)}", value)

    return read


def shares(name: str, value: Any) -> list[float]:
    """Reads a list of numbers."""
    if not isinstance(value, (list, tuple)):
        raise wrong(name, "a list of numbers", value)
    if len(value) > _MOST_DEVICES:
        raise wrong(name, f"a list of at most {_MOST_DEVICES} numbers", value)
    return [number(name, share) for share in value]


def mapping(name: str, value: Any) -> dict[str, bool | int | float | str]:
    """Reads names with scalar values."""
    if not isinstance(value, dict) or not all(isinstance(one, (bool, int, float, str)) for one in value.values()):
        raise wrong(name, "a mapping of names to numbers, truth values or strings", value)
    return {str(key): one for key, one in value.items()}


CACHE_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
"""What the key-value cache may be held in: the names of llama.cpp's ``--cache-type-k``, with the numbers of ggml.h."""
_SPLITS = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
_ROPES = {"unspecified": -1, "none": 0, "linear": 1, "yarn": 2, "longrope": 3}

OPTIONS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "binding": ("binding", word),
    "filename": ("filename", word),
    "verbose": ("verbose", flag),
    # sizes
    "n_parallel": ("slots", whole(1)),
    "n_seq_max": ("slots", whole(1)),
    "n_ctx": ("n_ctx", whole(0)),
    "n_batch": ("n_batch", whole(1)),
    "n_ubatch": ("n_ubatch", whole(1)),
    "last_n_tokens_size": ("penalty_window", whole(0)),
    # the processor
    "n_threads": ("n_threads", whole(1)),
    "n_threads_batch": ("n_threads_batch", whole(1)),
    "numa": ("numa", lambda name, value: int(value) if isinstance(value, bool) else whole(0)(name, value)),
    "use_mmap": ("use_mmap", flag),
    "use_mlock": ("use_mlock", flag),
    "check_tensors": ("check_tensors", flag),
    # the graphics card
    "n_gpu_layers": ("n_gpu_layers", whole(-1)),
    "main_gpu": ("main_gpu", whole(0)),
    "split_mode": ("split_mode", one_of(_SPLITS)),
    "tensor_split": ("tensor_split", shares),
    "offload_kqv": ("offload_kqv", flag),
    "op_offload": ("op_offload", flag),
    "flash_attn": ("flash_attn", flag),
    # the cache of keys and values
    "type_k": ("type_k", one_of(CACHE_TYPES)),
    "type_v": ("type_v", one_of(CACHE_TYPES)),
    "cache_type_k": ("type_k", one_of(CACHE_TYPES)),
    "cache_type_v": ("type_v", one_of(CACHE_TYPES)),
    "swa_full": ("swa_full", flag),
    # positions
    "rope_scaling_type": ("rope_scaling_type", one_of(_ROPES)),
    "rope_freq_base": ("rope_freq_base", number),
    "rope_freq_scale": ("rope_freq_scale", number),
    "yarn_ext_factor": ("yarn_ext_factor", number),
    "yarn_attn_factor": ("yarn_attn_factor", number),
    "yarn_beta_fast": ("yarn_beta_fast", number),
    "yarn_beta_slow": ("yarn_beta_slow", number),
    "yarn_orig_ctx": ("yarn_orig_ctx", whole(0)),
    # speculative decoding
    "draft_n_max": ("draft_n_max", whole(1)),
    "draft_n_min": ("draft_n_min", whole(0)),
    "draft_p_min": ("draft_p_min", number),
    # the file's own values
    "kv_overrides": ("kv_overrides", mapping),
}
"""Name of each option: the field of `settings.Settings` that it sets, and what reads its value. Options that are not
one value for one field (adapters, ``mmproj``, ``draft_model``, ``low_vram``) are read by `settings.read` itself."""

ELSEWHERE = {
    "seed": "set generation.seed",
    "n_keep": "a conversation is never shortened here",
    "logits_all": "log probabilities need no preparation here: set generation.logprobs",
    "chat_format": "the model's own template is used, or model.chat_template",
    "chat_handler": "the model's own template is used, or model.chat_template; pictures need only mmproj",
    "tokenizer": "the tokenizer in the GGUF file is used",
    "lora_base": "adapters are applied to the loaded model, whatever its precision",
    "embedding": "this engine generates text",
    "pooling_type": "this engine generates text",
    "attention_type": "this engine generates text",
    "vocab_only": "an engine needs the weights",
    "spm_infill": "this engine answers conversations",
    "cache": "the beginning of a prompt is always looked for in the memory of earlier ones",
    "no_perf": "the library's timings are never collected",
    "model_path": "set model.model_name",
    "torch_dtype": "the precision is that of the GGUF file",
    "load_in_4bit": "the precision is that of the GGUF file",
    "load_in_8bit": "the precision is that of the GGUF file",
    "tensor_parallel_size": "set split_mode and tensor_split",
    "pipeline_parallel_size": "set split_mode and tensor_split",
    "gpu_memory_utilization": "set n_gpu_layers, n_ctx and n_parallel",
}
"""Names that people bring along from elsewhere, and what to do instead."""
