"""From settings to a model that can be run: weights, quantization, adapter, tokenizer, processor. Blocks."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import AsyncInferError, ConfigError, EngineError, MissingDependencyError
from . import kinds
from .failures import typed

if TYPE_CHECKING:
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_INSTALL = "pip install 'asyncinfer[native]'"
_KEPT = (
    *("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id", "forced_bos_token_id"),
    *("suppress_tokens", "begin_suppress_tokens", "cache_implementation"),
)
"""Of a model's own generation settings, what it cannot do without. Sampling is the caller's business alone."""


_TOKENIZERS = ("tokenizer*", "*.model", "vocab*", "tekken.json", "merges.txt", "*.tiktoken")
"""Files that tokenizers are read from."""


@dataclass(slots=True)
class Loaded:
    """A model, ready to run.

    Attributes:
        model: of Transformers, in evaluation mode.
        tokenizer: its tokenizer.
        processor: of a model that sees; None for one that reads text only.
        ends: tokens that end an answer.
        context: the most tokens of prompt and answer together.
        size: tokens that the model knows.
        obstacle: why its answers cannot be batched continuously, or None.
    """

    model: Any
    tokenizer: Any
    processor: Any
    ends: frozenset[int]
    context: int
    size: int
    obstacle: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def pad(self) -> int:
        """The token that fills up shorter prompts of a batch."""
        found = self.tokenizer.pad_token_id
        return int(found) if found is not None else next(iter(sorted(self.ends)), 0)


def load(settings: Settings) -> Loaded:
    """Load what ``settings`` describe; may download it.

    Raises:
        MissingDependencyError: a package is not installed; the message has the command.
        ConfigError: a parameter is wrong for this model.
        EngineError: there is no such model, or it cannot be loaded.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingDependencyError(f"the Native engine needs PyTorch and Transformers: {_INSTALL}") from error
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    transformers.utils.logging.disable_progress_bar()
    try:
        return _load(settings)
    except AsyncInferError:
        raise
    except ImportError as error:  # accelerate, bitsandbytes, torchvision ...
        said = str(error).strip().partition("\n")[0]
        raise MissingDependencyError(
            f"{settings.model} needs a package that is not installed: {said} ({_INSTALL}, or 'asyncinfer[gpu]' for 4 "
            "and 8 bit)"
        ) from error
    except OSError as error:
        said = " ".join(str(error).split())[:400]
        raise EngineError(f"the model {settings.model} cannot be loaded: {said}") from error
    except Exception as error:
        raise typed(error, f"loading {settings.model}", log=False) from error  # (the cause tells the rest)


def _load(settings: Settings) -> Loaded:
    _seek(settings.source)
    source, adapter = _adapter(settings)
    shared = {"revision": settings.revision, "trust_remote_code": settings.trust}
    if adapter is not None and adapter != settings.adapter:
        shared["revision"] = None  # it was the adapter's
    config = _config(source, shared)
    kinds.check(source, config)
    sees = _sees(config)
    processor = _processor(settings, source, shared) if sees else None
    tokenizer = processor.tokenizer if processor is not None and settings.tokenizer is None else None
    if tokenizer is None:
        tokenizer = _tokenizer(settings, source, shared)
    _prepare_tokenizer(settings, tokenizer)
    model = _weights(settings, source, config, shared, sees=sees)
    if adapter is not None:
        model = _with_adapter(model, adapter, merge=not settings.quantization)
    model.eval()
    ends = _ends(model, tokenizer)
    _settle(model, tokenizer, ends)
    if settings.compile:
        model.compile(dynamic=True)
    text = config.get_text_config()
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        processor=processor,
        ends=ends,
        context=_context(settings, text),
        size=_size(model, tokenizer),
        obstacle=_obstacle(settings, model, config, sees=sees),
    )


def _seek(source: str) -> None:
    """Refuse what is neither a folder nor the id of a repository, before it is looked for in the network."""
    path = Path(source)
    if path.is_file():
        why = "LlamaCppInferenceEngine runs GGUF files" if path.suffix == ".gguf" else "name the folder it lies in"
        raise EngineError(f"model_name is {source!r}, a file; the Native engine needs a folder with config.json: {why}")
    if not path.exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise EngineError(f"model_name is {source!r}: there is no such folder")


