"""What the feature table says of llama.cpp and nothing else shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncinfer import GenerationParams
from tests.embedded import test_a_short_answer_joins_a_long_one_and_is_done_first  # noqa: F401 -- it runs here

pytestmark = pytest.mark.anyio

FOUR_BITS = Path(__file__).with_name("data") / "tiny-q4_0.gguf"
"""The embedded model, its matrices rounded to four bits by llama.cpp's own quantizer (embeddings to eight)."""


async def test_a_model_of_four_bits(make):
    assert FOUR_BITS.stat().st_size < 700_000  # the embedded model has 1.9 MB
    engine = make(params={"model_name": str(FOUR_BITS)}, n_threads=1)
    async with engine:
        assert (await engine.generate("What is the capital of France?")).text == "The capital of France is Paris."
        assert (await engine.generate("Count from 1 to 10.")).text == "1 2 3 4 5 6 7 8 9 10"


async def test_what_prompts_have_in_common_is_read_once(make):
    engine = make(n_parallel=1, n_threads=1)
    long = "Count from 1 to 10. " * 12
    async with engine:
        first = await engine.generate(long, generation=GenerationParams(max_new_tokens=1))
        again = await engine.generate(long, generation=GenerationParams(max_new_tokens=1))
        other = await engine.generate(long + "Hello", generation=GenerationParams(max_new_tokens=1))
    assert first.usage.cached_tokens == 0
    assert again.usage.cached_tokens >= again.usage.input_tokens - 1
    assert other.usage.cached_tokens > other.usage.input_tokens - 20
