"""``ModelParams`` as settings of llama.cpp: which file, how many sequences, how much context, which threads."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, EngineError, MissingDependencyError
from ...models import EMBEDDED_MODEL, embedded_model

if TYPE_CHECKING:
    from ...params import ModelParams

_log = logging.getLogger("asyncinfer")

DEFAULT_CONTEXT = 4096
"""Tokens for each sequence, unless asked for or the model was trained with fewer."""
_SMALL_MODEL = 256 * 2**20
"""Bytes of a model whose key-value cache is so small that many sequences cost nothing."""
_TINY_MODEL = 32 * 2**20
"""Bytes of a model whose steps are shorter than what it takes several threads to agree on one."""
_SLOTS, _SLOTS_SMALL = 4, 16
_HUB_FILE = "*8_0.gguf"


@dataclass(slots=True)
class Settings:
    """How to load and run a model.

    Attributes:
        model: a path, the embedded model's name, or a Hub repository id.
        binding: which binding; None for the best one installed.
        slots: sequences that decode together.
        n_ctx: tokens of context of *each* sequence (the cache holds ``slots * n_ctx``; llama.cpp rounds it up to a
            multiple of 256); None for the smaller of `DEFAULT_CONTEXT` and what the model was trained with.
        n_batch: tokens in one decoding call; ``n_ubatch`` of them at a time on the device.
        n_threads: CPU threads for single tokens, ``n_threads_batch`` for prompts.
        n_gpu_layers: -1 for all.
        flash_attn: None lets the library decide.
        filename: glob of the file within a directory or repository.
        adapter: a LoRA adapter as GGUF.
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
    n_threads_batch: int = 1
    n_gpu_layers: int = -1
    main_gpu: int = 0
    tensor_split: list[float] = field(default_factory=list)
    flash_attn: bool | None = None
    use_mmap: bool = True
    use_mlock: bool = False
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    filename: str | None = None
    revision: str | None = None
    adapter: Path | None = None
    chat_template: str | None = None
    verbose: bool = False

    def file(self) -> Path:
        """The model's file; may download it. See `find`."""
        return find(self.model, self.filename, self.revision)


_INTEGERS = {
    "n_ctx": 1,
    "n_batch": 1,
    "n_ubatch": 1,
    "n_threads": 1,
    "n_threads_batch": 1,
    "n_gpu_layers": -1,
    "main_gpu": 0,
    "n_parallel": 1,
    "n_seq_max": 1,
}
"""Whole numbers among the ``model_kwargs``, with the least value of each."""
_FLAGS = {"flash_attn", "use_mmap", "use_mlock", "verbose"}
_FLOATS = {"rope_freq_base", "rope_freq_scale"}
_WORDS = {"binding", "filename"}


def read(params: ModelParams) -> Settings:
    """The settings that ``params`` describe.

    ``model_kwargs`` that llama.cpp does not have are named in one warning and ignored.

    Raises:
        ConfigError: a value is of the wrong type or out of range; ``path`` names it.
    """
    settings = Settings(model=params.model_name or EMBEDDED_MODEL)
    size = _size(settings.model)
    if size is not None and size <= _SMALL_MODEL:
        settings.slots = _SLOTS_SMALL
    settings.n_threads = 1 if size is not None and size <= _TINY_MODEL else _cpus()
    settings.n_ctx = params.model_max_length
    settings.revision = getattr(params, "model_revision", None)
    settings.chat_template = _template(params.chat_template)
    if params.adapter_model:
        settings.adapter = _adapter(params.adapter_model)
    threads_batch = None
    unknown = []
    for name, value in params.model_kwargs.items():
        if name in _INTEGERS:
            number = _integer(name, value)
            if name in ("n_parallel", "n_seq_max"):
                settings.slots = number
            else:
                setattr(settings, name, number)
            threads_batch = number if name == "n_threads_batch" else threads_batch
        elif name in _FLAGS:
            setattr(settings, name, _typed(name, value, bool))
        elif name in _FLOATS:
            setattr(settings, name, float(_typed(name, value, (int, float))))
        elif name in _WORDS:
            setattr(settings, name, _typed(name, value, str))
        elif name == "tensor_split":
            settings.tensor_split = [float(_typed(name, share, (int, float))) for share in value]
        else:
            unknown.append(name)
    settings.n_threads_batch = threads_batch or settings.n_threads
    settings.n_ubatch = min(settings.n_ubatch, settings.n_batch)
    if unknown:
        _log.warning("llamacpp does not know the model_kwargs %s; ignored", ", ".join(sorted(unknown)))
    return settings


