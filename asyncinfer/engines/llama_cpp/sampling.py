"""Binding b: the samplers of one answer, as llama.cpp chains them.

Rule: called by the decoder's thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from .forced import forced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..local.ask import Ask


def make_chain(lib: Any, vocab: Any, ask: Ask, prompt: Sequence[int], *, n_vocab: int, window: int) -> Any:
    """A chain of samplers for one answer, to be freed with ``llama_sampler_free``.

    Args:
        lib: ``llama_cpp``.
        vocab: the model's vocabulary.
        ask: whose answer.
        prompt: its tokens, for the penalties.
        n_vocab: size of the vocabulary.
        window: tokens that penalties look back on.

    Raises:
        ConfigError: for a grammar that is none.
    """
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    try:
        for stage in _stages(lib, vocab, ask, prompt, n_vocab, window):
            lib.llama_sampler_chain_add(chain, stage)
    except BaseException:
        lib.llama_sampler_free(chain)
        raise
    return chain


def _stages(lib: Any, vocab: Any, ask: Ask, prompt: Sequence[int], n_vocab: int, window: int) -> Iterator[Any]:
    if ask.logit_bias:
        biases = (lib.llama_logit_bias * len(ask.logit_bias))(*ask.logit_bias.items())
        yield lib.llama_sampler_init_logit_bias(n_vocab, len(biases), biases)
    if ask.repetition_penalty != 1.0 or ask.frequency_penalty or ask.presence_penalty:
        penalties = lib.llama_sampler_init_penalties(
            n_vocab, window, ask.repetition_penalty, ask.frequency_penalty, ask.presence_penalty
        )
        for token in prompt:  # as llama-server does
            lib.llama_sampler_accept(penalties, token)
        yield penalties
    grammar = forced(ask)
    if grammar is not None:
        compiled = lib.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
        if not compiled:
            raise ConfigError("the grammar is not valid GBNF", path="generation.guided_decoding")
        yield compiled
    if ask.temperature <= 0:
        yield lib.llama_sampler_init_greedy()
        return
    if ask.top_k > 0:
        yield lib.llama_sampler_init_top_k(ask.top_k)
    if ask.top_p < 1:
        yield lib.llama_sampler_init_top_p(ask.top_p, 1)
    if ask.min_p > 0:
        yield lib.llama_sampler_init_min_p(ask.min_p, 1)
    yield lib.llama_sampler_init_temp(ask.temperature)
    yield lib.llama_sampler_init_dist(lib.LLAMA_DEFAULT_SEED if ask.seed is None else ask.seed & 0xFFFFFFFF)


def logprob_entry(piece: Callable[[int], bytes], scores: Any, token: int, alternatives: int) -> dict[str, Any]:
    """One entry in the OpenAI shape, with the token's id: the logarithm of the model's own probability, before any
    sampling parameter."""
    import numpy as np

    top = scores.max()
    logs = scores - (top + np.log(np.exp(scores - top).sum()))

    def entry(one: int) -> dict[str, Any]:
        data = piece(one)
        text = data.decode("utf-8", "replace")
        return {"id": one, "token": text, "logprob": float(logs[one]), "bytes": list(data)}

    best = np.argsort(-logs, kind="stable")[:alternatives] if alternatives else ()
    return {**entry(token), "top_logprobs": [entry(int(one)) for one in best]}
