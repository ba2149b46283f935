"""What the feature table says of Transformers and nothing else shows."""

from __future__ import annotations

import pytest

from asyncinfer import GenerationParams
from tests.embedded import test_a_short_answer_joins_a_long_one_and_is_done_first  # noqa: F401 -- it runs here

pytestmark = [pytest.mark.native, pytest.mark.anyio]


async def test_what_prompts_have_in_common_is_read_once(make, monkeypatch):
    """The library tells nobody how much it shares, so it is listened to."""
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    matched, search = [], PagedAttentionCache.search_prefix_match

    def listen(cache, *words):
        matched.append(search(cache, *words))
        return matched[-1]

    monkeypatch.setattr(PagedAttentionCache, "search_prefix_match", listen)
    one = GenerationParams(max_new_tokens=3)
    text = "Count from 1 to 10. " * 16
    async with make() as engine:
        first = await engine.generate(text, generation=one)
        await engine.generate(text, generation=one)
        await engine.generate(text + "Hello", generation=one)
    assert matched[0] == 0
    assert all(shared > first.usage.input_tokens - 2 * 32 for shared in matched[-2:])  # whole pages of 32 tokens
