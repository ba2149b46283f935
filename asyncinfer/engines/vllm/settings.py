"""``ModelParams`` as settings of vLLM: what is loaded, and which words of ours mean which of vLLM's.

Rule: plain values; nothing is loaded, downloaded or imported here. `arguments` goes on from where this ends.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...models import EMBEDDED_MODEL, embedded_model
from ..local import chat_template

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...params import ModelParams

_log = logging.getLogger("asyncinfer")

_DTYPES = {
    **dict.fromkeys(("float32", "float", "f32", "fp32"), "float32"),
    **dict.fromkeys(("float16", "half", "f16", "fp16"), "float16"),
    **dict.fromkeys(("bfloat16", "bf16"), "bfloat16"),
    "auto": "auto",
}
_ATTENTION = {
    "flash_attention_2": "FLASH_ATTN",
    "flash_attention_3": "FLASH_ATTN",
    "flex_attention": "FLEX_ATTENTION",
}
"""Transformers' names of attention implementations -> vLLM's backends."""
_OWN_CHOICE = {"sdpa", "eager"}
"""Implementations that vLLM replaces by kernels of its own."""


template = chat_template.template


@dataclass(slots=True)
class Settings:
    """How to load and run a model.

    Attributes:
        model: as the caller named it.
        arguments: fields of vLLM's ``AsyncEngineArgs``, as far as they are known without vLLM; names it does not have
            among them are warned about when the model is loaded.
        adapter: path or Hub id of the LoRA adapter that answers unless a call names another.
        adapters: further adapters by name (``lora_modules``).
        chat_template: Jinja source that replaces the model's own.
        tool_parser, reasoning_parser: vLLM's names of the parsers of the answer, or None for the usual markup.
        filename: glob of a GGUF file within a directory or repository.
        bits: quantize to so many bits while loading, or None.
        slots: answers under way at once; None for what vLLM decides.
        compile: compile the model; None for what is best where it runs.
        verbose: let vLLM write its log to stderr.
    """

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    adapters: dict[str, str] = field(default_factory=dict)
    chat_template: str | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    filename: str | None = None
    bits: int | None = None
    slots: int | None = None
    compile: bool | None = None
    verbose: bool = False


def read(params: ModelParams) -> Settings:
    """The settings that ``params`` describe.

    Raises:
        ConfigError: a value is wrong; ``path`` names it.
    """
    model = params.model_name or EMBEDDED_MODEL
    settings = Settings(model=model, adapter=params.adapter_model, tool_parser=params.tool_call_parser)
    settings.chat_template = template(params.chat_template)
    arguments = settings.arguments
    arguments["model"] = str(embedded_model("hf")) if model == EMBEDDED_MODEL else _path(model, "model_name")
    arguments["dtype"] = _dtype(params.torch_dtype_str, "model.torch_dtype_str")
    if params.tokenizer_name:
        arguments["tokenizer"] = _path(params.tokenizer_name, "tokenizer_name")
    if params.model_max_length is not None:
        arguments["max_model_len"] = params.model_max_length
    if params.trust_remote_code:
        arguments["trust_remote_code"] = True
    if params.model_revision is not None:
        arguments["revision"] = params.model_revision
    if not params.load_pretrained_weights:
        arguments["load_format"] = "dummy"
    if params.processor_kwargs:
        arguments["mm_processor_kwargs"] = dict(params.processor_kwargs)
    if "compile" in params.model_fields_set:
        settings.compile = params.compile
    if params.attn_implementation is not None:
        _attention(settings, params.attn_implementation, "attn_implementation")
    if params.tokenizer_pad_token is not None:
        _ignored("tokenizer_pad_token", "vLLM pads nothing")
    _tokenizer(settings, params.tokenizer_kwargs)
    _devices(settings, params.device_map)
    _kwargs(settings, params.model_kwargs)
    return settings


def _path(name: str, field_name: str) -> str:
    """A folder or file, or an id of the Hub (``name`` or ``owner/name``)."""
    local = Path(name).expanduser()
    if local.exists():
        return str(local)
    if name.startswith((".", "/", "~")):
        raise ConfigError(
            f"model.{field_name} is {name!r}: there is no such file or folder", path=f"model.{field_name}"
        )
    return name


def _ignored(name: str, why: str) -> None:
    _log.warning("vllm ignores %s: %s", name, why)


def _dtype(name: Any, path: str) -> str:
    known = _DTYPES.get(str(name).removeprefix("torch.").lower())
    if known is None:
        raise ConfigError(f"{path} is {name!r}; vLLM computes in float32, float16 or bfloat16 (or auto)", path=path)
    return known


def _attention(settings: Settings, name: str, field_name: str) -> None:
    if name in _OWN_CHOICE:
        _ignored(field_name, f"it chooses its own kernels instead of {name!r} (model_kwargs.attention_backend)")
    else:
        settings.arguments["attention_backend"] = _ATTENTION.get(name, name)


def _tokenizer(settings: Settings, given: dict[str, Any]) -> None:
    rest = dict(given)
    for name in ("tokenizer_mode", "tokenizer_revision"):
        if name in rest:
            settings.arguments[name] = rest.pop(name)
    if "revision" in rest:
        settings.arguments["tokenizer_revision"] = rest.pop("revision")
    if "use_fast" in rest and not rest.pop("use_fast"):
        settings.arguments["tokenizer_mode"] = "slow"
    if rest.pop("trust_remote_code", False):
        settings.arguments["trust_remote_code"] = True
    if rest:
        _ignored(f"tokenizer_kwargs {', '.join(sorted(rest))}", "it makes its tokenizer itself")


def _devices(settings: Settings, device_map: Any) -> None:
    """Several named devices are so many shares of the model; which they are, is the environment's to say."""
    if device_map is None or device_map in ("auto", "cpu", "cuda"):
        return
    if isinstance(device_map, str) and all(_is_device(name) for name in device_map.split(",")):
        names = [name.strip() for name in device_map.split(",")]
        settings.arguments["device_ids"] = [name.removeprefix("cuda:") for name in names]
        settings.arguments["tensor_parallel_size"] = len(names)
        return
    _ignored("device_map", "it spreads a model by tensor_parallel_size and pipeline_parallel_size (model_kwargs)")


