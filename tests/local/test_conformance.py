"""The conformance suite on llama.cpp: each binding, on both event loops."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from asyncinfer.models import embedded_model
from asyncinfer.testing import EMBEDDED, check_engine

pytestmark = pytest.mark.anyio


def counting():
    """The model's own tokenizer, where the library that reads it is installed."""
    if not find_spec("tokenizers"):
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(embedded_model("hf") / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


async def test_the_engine_keeps_every_promise(make):
    report = await check_engine(make, expect=EMBEDDED, long_tokens=400, count_tokens=counting())
    print(report)
    reasons = [result.note for result in report.of("not applicable")]
    assert set(reasons) <= {"the engine does not claim n", "the engine claims every parameter"}


async def test_one_sequence_serves_one_after_the_other(make):
    """With one slot, an answer that was left holds up the next one unless it is really gone."""
    report = await check_engine(lambda: make(n_parallel=1), expect=EMBEDDED, long_tokens=400, streams=8)
    notes = {result.check: result.note for result in report.of("passed")}
    for how in ("break", "exception", "cancellation"):
        assert notes[f"leaving_by_{how}_frees_the_sequence"].startswith("next answer after")
