"""Binding b: settings as the C structures that ``llama-cpp-python`` loads a model and makes a context with.

Rule: only what was asked for is written; the library's own default stands for everything else.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, EngineError
from .gguf import damage

if TYPE_CHECKING:
    from .settings import Settings

_CONTEXT_FIELDS = (
    "rope_scaling_type",
    "yarn_ext_factor",
    "yarn_attn_factor",
    "yarn_beta_fast",
    "yarn_beta_slow",
    "yarn_orig_ctx",
    "type_k",
    "type_v",
    "swa_full",
    "op_offload",
)
_OVERRIDE_LENGTH = 127
"""Bytes that a name or a string may have in the library's table of overrides."""

_quiet: Any = None
"""The C callback that swallows the library's log; the library keeps its address, so it must never be collected."""


def set_log(lib: Any, verbose: bool) -> Any:
    """Let the library write its log to stderr, or not; the callback, for its other parts."""
    global _quiet
    if _quiet is None:
        _quiet = lib.llama_log_callback(lambda _level, _text, _data: None)
    callback = lib.llama_log_callback(0) if verbose else _quiet
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    return callback


def load_model(lib: Any, settings: Settings, path: str) -> Any:
    """The model in a file. Raises `EngineError`."""
    if settings.numa:
        lib.llama_numa_init(settings.numa)
    how = lib.llama_model_default_params()
    how.n_gpu_layers = settings.n_gpu_layers
    how.main_gpu = settings.main_gpu
    how.load_mode = int(settings.use_mmap) + 2 * int(settings.use_mlock)
    how.check_tensors = settings.check_tensors
    if settings.split_mode is not None:
        how.split_mode = settings.split_mode
    shares = (ctypes.c_float * 128)(*settings.tensor_split)
    if settings.tensor_split:
        how.tensor_split = shares
    overrides = _overrides(lib, settings.kv_overrides)  # (kept alive until the model is loaded)
    if settings.kv_overrides:
        how.kv_overrides = overrides
    model = lib.llama_model_load_from_file(path.encode(), how)
    if not model:
        why = damage(Path(path)) or "model_kwargs={'verbose': True} shows why"
        raise EngineError(f"{path} could not be loaded by llama-cpp-python: {why}")
    return model


def _overrides(lib: Any, values: dict[str, bool | int | float | str]) -> Any:
    """The library's table: one more entry than there are values, whose empty name ends it."""
    table = (lib.llama_model_kv_override * (len(values) + 1))()
    for entry, (key, value) in zip(table, values.items(), strict=False):
        text = str(value).encode()
        if max(len(key.encode()), len(text)) > _OVERRIDE_LENGTH:
            raise ConfigError(
                f"model.model_kwargs.kv_overrides.{key} is longer than {_OVERRIDE_LENGTH} bytes",
                path="model.model_kwargs.kv_overrides",
            )
        entry.key = key.encode()
        if isinstance(value, bool):
            entry.tag, entry.value.val_bool = lib.LLAMA_KV_OVERRIDE_TYPE_BOOL, value
        elif isinstance(value, int):
            entry.tag, entry.value.val_i64 = lib.LLAMA_KV_OVERRIDE_TYPE_INT, value
        elif isinstance(value, float):
            entry.tag, entry.value.val_f64 = lib.LLAMA_KV_OVERRIDE_TYPE_FLOAT, value
        else:
            entry.tag = lib.LLAMA_KV_OVERRIDE_TYPE_STR
            place = ctypes.addressof(entry.value) + lib.llama_model_kv_override_value.val_str.offset
            ctypes.memmove(place, text + b"\0", len(text) + 1)
    return table


def make_context(lib: Any, settings: Settings, model: Any, n_ctx: int) -> Any:
    """Memory for ``settings.slots`` sequences of ``n_ctx`` tokens. Raises `EngineError`."""
    what = lib.llama_context_default_params()
    what.n_ctx = settings.slots * n_ctx
    what.n_seq_max = settings.slots
    what.kv_unified = False
    what.n_batch = settings.n_batch
    what.n_ubatch = settings.n_ubatch
    what.n_threads = settings.n_threads
    what.n_threads_batch = settings.n_threads_batch
    what.rope_freq_base = settings.rope_freq_base
    what.rope_freq_scale = settings.rope_freq_scale
    what.offload_kqv = settings.offload_kqv
    what.no_perf = True
    if settings.flash_attn is not None:
        what.flash_attn_type = int(settings.flash_attn)
    for name, value in settings.given(*_CONTEXT_FIELDS).items():
        setattr(what, name, value)
    context = lib.llama_init_from_model(model, what)
    if not context:
        raise EngineError(
            f"llama.cpp makes no context for {settings.slots} sequences of {n_ctx} tokens: where it is for want of "
            "memory, lower model_kwargs.n_ctx or n_parallel (model_kwargs={'verbose': True} shows why; a quantized "
            "type_v, for one, needs flash_attn)"
        )
    return context


def apply_adapters(lib: Any, settings: Settings, model: Any, context: Any) -> None:
    """Put the LoRA adapters to work, each at its scale; they are freed with the model. Raises `EngineError`."""
    if not settings.adapters:
        return
    count = len(settings.adapters)
    loaded = (lib.llama_adapter_lora_p_ctypes * count)()
    for at, (path, _) in enumerate(settings.adapters):
        loaded[at] = lib.llama_adapter_lora_init(model, str(path).encode())
        if not loaded[at]:
            raise EngineError(f"the adapter {path} does not fit the model {settings.model}")
    scales = (ctypes.c_float * count)(*(scale for _, scale in settings.adapters))
    if lib.llama_set_adapters_lora(context, loaded, count, scales):
        raise EngineError(f"the adapters of {settings.model} cannot be applied together")