def _is_device(name: str) -> bool:
    return name.strip().startswith("cuda:") and name.strip().removeprefix("cuda:").isdigit()


# -- model_kwargs ------------------------------------------------------------------------------------------------------


def _kwargs(settings: Settings, given: dict[str, Any]) -> None:
    for name, value in given.items():
        reader = _OWN.get(name)
        if reader is not None:
            reader(settings, value)
        else:
            settings.arguments[name] = value
    if "max_num_seqs" in given:
        settings.slots = _whole("max_num_seqs", given["max_num_seqs"])
    share = given.get("gpu_memory_utilization")
    if share is not None and not (isinstance(share, (int, float)) and 0 < share <= 1):
        raise _wrong("gpu_memory_utilization", "a number above 0 and up to 1", share)
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        if given.get(name) is not None and given[name] != -1:
            _whole(name, given[name])
    parser = settings.arguments.get("reasoning_parser")
    settings.reasoning_parser = parser or None


def _wrong(name: str, wanted: str, value: Any) -> ConfigError:
    return ConfigError(f"model.model_kwargs.{name} must be {wanted}, not {value!r}", path=f"model.model_kwargs.{name}")


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _wrong(name, "a whole number from 1", value)
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def _verbose(settings: Settings, value: Any) -> None:
    settings.verbose = _flag("verbose", value)


def _filename(settings: Settings, value: Any) -> None:
    settings.filename = str(value)


def _type(settings: Settings, value: Any) -> None:
    settings.arguments["dtype"] = _dtype(value, "model.model_kwargs.dtype")


def _attention_kwarg(settings: Settings, value: Any) -> None:
    _attention(settings, str(value), "model_kwargs.attn_implementation")


def _four(settings: Settings, value: Any) -> None:
    settings.bits = 4 if _flag("load_in_4bit", value) else settings.bits


def _eight(settings: Settings, value: Any) -> None:
    settings.bits = 8 if _flag("load_in_8bit", value) else settings.bits


def _quantization(settings: Settings, value: Any) -> None:
    """Transformers' ``quantization_config``; one of vLLM's own goes on as it is."""
    if not isinstance(value, dict) or not ({"quant_method", "load_in_4bit", "load_in_8bit"} & value.keys()):
        settings.arguments["quantization_config"] = value
        return
    rest = {name: item for name, item in value.items() if name not in {"quant_method", "load_in_4bit", "load_in_8bit"}}
    method = value.get("quant_method")
    if value.get("load_in_4bit") or value.get("load_in_8bit"):
        settings.bits = 4 if value.get("load_in_4bit") else 8
    elif method is not None:
        settings.arguments["quantization"] = str(method)
    if rest:
        _ignored(f"quantization_config {', '.join(sorted(rest))}", "it decides these itself")


def _lora_modules(settings: Settings, value: Any) -> None:
    if isinstance(value, dict) and all(isinstance(path, (str, Path)) for path in value.values()):
        pairs = [(str(name), str(path)) for name, path in value.items()]
    elif isinstance(value, list) and all(isinstance(item, str) and "=" in item for item in value):
        pairs = [(item.split("=", 1)[0], item.split("=", 1)[1]) for item in value]
    else:
        raise _wrong("lora_modules", "a mapping of names to paths", value)
    settings.adapters.update(pairs)


def _tool_parser(settings: Settings, value: Any) -> None:
    settings.tool_parser = str(value)


def _device_map(settings: Settings, value: Any) -> None:
    _devices(settings, value)


def _elsewhere(name: str, field_name: str) -> Callable[[Settings, Any], None]:
    """Two places to say one thing: which of them counted would be anybody's guess."""

    def refuse(settings: Settings, value: Any) -> None:  # noqa: ARG001 -- one shape for all
        path = f"model.model_kwargs.{name}"
        raise ConfigError(f"{path} is {value!r}; say it as model.{field_name}", path=path)

    return refuse


_OWN = {
    "verbose": _verbose,
    "filename": _filename,
    "dtype": _type,
    "torch_dtype": _type,
    "attn_implementation": _attention_kwarg,
    "device_map": _device_map,
    "load_in_4bit": _four,
    "load_in_8bit": _eight,
    "quantization_config": _quantization,
    "lora_modules": _lora_modules,
    "tool_call_parser": _tool_parser,
    "model": _elsewhere("model", "model_name"),
}
"""``model_kwargs`` that are no field of ``AsyncEngineArgs``, or are written differently there."""
