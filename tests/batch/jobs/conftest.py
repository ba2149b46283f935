"""Every test of this room runs on asyncio and on trio, without pauses."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("asyncinfer.engines.jobs.results._PAUSE", 0.0)
    monkeypatch.setattr("asyncinfer.engines.jobs.door._FIRST_PAUSE", 0.0)
