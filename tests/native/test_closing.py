"""How a runner is closed, whatever hangs: no library is needed for this."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from asyncinfer.engines.native import runner as runners
from asyncinfer.engines.native.row import Manner
from asyncinfer.engines.native.runner import Runner
from asyncinfer.engines.worker import Crew, Feed, in_thread
from asyncinfer.errors import EngineClosedError, EngineError

pytestmark = pytest.mark.anyio


class Way:
    """In place of a way through the model."""

    def __init__(self, error=None):
        self.error = error
        self.closed = 0

    def close(self):
        self.closed += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def runner(monkeypatch):
    """As it is when it is loaded; its desk is busy with a request until ``gate`` is set."""
    monkeypatch.setattr(runners, "_give_back", lambda: None)
    runner = Runner(SimpleNamespace(slots=1))
    runner.gate, runner.inside = threading.Event(), threading.Event()

    def work(job):
        runner.inside.set()
        runner.gate.wait()

    runner._desk = Crew("test-desk", 1, work, runner._died)
    runner._loaded = runner._prompts = runner._guides = None
    runner._whole, runner._paged = Way(), Way()
    yield runner
    runner.gate.set()


async def begin(runner):
    feed = Feed()
    runner.submit(SimpleNamespace(n=1, logprobs=None), Manner(), feed)
    return feed


async def test_who_closes_second_waits_for_the_first(runner):
    await begin(runner)
    await in_thread(runner.inside.wait)
    first, second = (threading.Thread(target=runner.close) for _ in range(2))
    first.start()
    second.start()
    second.join(0.1)
    assert second.is_alive()
    runner.gate.set()
    await in_thread(lambda: (first.join(), second.join()))
    assert not hasattr(runner, "_loaded")


async def test_a_request_behind_the_closing_is_a_typed_error(runner):
    runner.gate.set()
    await in_thread(runner.close)
    assert not runner.sees
    with pytest.raises(EngineClosedError):
        await begin(runner)


async def test_a_thread_that_never_comes_back_keeps_nobody_else(runner, monkeypatch):
    whole, paged = runner._whole, runner._paged
    whole.error = EngineError("the other is stuck too")
    await begin(runner)
    await in_thread(runner.inside.wait)
    waits = await begin(runner)
    join = Crew.join
    monkeypatch.setattr(Crew, "join", lambda crew: join(crew, 0.05))
    with pytest.raises(EngineError, match="stuck too") as caught:
        await in_thread(runner.close)
    assert "test-desk-0 did not end" in str(caught.value.__context__)
    with pytest.raises(EngineClosedError):
        await waits.pull()
    assert whole.closed == paged.closed == 1
    assert not hasattr(runner, "_loaded")
