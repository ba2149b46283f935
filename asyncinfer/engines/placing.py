"""Which devices each replica of a local engine gets: from three sizes and the devices at hand to `ModelParams`.

Rule: whatever differs between engines is one function in `LAYOUTS`; nothing else here knows one. GPUs are counted
without loading a GPU library, which would cost seconds and memory in a process that only starts engines.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..params import InferenceEngineType, ModelParams

if TYPE_CHECKING:
    from collections.abc import Callable

    from .base import Engine

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def gpus() -> int:
    """GPUs that this process may use, as far as its environment and the driver's files say."""
    for name in _VISIBLE:
        listed = os.environ.get(name)
        if listed is not None:
            shown = [entry.strip() for entry in listed.split(",")]
            if "-1" in shown:  # CUDA stops reading at the first that is none
                shown = shown[: shown.index("-1")]
            return len([entry for entry in shown if entry])
    for folder, pattern in (("/proc/driver/nvidia/gpus", r".+"), ("/dev", r"nvidia\d+")):
        try:
            entries = [entry.name for entry in Path(folder).iterdir()]
        except OSError:
            continue
        found = sum(re.fullmatch(pattern, entry) is not None for entry in entries)
        if found:
            return found
    torch = sys.modules.get("torch")  # somebody has paid for it; it knows more kinds
    return int(torch.cuda.device_count()) if torch is not None else 0


class _Sizes:
    """The three sizes, checked. ``data`` is 0 for "as many as fit"."""

    __slots__ = ("data", "pipeline", "tensor")

    def __init__(self, tensor: Any, pipeline: Any, data: Any) -> None:
        self.tensor = _size("tensor_parallel_size", tensor)
        self.pipeline = _size("pipeline_parallel_size", pipeline)
        self.data = 0 if data in (-1, None) else _size("data_parallel_size", data)

    @property
    def each(self) -> int:
        """Devices of one replica."""
        return self.tensor * self.pipeline

    def replicas(self, devices: int) -> int:
        """How many there will be. Raises `ConfigError` if there are not enough devices (with none, CPUs are used)."""
        if devices and self.each * (self.data or 1) > devices:
            raise ConfigError(
                f"{self.data or 1} replica(s) of {self.each} device(s) each do not fit: {devices} GPU(s) are visible; "
                "lower tensor_parallel_size, pipeline_parallel_size or data_parallel_size",
                path="tensor_parallel_size" if self.each > devices else "data_parallel_size",
            )
        return self.data or max(1, devices // self.each)


def _size(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        hint = " (or -1: as many as the devices hold)" if name.startswith("data") else ""
        raise ConfigError(f"{name} is a whole number from 1{hint}, not {value!r}", path=name)
    return value


def place(
    engine: InferenceEngineType | str,
    params: ModelParams | None,
    *,
    tensor: int,
    pipeline: int,
    data: int,
    arguments: dict[str, Any],
) -> list[Engine]:
    """The engines, one for each replica (and one where an engine makes replicas itself). See `ReplicatedEngine`."""
    from .opening import engine_class, engine_type

    kind = engine if isinstance(engine, InferenceEngineType) else engine_type(engine)
    sizes = _Sizes(tensor, pipeline, data)
    made = engine_class(kind)
    params = params or ModelParams()
    layout = LAYOUTS.get(kind)
    if layout is not None:
        return [made(one, **arguments) for one in layout(params, sizes)]
    if sizes.each > 1 or sizes.data > 1:
        raise ConfigError(
            f"{kind.name} runs elsewhere and has no devices here; its own server is told how many to use",
            path="tensor_parallel_size" if sizes.each > 1 else "data_parallel_size",
        )
    return [made(params, **arguments)]


def _with_kwargs(params: ModelParams, **kwargs: Any) -> ModelParams:
    return params.model_copy(update={"model_kwargs": {**params.model_kwargs, **kwargs}})


def _by_itself(params: ModelParams, sizes: _Sizes) -> list[ModelParams]:
    """vLLM: one process for each replica, started and balanced (by waiting and running requests) by itself."""
    return [
        _with_kwargs(
            params,
            tensor_parallel_size=sizes.tensor,
            pipeline_parallel_size=sizes.pipeline,
            data_parallel_size=sizes.data or -1,  # it asks PyTorch, once that is loaded
        )
    ]


def _by_device_map(params: ModelParams, sizes: _Sizes) -> list[ModelParams]:
    """Transformers: the layers of each replica on its own devices."""
    devices = gpus()
    chosen = "device_map" in params.model_fields_set and params.device_map not in {"auto", None}
    if chosen and sizes.data <= 1 and sizes.each == 1:
        return [params]
    replicas = sizes.replicas(devices)
    if not devices:
        _no_sharing(sizes)
        where = ["cpu"] * replicas
    else:
        where = [",".join(f"cuda:{at}" for at in _share(number, sizes.each)) for number in range(replicas)]
    if replicas == 1 and (not devices or sizes.each == 1):
        return [params]
    maps = (params.model_copy(update={"device_map": one}) for one in where)
    return [_marked(one) for one in maps]


def _marked(params: ModelParams) -> ModelParams:
    params.model_fields_set.add("device_map")
    return params


def _by_split(params: ModelParams, sizes: _Sizes) -> list[ModelParams]:
    """llama.cpp: a share of the weights for each device; on CPUs, a share of the threads for each replica."""
    kwargs = params.model_kwargs
    devices = 0 if kwargs.get("n_gpu_layers") == 0 or not _offloads() else gpus()
    if "tensor_split" in kwargs and sizes.data <= 1 and sizes.each == 1:
        return [params]
    replicas = sizes.replicas(devices)
    if not devices:
        _no_sharing(sizes)
        if replicas == 1 or "n_threads" in kwargs:
            return [params] * replicas
        return [_with_kwargs(params, n_threads=max(1, _cpus() // replicas))] * replicas
    if replicas == 1 and sizes.each == devices:
        return [params]  # what it does by itself
    placed = []
    for number in range(replicas):
        mine = _share(number, sizes.each)
        split = [float(at in mine) for at in range(devices)]
        placed.append(_with_kwargs(params, tensor_split=split, main_gpu=mine[0]))
    return placed


def _share(number: int, each: int) -> range:
    return range(number * each, (number + 1) * each)


def _no_sharing(sizes: _Sizes) -> None:
    if sizes.each > 1:
        raise ConfigError(
            f"{sizes.each} devices for each replica were asked for, and no GPU is visible",
            path="tensor_parallel_size" if sizes.tensor > 1 else "pipeline_parallel_size",
        )


def _offloads() -> bool:
    """Whether the installed binding of llama.cpp was built for GPUs."""
    from importlib.util import find_spec

    if find_spec("llama_cpp") is not None:
        import llama_cpp

        return bool(llama_cpp.llama_supports_gpu_offload())
    if find_spec("xllamacpp") is not None:
        import xllamacpp

        kinds = xllamacpp.ggml_backend_dev_type
        return any(device["type"] == kinds.GGML_BACKEND_DEVICE_TYPE_GPU for device in xllamacpp.get_device_info())
    return False


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


LAYOUTS: dict[InferenceEngineType, Callable[[ModelParams, _Sizes], list[ModelParams]]] = {
    InferenceEngineType.VLLM: _by_itself,
    InferenceEngineType.NATIVE: _by_device_map,
    InferenceEngineType.LLAMACPP: _by_split,
}
"""Engines that compute here -> the parameters of each replica."""
