"""One worker's life in `LocalEngine`, step by step: a worker whose loading and closing wait until they are told."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import pytest

from asyncinfer import GenerationParams, InferenceConfig, ModelParams, TextDelta
from asyncinfer.engines.local.engine import LocalEngine
from asyncinfer.engines.worker import Feed, in_thread
from asyncinfer.errors import EngineClosedError, EngineError, UnsupportedParameterError
from asyncinfer.events import Finish, FinishReason, Start

pytestmark = pytest.mark.anyio


@dataclass
class Plain:
    model: str
    slots: int | None = None


class Gated:
    """Answers with its own number. ``told``: what was called, in order, of all workers of an engine."""

    sees = False

    def __init__(self, told, number, *, patient=True):
        self.told = told
        self.number = number
        self.patient = patient  # closing waits for the loading to end
        self.inside = threading.Event()
        self.may_load = threading.Event()
        self.may_close = threading.Event()
        self.may_close.set()
        self.breaks = False

    def load(self):
        self.told.append(f"load {self.number}")
        self.inside.set()
        assert self.may_load.wait(20)
        self.told.append(f"loaded {self.number}")
        if self.breaks:
            raise EngineError("no such model")

    def close(self):
        self.told.append(f"close {self.number}")
        if not self.may_load.is_set() and self.inside.is_set() and not self.patient:
            raise EngineError("it is still inside")
        assert self.may_close.wait(20)
        self.told.append(f"closed {self.number}")


class GatedEngine(LocalEngine):
    name = "gated"
    usual_slots = 7

    def __init__(self, *, patient=True, loads_at_once=False):
        super().__init__(ModelParams(model_name="here"))
        self.told = []
        self.workers = []
        self.patient = patient
        self.loads_at_once = loads_at_once

    def read_settings(self):
        return Plain(self.model_params.model_name)

    def make(self):
        made = Gated(self.told, len(self.workers) + 1, patient=self.patient)
        if self.loads_at_once:
            made.may_load.set()
        self.workers.append(made)
        return made

    def learn(self, worker):
        self.slots = 2

    def begin(self, worker, ask, request):
        feed = Feed()
        feed.end([Start(), TextDelta(str(worker.number)), Finish(FinishReason.STOP)])
        return feed


async def until(event):
    with anyio.fail_after(5):
        await in_thread(event.wait, abandon=True)


async def said(engine, word):
    with anyio.fail_after(5):
        while word not in engine.told:
            await anyio.sleep(0.001)


async def test_from_the_first_use_to_the_end_and_once_more():
    engine = GatedEngine(loads_at_once=True)
    assert engine.slots == 7
    assert not engine.workers
    assert (await engine.generate("?")).text == "1"
    assert engine.slots == 2
    assert await engine.list_models() == ["here"]
    await engine.aclose()
    await engine.aclose()
    assert engine.told == ["load 1", "loaded 1", "close 1", "closed 1"]
    with pytest.raises(EngineClosedError):
        await engine.open(engine.plan(None, None, None, None, None).request("?", "", 1.0))
    assert (await engine.generate("?")).text == "2"
    await engine.aclose()


@pytest.mark.parametrize("patient", [True, False])
async def test_a_cancelled_load_ends_by_itself_is_closed_and_the_next_one_waits_for_it(patient):
    """Also where closing a worker that still loads gives up waiting for it."""
    engine = GatedEngine(patient=patient)
    async with anyio.create_task_group() as group:
        group.start_soon(engine.ready)
        while not engine.workers:
            await anyio.lowlevel.checkpoint()
        await until(engine.workers[0].inside)
        group.cancel_scope.cancel()
    await said(engine, "close 1")  # it is told while it still loads
    with anyio.move_on_after(0.05) as scope:
        await engine.ready()
    assert scope.cancelled_caught and len(engine.workers) == 1  # who waits may leave too
    engine.loads_at_once = True
    async with anyio.create_task_group() as group:
        group.start_soon(engine.ready)
        await anyio.sleep(0.05)
        assert len(engine.workers) == 1
        engine.workers[0].may_load.set()
    assert engine.told.index("load 2") > max(
        at for at, word in enumerate(engine.told) if word in {"loaded 1", "closed 1"}
    )
    assert (await engine.generate("?")).text == "2"
    await engine.aclose()


async def test_a_load_that_was_cancelled_before_it_began_keeps_nobody_waiting():
    engine = GatedEngine(loads_at_once=True)
    for _ in range(20):
        with anyio.move_on_after(0):
            await engine.ready()
    with anyio.fail_after(5):
        assert int((await engine.generate("?")).text) == len(engine.workers)
        await engine.aclose()
        for number in range(1, len(engine.workers) + 1):
            await said(engine, f"closed {number}")


async def test_a_load_that_fails_is_closed_and_the_next_one_begins_anew():
    engine = GatedEngine()
    async with anyio.create_task_group() as group:

        async def fails():
            with pytest.raises(EngineError, match="no such model"):
                await engine.ready()

        group.start_soon(fails)
        while not engine.workers:
            await anyio.lowlevel.checkpoint()
        engine.workers[0].breaks = True
        engine.workers[0].may_load.set()
    engine.loads_at_once = True
    assert (await engine.generate("?")).text == "2"
    assert engine.told.index("closed 1") < engine.told.index("load 2")
    await engine.aclose()


async def test_opening_waits_for_the_closing_that_goes_on():
    engine = GatedEngine(loads_at_once=True)
    await engine.ready()
    first = engine.workers[0]
    first.may_close.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(engine.aclose)
        await said(engine, "close 1")
        group.start_soon(engine.ready)
        await anyio.sleep(0.05)
        assert len(engine.workers) == 1
        first.may_close.set()
    assert engine.told == ["load 1", "loaded 1", "close 1", "closed 1", "load 2", "loaded 2"]
    await engine.aclose()


async def test_what_was_closed_is_not_kept_by_the_engine():
    engine = GatedEngine(loads_at_once=True)
    await engine.ready()
    gone = weakref.ref(engine.workers.pop())
    await engine.aclose()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_dropped_engine_closes_its_worker(breaks, caplog):
    engine = GatedEngine(loads_at_once=True)
    await engine.ready()
    told, worker = engine.told, engine.workers[0]
    if breaks:
        worker.patient = False
        worker.may_load.clear()
    del engine
    gc.collect()
    with anyio.fail_after(5):
        while ("it is still inside" not in caplog.text) if breaks else ("closed 1" not in told):
            await anyio.sleep(0.001)


async def test_what_was_settled_by_loading_is_not_silently_ignored_in_a_call(caplog):
    def other(strict, **fields):
        sampling = GenerationParams(strict_params=strict)
        return InferenceConfig(model=ModelParams(**fields), generation=sampling)

    async with GatedEngine(loads_at_once=True) as engine:
        with pytest.raises(UnsupportedParameterError, match="make another engine") as caught:
            await engine.generate("hi", inference_config=other(True, model_name="elsewhere"))
        assert caught.value.path == "model.model_name"
        for _ in range(2):
            await engine.generate("hi", inference_config=other(False, model_max_length=7))
        assert caplog.text.count("model.model_max_length") == 1
        same = other(True, model_name="here", chat_template_kwargs={"a": 1}, enable_liger_kernel=True)
        assert (await engine.generate("hi", inference_config=same)).text == "1"
