"""The public conformance suite, asked of the Transformers engine on both event loops."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asyncinfer import GenerationParams, ModelParams, NativeTextInferenceEngine
from asyncinfer.testing import CHECKS, EMBEDDED, check_engine

pytestmark = [pytest.mark.native, pytest.mark.anyio, pytest.mark.timeout(400)]


async def test_the_engine_keeps_its_promises(capsys):
    """Stalls of the loop are reported, and bounded only loosely: torch holds the interpreter while it is in Python."""
    report = await check_engine(
        NativeTextInferenceEngine, expect=replace(EMBEDDED, long_tokens=300, patience=180.0, max_stall_ms=None)
    )
    with capsys.disabled():
        print(f"\n{report}")
    assert report.stalls is not None
    assert report.stalls.p99 < 1000


async def test_so_it_does_without_continuous_batching():
    """All but what only pages can do: 64 streams at once take turns, batch after batch."""
    slow = {"the_event_loop_is_not_held_up", "closing_ends_what_runs_and_opens_again"}
    await check_engine(
        lambda: NativeTextInferenceEngine(
            ModelParams(model_kwargs={"continuous_batching": False}),
            generation_params=GenerationParams(batch_size=16),
        ),
        expect=replace(EMBEDDED, long_tokens=200, patience=180.0, max_stall_ms=None),
        checks=[check for check in CHECKS if check.name not in slow],
    )