def _integer(name: str, value: Any) -> int:
    number: int = _typed(name, value, int)
    if number < _INTEGERS[name]:
        raise ConfigError(
            f"model.model_kwargs.{name} must be at least {_INTEGERS[name]}, not {value}",
            path=f"model.model_kwargs.{name}",
        )
    return number


def _typed(name: str, value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = kind.__name__ if isinstance(kind, type) else "number"
        raise ConfigError(
            f"model.model_kwargs.{name} must be of type {wanted}, not {value!r}", path=f"model.model_kwargs.{name}"
        )
    return value


def _cpus() -> int:
    """CPUs this process may use; from a certain number on they are usually two to a core."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return usable if usable <= 4 else usable // 2


def _size(model: str) -> int | None:
    if model == EMBEDDED_MODEL:
        return embedded_model("gguf").stat().st_size
    path = Path(model).expanduser()
    return path.stat().st_size if path.is_file() else None


def _template(given: str | None) -> str | None:
    """Jinja source, given as such or as the name of a file."""
    if given and "{" not in given and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8")
    return given


def _adapter(given: str) -> Path:
    path = Path(given).expanduser()
    if path.suffix != ".gguf" or not path.is_file():
        raise ConfigError(
            f"model.adapter_model is {given!r}; llama.cpp needs a LoRA adapter in a .gguf file "
            "(convert_lora_to_gguf.py of llama.cpp makes one)",
            path="model.adapter_model",
        )
    return path


# -- which file --------------------------------------------------------------------------------------------------------


def find(model: str, filename: str | None = None, revision: str | None = None) -> Path:
    """The GGUF file that ``model`` means; blocks, and may download.

    Args:
        model: a file, a directory with one GGUF model, the embedded model's name, or a Hub repository id.
        filename: glob that picks one file of a directory or repository.
        revision: of a repository.

    Raises:
        EngineError: there is no such file, or several are meant.
        MissingDependencyError: it is a repository id, and ``huggingface_hub`` is not installed.
    """
    if model == EMBEDDED_MODEL:
        return embedded_model("gguf")
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return path / _pick([item.name for item in path.iterdir()], filename or "*.gguf", str(path))
    if model.endswith(".gguf") or model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise EngineError(
            f"model_name is {model!r}: there is no such file. Give the path of a .gguf file, or "
            f"{EMBEDDED_MODEL!r} for the model that comes with this package"
        )
    return _download(model, filename or _HUB_FILE, revision)


def _pick(names: list[str], pattern: str, where: str) -> str:
    # Of a model split into parts the library wants the first, and finds the others itself.
    found = sorted(name for name in names if fnmatch(name, pattern) and name.endswith(".gguf"))
    found = [name for name in found if "-of-" not in name or "-00001-of-" in name]
    if len(found) != 1:
        raise EngineError(
            f"{where} has {len(found) or 'no'} GGUF models that match {pattern!r}"
            + (f" ({', '.join(found)})" if found else "")
            + "; name one with model_kwargs.filename"
        )
    return found[0]


def _download(repository: str, pattern: str, revision: str | None) -> Path:
    try:
        import huggingface_hub as hub
    except ImportError:
        raise MissingDependencyError(
            f"{repository!r} is not a local file, and fetching it from the Hugging Face Hub needs a package: "
            "pip install huggingface_hub (or give the path of a .gguf file)"
        ) from None
    try:
        name = _pick(hub.HfApi().list_repo_files(repository, revision=revision), pattern, repository)
        return Path(hub.hf_hub_download(repository, name, revision=revision))
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"{repository!r} cannot be fetched from the Hugging Face Hub: {error}") from error
