"""Binding a: settings as the parameters that ``xllamacpp`` starts its server with.

Rule: only what was asked for is written; the library's own default stands for everything else, but for what would
surprise a program that is no server: caches of gigabytes, a listener without a key, warnings on stderr.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .settings import Settings

_LACKING = {
    "kv_overrides": "model_kwargs={'binding': 'llama-cpp-python'} has it",
    "penalty_window": "penalties look back on the whole conversation",
}
_PLAIN = ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx", "swa_full")


def launch(settings: Settings, path: str, context: int, projector: Path | None) -> Any:
    """A server that has served its first token; blocks, and holds the interpreter's lock for a while."""
    import xllamacpp

    settings.lacks("xllamacpp", _LACKING)
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {settings.model}
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * context
    params.kv_unified = False
    params.n_batch = settings.n_batch
    params.n_ubatch = settings.n_ubatch
    params.cpuparams.n_threads = settings.n_threads
    params.cpuparams_batch.n_threads = settings.n_threads_batch
    if settings.numa:
        params.numa = xllamacpp.ggml_numa_strategy(settings.numa)
    params.load_mode = xllamacpp.llama_load_mode(int(settings.use_mmap) + 2 * int(settings.use_mlock))
    params.check_tensors = settings.check_tensors
    params.rope_freq_base = settings.rope_freq_base
    params.rope_freq_scale = settings.rope_freq_scale
    if settings.rope_scaling_type is not None:
        params.rope_scaling_type = xllamacpp.llama_rope_scaling_type(settings.rope_scaling_type)
    for name, value in settings.given(*_PLAIN).items():
        setattr(params, name, value)
    if settings.chat_template is not None:
        params.chat_template = settings.chat_template
    if settings.adapters:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), scale) for path, scale in settings.adapters]
    if projector is not None:
        params.mmproj.path = str(projector)
        params.mmproj_use_gpu = settings.n_gpu_layers != 0
    _place(xllamacpp, params, settings)
    _speculate(xllamacpp, params, settings)
    _behave(params, settings)
    server = xllamacpp.Server(params)
    server.handle_completions({"prompt": "a", "max_tokens": 1})
    return server


def _place(lib: Any, params: Any, settings: Settings) -> None:
    """What goes onto which device, and in what precision the cache is kept."""
    params.n_gpu_layers = settings.n_gpu_layers
    params.main_gpu = settings.main_gpu
    if settings.split_mode is not None:
        params.split_mode = lib.llama_split_mode(settings.split_mode)
    if settings.tensor_split:
        shares = params.tensor_split
        params.tensor_split = settings.tensor_split + [0.0] * (len(shares) - len(settings.tensor_split))
    params.no_kv_offload = not settings.offload_kqv
    if settings.op_offload is not None:
        params.no_op_offload = not settings.op_offload
    if settings.flash_attn is not None:
        params.flash_attn_type = lib.llama_flash_attn_type(int(settings.flash_attn))
    if settings.type_k is not None:
        params.cache_type_k = lib.ggml_type(settings.type_k)
    if settings.type_v is not None:
        params.cache_type_v = lib.ggml_type(settings.type_v)
    kinds = lib.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    params.fit_params = any(device["type"] in gpus for device in lib.get_device_info())


def _speculate(lib: Any, params: Any, settings: Settings) -> None:
    """A small model that proposes tokens."""
    if settings.draft is None:
        return
    params.speculative.types = [lib.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
    draft = params.speculative.draft
    draft.mparams.path = str(settings.draft)
    draft.n_gpu_layers = settings.n_gpu_layers
    draft.cpuparams.n_threads = settings.n_threads
    draft.cpuparams_batch.n_threads = settings.n_threads_batch
    for name, value in settings.given("draft_n_max", "draft_n_min", "draft_p_min").items():
        setattr(draft, name.removeprefix("draft_"), value)


def _behave(params: Any, settings: Settings) -> None:
    """A part of a program, not a server."""
    params.warmup = False
    params.prefill_assistant = False  # an answer is a message of its own, as with every local engine
    params.cache_ram_mib = 0
    params.api_keys = [secrets.token_urlsafe(32)]
    params.hostnames = ["127.0.0.1"]
    params.n_threads_http = 1
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 3 if settings.verbose else -1
