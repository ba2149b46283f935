"""Which files are meant: the model, the projector that lets it see, adapters. A path, a folder, or a Hub repository.

Rule: nothing is loaded here; only `find` and `find_projector` may go to the network, and both block.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ...errors import ConfigError, EngineError, MissingDependencyError
from ...models import EMBEDDED_MODEL, embedded_model

_HUB_FILE = "*8_0.gguf"
_PROJECTOR = "*mmproj*.gguf"
_PRECISIONS = ("f16", "bf16", "f32", "q8_0")
"""Of several projectors that differ in nothing else, which one is taken: they are small, and suffer from fewer bits."""


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
        return path / _pick(_names(path), filename or "*.gguf", str(path))
    if _is_path(model):
        raise EngineError(
            f"model_name is {model!r}: there is no such file. Give the path of a .gguf file, or "
            f"{EMBEDDED_MODEL!r} for the model that comes with this package"
        )
    return _download(model, _pick(_listed(model, revision), filename or _HUB_FILE, model), revision)


def find_projector(wanted: str | None, model: str, path: Path, revision: str | None = None) -> Path | None:
    """The file with the vision part of a model; None where it has none. Blocks, and may download.

    Args:
        wanted: its path, or a glob among the files beside the model; None looks for one beside a model that has its
            folder, or its repository, to itself.
        model: the model as `find` was asked for it.
        path: the model's file, as `find` answered.
        revision: of a repository.

    Raises:
        EngineError: the file that is wanted is not there.
    """
    if wanted is not None and Path(wanted).expanduser().is_file():
        return Path(wanted).expanduser()
    remote = not Path(model).expanduser().exists() and model != EMBEDDED_MODEL
    names = _listed(model, revision) if remote else _names(path.parent)
    if wanted is None:
        found = sorted((name for name in names if _is_projector(name)), key=_precision)
        if not found or (not remote and len(_models(names)) != 1):
            return None  # (whose it is cannot be known in a folder of many models)
    else:
        found = sorted((name for name in names if fnmatch(name, wanted) and name.endswith(".gguf")), key=_precision)
        if not found:
            raise EngineError(f"model_kwargs.mmproj is {wanted!r}: there is no such file, and none beside {path}")
    return _download(model, found[0], revision) if remote else path.parent / found[0]


def adapters(model: str | None, kwargs: dict[str, Any]) -> list[tuple[Path, float]]:
    """LoRA adapters and how strongly each is applied.

    Args:
        model: `ModelParams.adapter_model`.
        kwargs: ``lora``: paths, or mappings with ``path`` and ``scale``; ``lora_path`` and ``lora_scale`` as in
            ``llama_cpp.Llama``: the latter scales ``lora_path`` and ``adapter_model``.

    Raises:
        ConfigError: one is no GGUF file, or is described otherwise.
    """
    scale = _scale("lora_scale", kwargs.get("lora_scale", 1.0))
    found: list[tuple[Path, float]] = []
    if model:
        found.append((_adapter(model, "model.adapter_model"), scale))
    if kwargs.get("lora_path"):
        found.append((_adapter(kwargs["lora_path"], "model.model_kwargs.lora_path"), scale))
    listed = kwargs.get("lora") or []
    for at, item in enumerate(listed if isinstance(listed, (list, tuple)) else [listed]):
        name = f"lora[{at}]"
        one = {"path": item} if isinstance(item, (str, Path)) else item
        if not isinstance(one, dict) or "path" not in one or one.keys() - {"path", "scale"}:
            raise ConfigError(
                f"model.model_kwargs.{name} must be a path or {{path: ..., scale: ...}}, not {item!r}",
                path=f"model.model_kwargs.{name}",
            )
        path = _adapter(one["path"], f"model.model_kwargs.{name}")
        found.append((path, _scale(f"{name}.scale", one.get("scale", 1.0))))
    return found


def _scale(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(
            f"model.model_kwargs.{name} must be a number, not {value!r}", path=f"model.model_kwargs.{name}"
        )
    return float(value)


def _adapter(given: Any, where: str) -> Path:
    path = Path(str(given)).expanduser()
    if path.is_dir():
        files = _names(path)
        if "adapter_config.json" in files and not any(name.endswith(".gguf") for name in files):
            raise ConfigError(
                f"{where} is {given!r}, an adapter in peft's format; llama.cpp needs it as GGUF: "
                f"python convert_lora_to_gguf.py --base MODEL_FOLDER {given} (a script of the llama.cpp repository)",
                path=where,
            )
        return path / _pick(files, "*.gguf", str(path), what="adapters", option="the path of one")
    if path.suffix != ".gguf" or not path.is_file():
        raise ConfigError(
            f"{where} is {given!r}; llama.cpp needs a LoRA adapter in a .gguf file "
            "(convert_lora_to_gguf.py of llama.cpp makes one)",
            path=where,
        )
    return path


# -- names -------------------------------------------------------------------------------------------------------------


def _is_path(model: str) -> bool:
    return model.endswith(".gguf") or model.startswith((".", "/", "~")) or model.count("/") != 1


def _names(folder: Path) -> list[str]:
    return [item.name for item in folder.iterdir()]


def _is_projector(name: str) -> bool:
    return fnmatch(name.lower(), _PROJECTOR)


def _models(names: list[str], pattern: str = "*") -> list[str]:
    # Of a model split into parts the library wants the first, and finds the others itself.
    found = sorted(name for name in names if fnmatch(name, pattern) and name.endswith(".gguf"))
    return [name for name in found if not _is_projector(name) and ("-of-" not in name or "-00001-of-" in name)]


def _precision(name: str) -> tuple[int, str]:
    lower = name.lower()
    rank = [at for at, kind in enumerate(_PRECISIONS) if lower.endswith((f"-{kind}.gguf", f".{kind}.gguf"))]
    return (rank[0] if rank else len(_PRECISIONS), name)


def _pick(
    names: list[str],
    pattern: str,
    where: str,
    *,
    what: str = "GGUF models",
    option: str = "one with model_kwargs.filename",
) -> str:
    found = _models(names, pattern)
    if len(found) != 1:
        raise EngineError(
            f"{where} has {len(found) or 'no'} {what} that match {pattern!r}"
            + (f" ({', '.join(found)})" if found else "")
            + f"; name {option}"
        )
    return found[0]


# -- the Hub -----------------------------------------------------------------------------------------------------------


def _hub(repository: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingDependencyError(
            f"{repository!r} is not a local file, and fetching it from the Hugging Face Hub needs a package: "
            "pip install huggingface_hub (or give the path of a .gguf file)"
        ) from None
    return huggingface_hub


def _listed(repository: str, revision: str | None) -> list[str]:
    hub = _hub(repository)
    try:
        return list(hub.HfApi().list_repo_files(repository, revision=revision))
    except Exception as error:  # noqa: BLE001 -- typed below
        try:  # without a network, what was fetched before is as good
            root = Path(hub.snapshot_download(repository, revision=revision, local_files_only=True))
            return [str(path.relative_to(root)) for path in root.rglob("*.gguf")]
        except Exception:  # noqa: BLE001 -- the first error says what is wrong
            raise EngineError(f"{repository!r} cannot be fetched from the Hugging Face Hub: {error}") from error


def _download(repository: str, name: str, revision: str | None) -> Path:
    hub = _hub(repository)
    try:
        return Path(hub.hf_hub_download(repository, name, revision=revision))
    except Exception as error:
        raise EngineError(f"{name} of {repository!r} cannot be fetched from the Hugging Face Hub: {error}") from error
