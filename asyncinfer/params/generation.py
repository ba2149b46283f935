"""How a model generates."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from .base import Number, Params, Whole
from .guided import GuidedDecodingParams  # noqa: TC001 - pydantic reads it

_TOOL_CHOICES = ("none", "auto", "required")


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _tool_choice(value: Any) -> Any:
    if value is None or isinstance(value, dict) or value in _TOOL_CHOICES:
        return value
    raise ValueError(f"expected one of {', '.join(_TOOL_CHOICES)}, or a mapping that names a function, got {value!r}")


Bias = Annotated[float, Field(ge=-100.0, le=100.0)]


class GenerationParams(Params):
    """How a model generates. Only fields that were set explicitly reach a remote provider or override an engine's.

    Attributes:
        max_new_tokens: most tokens to generate. None is the rest of the context, or the provider's own maximum.
        batch_size: sequences decoded together where an engine has no continuous batching; None lets it choose.
        exclude_prompt_from_response: leave the prompt out of the answer.
        seed: seed of the sampler.
        temperature: 0.0 is greedy.
        top_p: nucleus sampling, 0 to 1.
        top_k: sample among the k likeliest tokens; 0 or -1 for all.
        min_p: least probability of a token relative to the likeliest, 0 to 1.
        frequency_penalty, presence_penalty: against repetition, by count and by presence.
        repetition_penalty: multiplicative; 1.0 is none.
        stop_strings: texts that end the answer. One text may stand for a list of one.
        stop_token_ids: tokens that end the answer.
        logit_bias: token id (or, where a provider takes it, token text) to a bias from -100 to 100.
        use_cache: use the model's key-value cache. Unset, engines use it.
        num_beams: beams of a beam search; 1 is none.
        use_sampling: sample rather than take the likeliest token (Native engine).
        guided_decoding: what shape the answer must have.
        skip_special_tokens: leave special tokens out of the text.
        n: number of answers.
        logprobs: report the log probabilities of the answer's tokens.
        top_logprobs: report those of so many likeliest tokens at each place.
        reasoning_effort: how much a reasoning model thinks, in the provider's words (``"low"``, ``"high"`` ...).
        min_new_tokens: least tokens to generate; ``min_tokens`` is accepted for it.
        tool_choice: ``"none"``, ``"auto"``, ``"required"``, or a mapping that names one function.
        parallel_tool_calls: whether one answer may call several tools.
        extra_body: fields that are put into the provider's request as they are.
        strict_params: an explicitly set parameter that the engine cannot honour is an error instead of a warning.
    """

    section: ClassVar[str] = "generation"

    max_new_tokens: Whole | None = Field(default=256, ge=1)
    batch_size: Whole | None = Field(default=1, ge=1)
    exclude_prompt_from_response: bool = True
    seed: Whole | None = None
    temperature: Number = Field(default=0.0, ge=0.0)
    top_p: Number | None = Field(default=1.0, ge=0.0, le=1.0)
    top_k: Whole | None = Field(default=None, ge=-1)
    min_p: Number = Field(default=0.0, ge=0.0, le=1.0)
    frequency_penalty: Number = 0.0
    presence_penalty: Number = 0.0
    repetition_penalty: Number = Field(default=1.0, gt=0.0)
    stop_strings: Annotated[list[str], BeforeValidator(_one_or_many)] | None = None
    stop_token_ids: list[Whole] | None = None
    logit_bias: dict[int | str, Bias] = Field(default_factory=dict)
    use_cache: bool = False
    num_beams: Whole = Field(default=1, ge=1)
    use_sampling: bool = False
    guided_decoding: GuidedDecodingParams | None = None
    skip_special_tokens: bool = True
    n: Whole = Field(default=1, ge=1)
    logprobs: bool = False
    top_logprobs: Whole | None = Field(default=None, ge=0)
    reasoning_effort: str | None = None
    min_new_tokens: Whole | None = Field(default=None, ge=0)
    tool_choice: Annotated[str | dict[str, Any] | None, BeforeValidator(_tool_choice)] = None
    parallel_tool_calls: bool = True
    extra_body: dict[str, Any] = Field(default_factory=dict)
    strict_params: bool = False

    @model_validator(mode="before")
    @classmethod
    def _accept_min_tokens(cls, data: Any) -> Any:
        if isinstance(data, dict) and "min_tokens" in data:
            if "min_new_tokens" in data:
                raise ValueError("min_tokens and min_new_tokens are the same thing: set one of them")
            return {"min_new_tokens" if key == "min_tokens" else key: value for key, value in data.items()}
        return data

    def check(self) -> None:
        """The least number of tokens is not above the most."""
        if (
            self.min_new_tokens is not None
            and "max_new_tokens" in self.model_fields_set
            and self.max_new_tokens is not None
            and self.min_new_tokens > self.max_new_tokens
        ):
            raise ValueError(f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}")
