"""Which models can answer at all: those that write one token after the other."""

from __future__ import annotations

from typing import Any

from ...errors import EngineError


def check(source: str, config: Any) -> None:
    """Raise `EngineError` for a model that only reads: it fills gaps, classifies, or embeds.

    Transformers would load many of them as if they wrote, and what they say then is no language.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as FILLING

    if config.is_encoder_decoder or config.model_type not in FILLING:
        return
    if getattr(config, "is_decoder", False) or getattr(config, "causal", False):  # (the latter is XLM's word)
        return
    raise EngineError(
        f"{source} is an encoder ({config.model_type}): it reads text and writes none; choose a model that was trained "
        "to write, such as one whose config.json names an architecture ...ForCausalLM or ...ForConditionalGeneration"
    )
