"""The public conformance suite, asked of the vLLM engine on both event loops."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from asyncinfer.testing import CHECKS, EMBEDDED

pytestmark = [pytest.mark.vllm, pytest.mark.anyio, pytest.mark.timeout(900)]

RELOADS = {"closing_ends_what_runs_and_opens_again"}
"""Half a minute: `test_programs` looks at the same."""


@pytest.fixture(scope="module")
def expect(engine):
    from tokenizers import Tokenizer

    from asyncinfer.models import embedded_model

    tokenizer = Tokenizer.from_file(str(embedded_model("hf") / "tokenizer.json"))
    return replace(
        EMBEDDED,
        long_tokens=300,
        count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
        running=lambda: engine._life.worker._llm.get_num_unfinished_requests(),
        patience=120.0,
        max_stall_ms=None,
    )


@pytest.mark.parametrize("check", [check for check in CHECKS if check.name not in RELOADS], ids=str)
async def test_the_engine_keeps_its_promise(check, engine, expect):
    with anyio.fail_after(240):
        await check(engine, expect=expect)
