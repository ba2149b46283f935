"""``ModelParams`` as settings of Transformers. Pure: nothing is imported, opened or downloaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...models import EMBEDDED_MODEL, embedded_model
from ...params.model import DTYPES
from ..local.chat_template import template

if TYPE_CHECKING:
    from ...params import ModelParams

_log = logging.getLogger("asyncinfer")

_DTYPES = {
    "float": "float32",
    "f32": "float32",
    "fp32": "float32",
    "half": "float16",
    "f16": "float16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "double": "float64",
    "f64": "float64",
    "fp64": "float64",
}

_QUANTIZATION = ("load_in_4bit", "load_in_8bit", "bnb_4bit_", "llm_int8_")
"""Beginnings of the names of arguments that belong to ``BitsAndBytesConfig``."""

_SLOTS = {"n_parallel", "max_num_seqs", "max_num_sequences", "n_seq_max"}
_LENGTH = {"max_model_len", "n_ctx"}
_SHARDS = {"tensor_parallel_size", "pipeline_parallel_size"}

_FOREIGN = {
    *("binding", "filename", "flash_attn", "low_vram", "main_gpu", "n_batch", "n_gpu_layers", "n_threads_batch"),
    *("n_ubatch", "rope_freq_base", "rope_freq_scale", "tensor_split", "use_mlock", "use_mmap", "verbose"),
    *("block_size", "data_parallel_size", "disable_log_stats", "enable_chunked_prefill", "enable_lora"),
    *("enforce_eager", "kv_cache_dtype", "max_lora_rank", "max_loras", "quantization", "swap_space"),
    *("cpu_offload_gb", "kv_cache_memory_bytes", "max_num_batched_tokens", "seed", "tokenizer_mode"),
}
"""What the other local engines know and Transformers does not; anything else goes to the model's constructor."""


@dataclass(slots=True)
class Settings:
    """How to load and run a model.

    Attributes:
        model: as it was named; ``source`` is the folder or repository id that it means.
        adapter: a LoRA adapter, a folder or repository id.
        tokenizer: folder or repository id, if it is not the model's own.
        dtype: ``auto`` or the name of a torch dtype.
        device_map: as Transformers takes it, or several devices with commas between them.
        quantization: arguments of ``BitsAndBytesConfig``; empty for none.
        max_length: tokens of prompt and answer together; None for the model's own maximum.
        slots: answers that are made at once; None: 32 on CPU, 256 on a GPU.
        paged: None lets the model decide whether its answers are batched continuously; False never.
        cache_tokens: tokens whose keys and values are held for all answers together; None: what memory allows.
        memory: share of a GPU's free memory for them.
        prefix_caching: share the memory of prompts that begin alike.
        threads: CPU threads of one operation; None leaves torch's own setting. It holds for the process.
        constructor: further arguments of the model's ``from_pretrained``.
    """

    model: str
    source: str
    revision: str | None = None
    adapter: str | None = None
    tokenizer: str | None = None
    tokenizer_kwargs: dict[str, Any] = field(default_factory=dict)
    processor_kwargs: dict[str, Any] = field(default_factory=dict)
    pad_token: str | None = None
    pretrained: bool = True
    trust: bool = False
    dtype: str = "auto"
    compile: bool = False
    chat_template: str | None = None
    attention: str | None = None
    device_map: Any = "auto"
    quantization: dict[str, Any] = field(default_factory=dict)
    max_length: int | None = None
    slots: int | None = None
    paged: bool | None = None
    cache_tokens: int | None = None
    memory: float = 0.7
    prefix_caching: bool = True
    threads: int | None = None
    constructor: dict[str, Any] = field(default_factory=dict)


