"""``ModelParams`` as settings of llama.cpp: which file, how many sequences, how much context, which threads."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...models import EMBEDDED_MODEL, embedded_model
from ..local.chat_template import template
from .gguf import check
from .locate import adapters, find, find_projector
from .options import ELSEWHERE, OPTIONS, flag, word

if TYPE_CHECKING:
    from ...params import ModelParams

__all__ = ["DEFAULT_CONTEXT", "Settings", "find", "read"]

_log = logging.getLogger("asyncinfer")

DEFAULT_CONTEXT = 4096
"""Tokens for each sequence, unless asked for or the model was trained with fewer."""
_SMALL_MODEL = 256 * 2**20
"""Bytes of a model whose key-value cache is so small that many sequences cost nothing."""
_TINY_MODEL = 32 * 2**20
"""Bytes of a model whose steps are shorter than what it takes several threads to agree on one."""
_SLOTS, _SLOTS_SMALL = 4, 16
_GIVEN_TWICE = {"lora", "lora_path", "lora_scale"}


@dataclass(slots=True)
class Settings:
    """How to load and run a model. What has no line here means what it means to llama.cpp (`options.OPTIONS`).

    Attributes:
        model: a path, the embedded model's name, or a Hub repository id.
        binding: which binding; None for the best one installed.
        slots: sequences that decode together.
        n_ctx: tokens of context of *each* sequence (the cache holds ``slots * n_ctx``; llama.cpp rounds it up to a
            multiple of 256); 0 for all that the model was trained with; None for that, and `DEFAULT_CONTEXT` at most.
        n_batch: tokens in one decoding call; ``n_ubatch`` of them at a time on the device.
        n_threads: CPU threads for single tokens, ``n_threads_batch`` for prompts.
        n_gpu_layers: -1 for all.
        flash_attn: None lets the library decide.
        filename: glob of the file within a directory or repository.
        adapters: LoRA adapters as GGUF, each with its scale.
        projector: path or glob of the vision part; None looks beside the model, and ``""`` does without.
        draft: GGUF file of a small model that proposes tokens to the large one.
        penalty_window: tokens that penalties look back on; None for all of the context.
        chat_template: Jinja source that replaces the model's own.
        verbose: let the library write its log to stderr.
    """

    model: str
    binding: str | None = None
    slots: int = _SLOTS
    n_ctx: int | None = None
    n_batch: int = 2048
    n_ubatch: int = 512
    n_threads: int = 1
    n_threads_batch: int = 0
    numa: int = 0
    n_gpu_layers: int = -1
    main_gpu: int = 0
    split_mode: int | None = None
    tensor_split: list[float] = field(default_factory=list)
    offload_kqv: bool = True
    op_offload: bool | None = None
    flash_attn: bool | None = None
    use_mmap: bool = True
    use_mlock: bool = False
    check_tensors: bool = False
    type_k: int | None = None
    type_v: int | None = None
    swa_full: bool | None = None
    rope_scaling_type: int | None = None
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    yarn_orig_ctx: int | None = None
    kv_overrides: dict[str, bool | int | float | str] = field(default_factory=dict)
    filename: str | None = None
    revision: str | None = None
    adapters: list[tuple[Path, float]] = field(default_factory=list)
    projector: str | None = None
    draft: Path | None = None
    draft_n_max: int | None = None
    draft_n_min: int | None = None
    draft_p_min: float | None = None
    penalty_window: int | None = None
    chat_template: str | None = None
    verbose: bool = False

    def file(self) -> Path:
        """The model's file, one that can answer; may download it. See `locate.find`, `gguf.check`."""
        path = find(self.model, self.filename, self.revision)
        check(path)
        return path

    def projector_file(self, path: Path) -> Path | None:
        """The file with the vision part of the model at ``path``. See `locate.find_projector`."""
        return None if self.projector == "" else find_projector(self.projector, self.model, path, self.revision)

    def context(self, trained: int | None) -> int:
        """Tokens of context for each sequence of a model that was trained with so many."""
        if self.n_ctx:
            return self.n_ctx
        return trained or DEFAULT_CONTEXT if self.n_ctx == 0 else min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)

    def given(self, *names: str) -> dict[str, Any]:
        """Those of these fields that say something: the library's default stands for the others."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def lacks(self, binding: str, names: dict[str, str]) -> None:
        """Warn of what is set and this binding does not have: field -> what to do instead."""
        for name, advice in names.items():
            if getattr(self, name) not in (None, {}, []):
                _log.warning("%s does not have model_kwargs.%s; ignored (%s)", binding, name, advice)


def read(params: ModelParams) -> Settings:
    """The settings that ``params`` describe.

    ``model_kwargs`` and fields that llama.cpp does not have are named in a warning and ignored.

    Raises:
        ConfigError: a value is of the wrong type or out of range; ``path`` names it.
    """
    settings = Settings(model=params.model_name or EMBEDDED_MODEL)
    size = _size(settings.model)
    if size is not None and size <= _SMALL_MODEL:
        settings.slots = _SLOTS_SMALL
    settings.n_threads = 1 if size is not None and size <= _TINY_MODEL else _cpus()
    settings.n_ctx = params.model_max_length
    settings.revision = params.model_revision
    settings.chat_template = template(params.chat_template)
    _fields(settings, params)
    unknown = []
    for name, value in params.model_kwargs.items():
        if name in OPTIONS:
            target, reader = OPTIONS[name]
            setattr(settings, target, reader(name, value))
        elif not _special(settings, name, value):
            unknown.append(name)
    settings.adapters = adapters(params.adapter_model, params.model_kwargs)
    settings.n_threads_batch = settings.n_threads_batch or settings.n_threads
    settings.n_batch = max(settings.n_batch, settings.slots)  # a step decodes one token of each
    settings.n_ubatch = min(settings.n_ubatch, settings.n_batch)
    _warn(unknown)
    return settings


def _special(settings: Settings, name: str, value: Any) -> bool:
    """Options that are not one value for one field; whether ``name`` is one."""
    if name in {"mmproj", "clip_model_path"}:
        settings.projector = "" if value is False else None if value in (None, True) else word(name, value)
    elif name == "draft_model":
        settings.draft = _draft(word(name, value))
    elif name == "low_vram":  # gone from llama.cpp; what it saved was the cache's place on the card
        settings.offload_kqv = settings.offload_kqv and not flag(name, value)
    elif name == "device_map":
        _devices(settings, value)
    else:
        return name in _GIVEN_TWICE
    return True


def _draft(given: str) -> Path:
    path = Path(given).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"model.model_kwargs.draft_model is {given!r}; it must be a GGUF file of the same vocabulary",
            path="model.model_kwargs.draft_model",
        )
    return path


_ATTENTION = {"flash_attention_2": True, "flash_attention_3": True, "eager": False}
_NOT_HERE = {
    "tokenizer_name": "the tokenizer in the GGUF file is used",
    "tokenizer_pad_token": "nothing is padded",
    "tokenizer_kwargs": "the tokenizer in the GGUF file is used",
    "processor_kwargs": "mmproj brings its own",
    "torch_dtype_str": "the precision is that of the GGUF file",
    "compile": "there is nothing to compile",
    "tool_call_parser": "it is a parser of vLLM",
}
"""`ModelParams` fields that mean nothing to llama.cpp."""


def _fields(settings: Settings, params: ModelParams) -> None:
    """What is said by fields that llama.cpp knows by another name, or not at all."""
    fields = type(params).model_fields
    for name, why in _NOT_HERE.items():
        if getattr(params, name) != fields[name].get_default(call_default_factory=True):
            _log.warning("llamacpp does not use model.%s; ignored (%s)", name, why)
    if not params.load_pretrained_weights:
        raise ConfigError(
            "model.load_pretrained_weights is false; llama.cpp has no other weights than those of the file",
            path="model.load_pretrained_weights",
        )
    if params.attn_implementation in _ATTENTION:
        settings.flash_attn = _ATTENTION[params.attn_implementation]
    _devices(settings, params.device_map)


def _devices(settings: Settings, devices: Any) -> None:
    """``device_map``: where llama.cpp says the same in other words."""
    if devices == "cpu":
        settings.n_gpu_layers = 0
    elif isinstance(devices, str) and devices.startswith("cuda:") and devices[5:].isdigit():
        settings.main_gpu, settings.split_mode = int(devices[5:]), 0
    elif devices not in (None, "auto", "cuda", "mps", "balanced", "sequential"):
        why = ELSEWHERE["tensor_parallel_size"]
        _log.warning("llamacpp does not understand model.device_map %r; ignored (%s)", devices, why)


def _warn(unknown: list[str]) -> None:
    for name in sorted(set(unknown) & set(ELSEWHERE)):
        _log.warning("llamacpp ignores model_kwargs.%s: %s", name, ELSEWHERE[name])
    foreign = sorted(set(unknown) - set(ELSEWHERE))
    if foreign:
        _log.warning("llamacpp does not know the model_kwargs %s; ignored", ", ".join(foreign))


def _cpus() -> int:
    """CPUs this process may use; from a certain number on they are usually two to a core."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return usable if usable <= 4 else usable // 2


def _size(model: str) -> int | None:
    if model == EMBEDDED_MODEL:
        return embedded_model("gguf").stat().st_size
    path = Path(model).expanduser()
    return path.stat().st_size if path.is_file() else None