def _config(source: str, shared: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise EngineError(f"{source} has no config.json: it is no folder of a Transformers model")
    try:
        return AutoConfig.from_pretrained(source, **shared)
    except ValueError as error:
        if shared["trust_remote_code"]:
            raise
        raise ConfigError(
            f"model.model_name: {source} is of a kind that Transformers does not know by itself; if you trust the code "
            f"that comes with it, set trust_remote_code ({str(error).strip().partition(chr(10))[0]})",
            path="model.model_name",
        ) from error


def _sees(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as NAMES

    return config.model_type in NAMES and getattr(config, "vision_config", None) is not None


# -- weights -----------------------------------------------------------------------------------------------------------


def _weights(settings: Settings, source: str, config: Any, shared: dict[str, Any], *, sees: bool) -> Any:
    import torch
    import transformers

    if sees:
        kind = transformers.AutoModelForImageTextToText
    elif config.is_encoder_decoder:
        kind = transformers.AutoModelForSeq2SeqLM
    else:
        kind = transformers.AutoModelForCausalLM
    how: dict[str, Any] = {"trust_remote_code": settings.trust}
    if settings.attention:
        how["attn_implementation"] = settings.attention
    if not settings.pretrained:
        if settings.dtype != "auto":
            how["dtype"] = getattr(torch, settings.dtype)
        model = kind.from_config(config, **how, **settings.constructor)
        device = _single_device(settings.device_map)
        return model.to(device) if device else model
    how.update(_devices(settings.device_map))
    if settings.quantization:
        how["quantization_config"] = _quantization(settings.quantization)
    how.update(shared)
    try:
        return kind.from_pretrained(source, config=config, dtype=settings.dtype, **how, **settings.constructor)
    except TypeError as error:
        if not settings.constructor:
            raise
        names = ", ".join(sorted(settings.constructor))
        raise ConfigError(
            f"model.model_kwargs: this model cannot be made with {names}: {error}", path="model.model_kwargs"
        ) from error


def _devices(wanted: Any) -> dict[str, Any]:
    """``device_map`` (and what goes with it) as Transformers takes it."""
    import torch

    gpus = torch.cuda.is_available()
    if wanted is None:
        return {}
    if isinstance(wanted, str) and "," in wanted:
        names = [name.strip() for name in wanted.split(",")]
        room: dict[int, int] = {}
        for name in names:
            number = name.removeprefix("cuda:")
            if not name.startswith("cuda:") or not number.isdigit() or int(number) >= torch.cuda.device_count():
                raise ConfigError(
                    f"model.device_map: {wanted!r} names {name!r}; there are "
                    f"{', '.join(f'cuda:{one}' for one in range(torch.cuda.device_count())) or 'no GPUs'}",
                    path="model.device_map",
                )
            room[int(number)] = int(torch.cuda.mem_get_info(int(number))[0] * 0.9)
        return {"device_map": "auto", "max_memory": room}
    if isinstance(wanted, str) and wanted.startswith("cuda") and not gpus:
        raise ConfigError(
            f"model.device_map is {wanted!r}, and PyTorch sees no such device here", path="model.device_map"
        )
    if wanted == "auto" and not gpus:
        return {}  # the CPU, or what torch takes for one: no map needed, nor accelerate
    return {"device_map": wanted}


def _single_device(wanted: Any) -> str | None:
    import torch

    if isinstance(wanted, str) and wanted != "auto":
        return wanted.partition(",")[0]
    return "cuda" if torch.cuda.is_available() else None


def _quantization(given: dict[str, Any]) -> Any:
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "weights of 4 and 8 bit need bitsandbytes: pip install 'asyncinfer[gpu]'"
        ) from error
    try:
        return BitsAndBytesConfig(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model.model_kwargs: {', '.join(sorted(given))} make no BitsAndBytesConfig: {error}",
            path="model.model_kwargs",
        ) from error


# -- adapter -----------------------------------------------------------------------------------------------------------


def _adapter(settings: Settings) -> tuple[str, str | None]:
    """The base model and the adapter; a ``model_name`` that is an adapter names its base model itself."""
    if settings.adapter is not None:
        return settings.source, settings.adapter
    described = Path(settings.source) / "adapter_config.json"
    if not described.is_file():
        found = _remote_description(settings)
        if found is None:
            return settings.source, None
        described = found
    elif (described.parent / "config.json").is_file():
        return settings.source, None  # a whole model that happens to keep an adapter beside it
    base = json.loads(described.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            f"model.model_name: {settings.model} is an adapter that does not say of which model; name that with "
            "model_name, and the adapter with adapter_model",
            path="model.model_name",
        )
    _log.info("native: %s is an adapter of %s", settings.model, base)
    return str(base), settings.source


def _remote_description(settings: Settings) -> Path | None:
    if Path(settings.source).exists():
        return None
    from transformers.utils import cached_file

    found = cached_file(
        settings.source,
        "adapter_config.json",
        revision=settings.revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return Path(found) if found else None


def _with_adapter(model: Any, adapter: str, *, merge: bool) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingDependencyError(f"LoRA adapters need peft: {_INSTALL}") from error
    try:
        if not merge:  # into rounded weights it would be rounded too
            model.load_adapter(adapter)
            return model
        return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        said = " ".join(str(error).split())[:400]
        raise ConfigError(
            f"model.adapter_model: the adapter {adapter} cannot be put on this model: {said}",
            path="model.adapter_model",
        ) from error


# -- tokenizer ---------------------------------------------------------------------------------------------------------


def _tokenizer(settings: Settings, source: str, shared: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    if settings.tokenizer is not None:
        shared = {**shared, "revision": None}
    place = settings.tokenizer or source
    try:
        return AutoTokenizer.from_pretrained(place, **{**shared, **settings.tokenizer_kwargs})
    except (ValueError, OSError) as error:
        if _has_tokenizer(place):
            raise
        raise ConfigError(
            f"model.tokenizer_name: {place} has no tokenizer; name a folder or repository that has the model's",
            path="model.tokenizer_name",
        ) from error


def _has_tokenizer(place: str) -> bool:
    """Whether a folder holds any file of a tokenizer; what is not a folder may."""
    path = Path(place)
    return not path.is_dir() or any(any(path.glob(pattern)) for pattern in _TOKENIZERS)


def _processor(settings: Settings, source: str, shared: dict[str, Any]) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(source, **{**shared, **settings.processor_kwargs})


def _prepare_tokenizer(settings: Settings, tokenizer: Any) -> None:
    if settings.pad_token is not None:
        if tokenizer.convert_tokens_to_ids(settings.pad_token) in {None, tokenizer.unk_token_id}:
            raise ConfigError(
                f"model.tokenizer_pad_token: {settings.pad_token!r} is no token of this tokenizer",
                path="model.tokenizer_pad_token",
            )
        tokenizer.pad_token = settings.pad_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"


# -- what follows ------------------------------------------------------------------------------------------------------


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    found: set[int] = set()
    for given in (model.generation_config.eos_token_id, model.config.get_text_config().eos_token_id):
        found.update(given if isinstance(given, (list, tuple)) else [] if given is None else [given])
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    return frozenset(found)


def _settle(model: Any, tokenizer: Any, ends: frozenset[int]) -> None:
    """Take away the model's own idea of sampling, which would be mixed into every request."""
    from transformers import GenerationConfig

    own = model.generation_config
    kept = {name: getattr(own, name, None) for name in _KEPT}
    kept["eos_token_id"] = sorted(ends) or None
    kept["pad_token_id"] = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else kept["pad_token_id"]
    model.generation_config = GenerationConfig(**{name: value for name, value in kept.items() if value is not None})


def _context(settings: Settings, config: Any) -> int:
    own = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1 << 20
    return min(settings.max_length, own) if settings.max_length else int(own)


def _size(model: Any, tokenizer: Any) -> int:
    """Rows of the scores: more than the tokenizer has words, in many models."""
    head = model.get_output_embeddings()
    weight = getattr(head, "out_features", None)
    return int(weight) if weight else int(getattr(model.config.get_text_config(), "vocab_size", len(tokenizer)))


def _obstacle(settings: Settings, model: Any, config: Any, *, sees: bool) -> str | None:
    if settings.paged is False:
        return "model_kwargs.continuous_batching is False"
    if sees:
        return "it sees images"
    if config.is_encoder_decoder:
        return "it has an encoder"
    if len(set(getattr(model, "hf_device_map", {"": 0}).values())) > 1:
        return "its layers lie on several devices"
    attention = str(model.config._attn_implementation)  # noqa: SLF001 -- the library's own way to know
    if attention != "sdpa" and not attention.startswith("flash"):
        return f"its attention is {attention}"
    if not hasattr(model, "init_continuous_batching"):
        return "this version of Transformers does not offer it"
    return None
