"""LoRA adapters: how much room vLLM reserves for them, and which one answers a call.

Any number of adapters may answer side by side. A call names one by ``ModelParams.adapter_model`` (a path, a Hub id, or
a name in ``model_kwargs.lora_modules``), or by such a name in ``model_name``, as one does with a vLLM server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, EngineError
from ...models import EMBEDDED_MODEL

if TYPE_CHECKING:
    from ...params import ModelParams
    from .settings import Settings

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for ``max_lora_rank``."""


_ON_CPU = 8
"""Adapters that a CPU has room for, unless more are known: their number cannot grow later."""


def reserve(given: dict[str, Any], settings: Settings, *, on_cpu: bool = False) -> None:
    """Complete the engine's arguments for the adapters that are known before it is loaded."""
    known = list(dict.fromkeys([*([settings.adapter] if settings.adapter else []), *settings.adapters.values()]))
    known = list(dict.fromkeys(settings.adapters.get(name, name) for name in known))
    if known:
        given.setdefault("enable_lora", True)
    if not given.get("enable_lora"):
        return
    if known and "max_lora_rank" not in given:
        given["max_lora_rank"] = _room(max(rank(_folder(name)) for name in known))
    # At least two, so that a further adapter can answer beside the first.
    room = given.get("max_loras") or max(_ON_CPU if on_cpu else 2, len(known))
    # The kernels for CPUs add the adapter of the last place to every row that has none (they take its number, -1, for
    # the last of a list). So that place stays empty: `Adapters` loads no more than one less.
    given["max_loras"] = room + 1 if on_cpu else room


def _room(needed: int) -> int:
    for size in _RANKS:
        if size >= needed:
            return size
    raise ConfigError(
        f"the LoRA adapter has rank {needed}; vLLM takes at most {_RANKS[-1]}", path="model.adapter_model"
    )


def rank(folder: Path) -> int:
    """The highest rank in an adapter. Raises `ConfigError` if it is none."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return max(int(config["r"]), *(int(one) for one in (config.get("rank_pattern") or {}).values()), 1)
    except FileNotFoundError:
        raise ConfigError(
            f"model.adapter_model is {str(folder)!r}, which has no adapter_config.json: it is no LoRA adapter "
            "as PEFT saves them",
            path="model.adapter_model",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder}/adapter_config.json cannot be read: {error}", path="model.adapter_model"
        ) from error


def _folder(name: str) -> Path:
    """Where an adapter lies; one of the Hub is downloaded. Blocks."""
    local = Path(name).expanduser()
    if local.is_dir() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        if not local.is_dir():
            raise ConfigError(
                f"model.adapter_model is {name!r}: there is no such folder, and no such name in "
                "model_kwargs.lora_modules",
                path="model.adapter_model",
            )
        return local
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name))
    except Exception as error:
        raise EngineError(f"the adapter {name!r} cannot be fetched from the Hugging Face Hub: {error}") from error


class Adapters:
    """The adapters of one loaded engine; each is loaded once. Used on the worker's loop.

    Args:
        settings: of the engine.
        llm: vLLM's ``AsyncLLM``.
        most: the highest rank there is room for; None for no adapters at all.
        places: how many adapters can ever be loaded; None for any number.
    """

    def __init__(self, settings: Settings, llm: Any, *, most: int | None, places: int | None) -> None:
        self._settings = settings
        self._llm = llm
        self._most = most
        self._places = places
        self._loaded: dict[str, Any] = {}

    async def of(self, model: ModelParams) -> Any:
        """The ``LoRARequest`` for a call; None for the model itself.

        Raises:
            ConfigError: the call asks for a model or an adapter that this engine does not have.
        """
        name = self._named(model)
        if name is None:
            return None
        known = self._loaded.get(name)
        return known if known is not None else await self._load(name)

    def _named(self, model: ModelParams) -> str | None:
        asked = model.model_name or EMBEDDED_MODEL
        if asked in self._settings.adapters:
            return asked
        if asked != self._settings.model:
            names = ", ".join([self._settings.model, *self._settings.adapters])
            raise ConfigError(
                f"this engine runs {names}, not {asked!r}; open another engine for it", path="model.model_name"
            )
        return model.adapter_model

    async def _load(self, name: str) -> Any:
        from anyio.to_thread import run_sync
        from vllm.lora.request import LoRARequest

        if self._most is None:
            raise ConfigError(
                f"the call asks for the LoRA adapter {name!r}, and the engine was loaded without room for any: give it "
                'one from the start (adapter_model, model_kwargs.lora_modules), or model_kwargs={"enable_lora": True}',
                path="model.adapter_model",
            )
        folder = await run_sync(_folder, self._settings.adapters.get(name, name))
        needed = await run_sync(rank, folder)
        if needed > self._most:
            raise ConfigError(
                f"the LoRA adapter {name!r} has rank {needed}, and the engine has room for {self._most} "
                "(model_kwargs.max_lora_rank)",
                path="model.model_kwargs.max_lora_rank",
            )
        known = self._loaded.get(name)  # somebody else may have been quicker
        if known is None:
            if self._places is not None and len(self._loaded) >= self._places:
                raise ConfigError(
                    f"without a GPU this engine has room for {self._places} LoRA adapters, and all are taken "
                    "(model_kwargs.max_loras)",
                    path="model.model_kwargs.max_loras",
                )
            known = self._loaded[name] = LoRARequest(name, len(self._loaded) + 1, str(folder))
            try:
                # By itself, not with the first request: what is wrong with the adapter must not harm the engine.
                await self._llm.add_lora(known)
            except BaseException as error:
                del self._loaded[name]
                if isinstance(error, Exception):
                    raise ConfigError(
                        f"vLLM cannot load the LoRA adapter {name!r}: {error}", path="model.adapter_model"
                    ) from error
                raise
        return known
