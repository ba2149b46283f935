"""Which model, and how it is loaded."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from .base import Params, Whole

DTYPES = frozenset(
    {"auto", "float32", "float", "f32", "fp32", "float16", "half", "f16", "fp16", "bfloat16", "bf16"}
    | {"float64", "double", "f64", "fp64"}
)
"""The spellings of ``torch_dtype_str``."""


class ModelParams(Params):
    """Which model, and how it is loaded. What concerns only training is accepted and does nothing.

    Attributes:
        model_name: model id, path of a GGUF file or model folder, or the provider's name of the model. None stands for
            the small model that comes with the package.
        adapter_model: LoRA adapter, a path or model id.
        tokenizer_name: tokenizer, if it is not the model's own.
        tokenizer_pad_token: padding token, in place of the tokenizer's.
        tokenizer_kwargs: further arguments of the tokenizer.
        processor_kwargs: further arguments of a multimodal model's processor.
        model_max_length: longest sequence, in tokens.
        load_pretrained_weights: False builds the model with random weights.
        trust_remote_code: run code that comes with the model. Only for models you trust.
        torch_dtype_str: precision: ``auto`` (the model's own), ``float32``, ``float16``, ``bfloat16``, ``float64``.
        compile: compile the model before use.
        chat_template: template that turns a conversation into a prompt, in place of the model's.
        chat_template_kwargs: variables for the template (``enable_thinking`` ...).
        attn_implementation: ``sdpa``, ``flash_attention_2``, ``eager``, or None for the library's choice.
        device_map: where the weights go: ``auto``, ``cpu``, ``cuda:0``, ``cuda:0,cuda:1``, or a mapping.
        model_kwargs: further arguments of the engine's model constructor. ``revision`` is moved to `model_revision`.
        model_revision: branch, tag or commit of the model's repository.
        tool_call_parser: vLLM's name of the parser for the model's tool calls.
        enable_liger_kernel, shard_for_eval, freeze_layers: training only.
    """

    section: ClassVar[str] = "model"
    training_only: ClassVar[frozenset[str]] = frozenset({"enable_liger_kernel", "shard_for_eval", "freeze_layers"})

    model_name: str | None = None
    adapter_model: str | None = None
    tokenizer_name: str | None = None
    tokenizer_pad_token: str | None = None
    tokenizer_kwargs: dict[str, Any] = Field(default_factory=dict)
    processor_kwargs: dict[str, Any] = Field(default_factory=dict)
    model_max_length: Whole | None = Field(default=None, ge=1)
    load_pretrained_weights: bool = True
    trust_remote_code: bool = False
    # The guide's example shows float32, which doubles the memory of every current model; nothing calls it the default.
    torch_dtype_str: str = "auto"
    compile: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    attn_implementation: str | None = None
    device_map: str | dict[str, Any] | None = "auto"
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    model_revision: str | None = None
    tool_call_parser: str | None = None
    enable_liger_kernel: bool = False
    shard_for_eval: bool = False
    freeze_layers: list[str] = Field(default_factory=list)

    @field_validator("torch_dtype_str")
    @classmethod
    def _known_dtype(cls, value: str) -> str:
        if value.removeprefix("torch.").lower() not in DTYPES:
            raise ValueError(f"expected one of {', '.join(sorted(DTYPES))}, got {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _move_revision(cls, data: Any) -> Any:
        kwargs = data.get("model_kwargs") if isinstance(data, dict) else None
        if not isinstance(kwargs, dict) or "revision" not in kwargs:
            return data
        revision, rest = kwargs["revision"], {key: value for key, value in kwargs.items() if key != "revision"}
        if data.get("model_revision") not in {None, revision}:
            raise ValueError(f"model_revision is {data['model_revision']!r}, but model_kwargs.revision is {revision!r}")
        import logging

        logging.getLogger("asyncinfer").warning("model.model_kwargs.revision: read as model.model_revision")
        return {**data, "model_kwargs": rest, "model_revision": revision}

    def check(self) -> None:
        """Arguments of the processor that have a field of their own belong there."""
        doubled = sorted(self.processor_kwargs.keys() & (type(self).model_fields.keys() - {"chat_template"}))
        if doubled:
            raise ValueError(f"processor_kwargs holds {', '.join(doubled)}, which have a field of their own")
