"""What an answer depends on, as a digest. Rule: everything that decides the answer, and no credential.

A row's digest covers the settings (engine, endpoint, model, every parameter somebody set) and the row's own bytes. What
only decides how fast or how politely rows are asked (workers, rate limits, retries, clocks) is left out: a batch may
be resumed with other limits. Where the model is a file on this machine, its size and date count too: a retrained
checkpoint under the same name is another model.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_REMOTE = ("api_url", "extra_headers", "user_id")
"""The remote parameters that can change an answer."""

_INDIFFERENT = frozenset({"batch_size", "strict_params"})
"""Generation parameters that cannot: how many rows are computed at once, and whether a warning is an error."""

_CREDENTIAL_WORDS = ("auth", "key", "token", "secret", "cookie", "password", "credential")


def describe_settings(engine: Any, inference_config: Any = None) -> dict[str, Any]:
    """Engine and parameters of a batch, as JSON: only what was set explicitly, later wins, nothing secret."""
    model = _merged(engine, inference_config, "model_params", "model")
    settings = {
        "engine": getattr(engine, "name", None) or type(engine).__name__,
        "class": f"{type(engine).__module__}.{type(engine).__qualname__}",
        "model": model,
        "generation": {
            name: value
            for name, value in _merged(engine, inference_config, "generation_params", "generation").items()
            if name not in _INDIFFERENT
        },
        "remote": {
            name: _without_credentials(value)
            for name, value in _merged(engine, inference_config, "remote_params", "remote_params").items()
            if name in _REMOTE
        },
    }
    files = {name: state for name in ("model_name", "adapter_model") if (state := _on_disk(model.get(name)))}
    if files:
        settings["files"] = files
    return settings


def _merged(engine: Any, config: Any, on_engine: str, on_config: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for params in (getattr(engine, on_engine, None), getattr(config, on_config, None)):
        if params is not None:
            merged |= params.canonical()
    return merged


def _without_credentials(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        name: setting for name, setting in value.items() if not any(word in name.lower() for word in _CREDENTIAL_WORDS)
    }


def _on_disk(name: Any) -> list[list[Any]] | None:
    """Name, size and date of the files that make up a local model; None if ``name`` is not a path here."""
    if not isinstance(name, str) or not name:
        return None
    path = Path(name).expanduser()
    try:
        files: Iterable[Path] = sorted(path.iterdir()) if path.is_dir() else [path]
        found = [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files if file.is_file()]
    except OSError:
        return None
    return found or None


def digest_settings(settings: dict[str, Any]) -> bytes:
    """16 bytes that stand for the settings."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=repr)
    return blake2b(text.encode(), digest_size=16).digest()


def digest_row(settings: bytes, raw: bytes) -> bytes:
    """16 bytes that stand for a row under these settings: ``raw`` is the row as it lies in the file."""
    return blake2b(raw, digest_size=16, key=settings).digest()