def read(params: ModelParams) -> Settings:
    """The settings that ``params`` describe.

    ``model_kwargs`` of other engines are translated, or named in one warning and ignored.

    Raises:
        ConfigError: a value is of the wrong type or out of range; ``path`` names it.
    """
    name = params.model_name or EMBEDDED_MODEL
    embedded = name == EMBEDDED_MODEL
    settings = Settings(
        model=name,
        source=str(embedded_model("hf")) if embedded else _place(name),
        revision=params.model_revision,
        adapter=_place(params.adapter_model) if params.adapter_model else None,
        tokenizer=_place(params.tokenizer_name) if params.tokenizer_name else None,
        tokenizer_kwargs=dict(params.tokenizer_kwargs),
        processor_kwargs=dict(params.processor_kwargs),
        pad_token=params.tokenizer_pad_token,
        pretrained=params.load_pretrained_weights,
        trust=params.trust_remote_code,
        dtype=_dtype(params.torch_dtype_str),
        compile=params.compile,
        chat_template=template(params.chat_template),
        attention=params.attn_implementation,
        device_map=params.device_map,
        max_length=params.model_max_length,
    )
    given = {key: value for key, value in params.model_kwargs.items() if not _said_closer(params, key, value)}
    unknown = [key for key, value in given.items() if not _take(settings, key, value)]
    if unknown:
        _log.warning("native does not know the model_kwargs %s; ignored", ", ".join(sorted(unknown)))
    return settings


def _said_closer(params: ModelParams, name: str, value: Any) -> bool:
    """Whether one of the ``model_kwargs`` leaves open what a field decides, such as ``--model.device_map cuda:0``."""
    field_name = {"torch_dtype": "torch_dtype_str", "dtype": "torch_dtype_str"}.get(name, name)
    return (
        field_name in {"device_map", "torch_dtype_str"}
        and value in (None, "auto")
        and field_name in params.model_fields_set
    )


def _take(settings: Settings, name: str, value: Any) -> bool:
    """Put one of the ``model_kwargs`` where it belongs; whether it belongs anywhere."""
    if name in {"torch_dtype", "dtype"}:
        wanted = "auto" if value is None else _dtype(value)
        if wanted not in DTYPES:
            raise _wrong(name, value, f"one of {', '.join(sorted(DTYPES))}")
        settings.dtype = wanted
    elif name in {"device_map", "attn_implementation"}:
        setattr(settings, {"attn_implementation": "attention"}.get(name, name), value)
    elif name.startswith(_QUANTIZATION):
        settings.quantization[name] = value
    elif name in _SLOTS:
        settings.slots = _whole(name, value)
    elif name in _LENGTH:
        settings.max_length = settings.max_length or _whole(name, value)
    elif name in {"num_threads", "n_threads"}:
        settings.threads = _whole(name, value)
    elif name == "cache_tokens":
        settings.cache_tokens = _whole(name, value)
    elif name in {"continuous_batching", "enable_prefix_caching"}:
        if not isinstance(value, bool):
            raise _wrong(name, value, "True or False")
        setattr(settings, "paged" if name == "continuous_batching" else "prefix_caching", value)
    elif name == "gpu_memory_utilization":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise _wrong(name, value, "a number above 0 and up to 1")
        settings.memory = float(value)
    elif name in _SHARDS:
        # One process: the layers are laid over the devices, which is what `auto` does with as many as there are.
        if value not in {1, -1}:
            _log.warning("native lays the layers of a model over its devices: model_kwargs.%s is device_map=auto", name)
            settings.device_map = "auto"
    elif name in _FOREIGN:
        return False
    else:
        settings.constructor[name] = value
    return True


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _wrong(name, value, "a whole number of at least 1")
    return value


def _wrong(name: str, value: Any, wanted: str) -> ConfigError:
    path = f"model.model_kwargs.{name}"
    return ConfigError(f"{path} must be {wanted}, not {value!r}", path=path)


def _dtype(value: Any) -> str:
    """One spelling of each; torch's own dtypes are written ``torch.float16``."""
    name = str(value).removeprefix("torch.").lower()
    return _DTYPES.get(name, name)


def _place(name: str) -> str:
    path = Path(name).expanduser()
    return str(path) if path.exists() else name
