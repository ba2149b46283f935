"""``sampling_params`` in vLLM's words as our `GenerationParams`.

Rule: what is said means what vLLM's ``SamplingParams`` means by it, defaults included (temperature 1.0, 16 tokens); a
word that has no counterpart is named in one warning if it would have changed anything, and never dropped in silence.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import ConfigError, GenerationParams, GuidedDecodingParams

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("asyncinfer")

_NAMES = {
    "max_tokens": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "stop": "stop_strings",
    "stop_token_ids": "stop_token_ids",
    "skip_special_tokens": "skip_special_tokens",
    "logit_bias": "logit_bias",
    "n": "n",
}
"""Field of ``vllm.SamplingParams`` -> field of `GenerationParams`."""
_DEFAULTS: dict[str, Any] = {"temperature": 1.0, "max_tokens": 16}
"""Where vLLM's defaults are not ours."""
_WITHOUT_EFFECT = {
    "output_kind",  # how a stream is cut
    "stream_interval",
    "skip_clone",
    "flat_logprobs",
    "output_text_buffer_length",
    "detokenize",
    "spaces_between_special_tokens",
    "skip_reading_prefix_cache",
    "guided_decoding",  # the older name of structured_outputs; both are read below
    "structured_outputs",
    "include_stop_str_in_output",
    "ignore_eos",
    "logprobs",
}
"""Fields that change no token, or are read in their own way."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sampling:
    """How a prompt is completed.

    Attributes:
        generation: for the engine; its ``n`` is set apart.
        n: number of answers.
        with_stop: whether the stop string that ended an answer belongs to its text.
    """

    generation: GenerationParams
    n: int = 1
    with_stop: bool = False


def read_sampling(given: Any, warned: set[str] | None = None) -> Sampling:
    """Sampling parameters from what a caller may hand over.

    Args:
        given: None, a mapping of vLLM's names, a ``vllm.SamplingParams`` (or any object with such attributes), or
            `GenerationParams`, which keep their own meaning and defaults.
        warned: names that were warned about already, and will be added to.

    Raises:
        ConfigError: a value is of the wrong type or out of range; ``path`` is its name in vLLM's words.
    """
    if isinstance(given, GenerationParams):
        return Sampling(given, given.n)
    fields = _fields(given)
    usual = _usual(given)
    wanted: dict[str, Any] = {}
    for name, ours in _NAMES.items():
        value = fields.get(name, _DEFAULTS.get(name))
        if value is not None or name == "max_tokens":
            wanted[ours] = value
    if wanted.get("seed") == -1:  # vLLM's other word for none
        del wanted["seed"]
    n = wanted.pop("n", 1)
    if type(n) is not int or n < 1:
        raise ConfigError(f"sampling_params.n is a whole number from 1, not {n!r}", path="sampling_params.n")
    for read in _READERS:
        read(fields, wanted)
    unknown = sorted(
        name
        for name, value in fields.items()
        if name not in _NAMES
        and name not in _WITHOUT_EFFECT
        and not _neutral(value)
        and not (name in usual and value == usual[name])
    )
    _warn(unknown, warned)
    try:
        generation = GenerationParams(**wanted)
    except ConfigError as error:
        raise _in_their_words(error) from None
    return Sampling(generation, n, bool(fields.get("include_stop_str_in_output")))


def _fields(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    names = getattr(type(given), "__struct_fields__", None)  # msgspec, which vLLM's are made of
    if names is None and dataclasses.is_dataclass(given):
        names = [field.name for field in dataclasses.fields(given)]
    if names is None:
        names = list(getattr(given, "__dict__", ()))
    fields = {name: getattr(given, name) for name in names if not name.startswith("_")}
    if not fields.keys() & _NAMES.keys():
        raise ConfigError(
            "sampling_params are a mapping of vLLM's names, a vllm.SamplingParams or GenerationParams, "
            f"not {type(given).__name__}",
            path="sampling_params",
        )
    return fields


def _usual(given: Any) -> dict[str, Any]:
    """What the fields of an object are where nobody has set them: such a value asks for nothing."""
    kind = type(given)
    names = getattr(kind, "__struct_fields__", None)
    if names is not None:
        values = kind.__struct_defaults__  # of the last fields: those before have none
        return dict(zip(names[len(names) - len(values) :], values, strict=True))
    if dataclasses.is_dataclass(kind):
        return {field.name: field.default for field in dataclasses.fields(kind)}
    return {}


_THEIR_WORDS = {ours: name for name, ours in _NAMES.items()} | {"top_logprobs": "logprobs"}


def _in_their_words(error: ConfigError) -> ConfigError:
    """What is wrong with one of our parameters, said of the field that the caller wrote."""
    path = error.path or ""
    section, _, rest = path.partition(".")
    name, dot, deeper = rest.partition(".")
    if section != "generation" or not rest:
        return ConfigError(f"sampling_params: {error.message}", path="sampling_params")
    theirs = f"sampling_params.{_THEIR_WORDS.get(name, name)}{dot}{deeper}"
    return ConfigError(error.message.replace(path, theirs), path=theirs)


def _warn(names: list[str], warned: set[str] | None) -> None:
    new = [name for name in names if warned is None or name not in warned]
    if new:
        _log.warning("sampling_params: %s cannot be honoured here; ignored", ", ".join(new))
        if warned is not None:
            warned.update(new)


def _neutral(value: Any) -> bool:
    """Whether a field that is not known here says nothing."""
    return value is None or value is False or (isinstance(value, (list, tuple, dict, set)) and not value)


def _read_logprobs(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    number = fields.get("logprobs")
    if number is None or number is False:
        return
    wanted["logprobs"] = True
    if number is not True and number != 0:
        wanted["top_logprobs"] = number


def _read_end(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    """To ignore the end of an answer is to want as many tokens as it may have."""
    if fields.get("ignore_eos"):
        if wanted.get("max_new_tokens") is None:
            raise ConfigError("sampling_params.ignore_eos needs max_tokens", path="sampling_params.ignore_eos")
        wanted["min_new_tokens"] = wanted["max_new_tokens"]


def _read_shape(fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    shape = fields.get("structured_outputs") or fields.get("guided_decoding")
    if shape is None:
        return
    if isinstance(shape, Mapping):
        said = dict(shape)
    else:
        said = {name: getattr(shape, name, None) for name in ("json", "regex", "choice", "grammar", "json_object")}
    if said.get("json_object"):
        said["json"] = {"type": "object"}
    known = ("json", "regex", "choice", "grammar")
    other = sorted(name for name in said if name not in (*known, "json_object") and not _neutral(said[name]))
    if other:
        _log.warning("sampling_params.structured_outputs: %s cannot be honoured here; ignored", ", ".join(other))
    chosen = {name: said[name] for name in known if said.get(name) is not None}
    if chosen:
        wanted["guided_decoding"] = GuidedDecodingParams(**chosen)


_READERS: tuple[Callable[[dict[str, Any], dict[str, Any]], None], ...] = (_read_logprobs, _read_end, _read_shape)
