"""Replicas: who is asked, what a failed one costs, and which devices each gets."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from asyncinfer import (
    AuthenticationError,
    BadRequestError,
    ConfigError,
    Engine,
    EngineError,
    GenerationParams,
    LlamaCppInferenceEngine,
    ModelParams,
    Prompt,
    RemoteParams,
    ReplicatedEngine,
    StreamInterrupted,
)
from asyncinfer.engines import placing
from asyncinfer.engines.placing import LAYOUTS, _Sizes, gpus
from asyncinfer.params import InferenceEngineType as Kind

from .scripted import PAUSE, ScriptedEngine, answer, echo

pytestmark = pytest.mark.anyio

HELD = [*answer("held")[:2], PAUSE]


async def held(engine: Engine, number: int) -> list[Any]:
    """So many answers, each begun and then left waiting."""
    streams = []
    for _ in range(number):
        stream = engine.stream("hi")
        await stream.__aenter__()
        await anext(stream.events().__aiter__())
        streams.append(stream)
    return streams


async def test_a_place_may_come_back_while_another_is_taken() -> None:
    """As when garbage is collected just then: the answer of a loop that was closed halfway ends on this thread."""
    engine = ReplicatedEngine([ScriptedEngine(answer("a")) for _ in range(2)])
    replicas = engine._replicas
    _, lease = engine._take(replicas, 1)
    done: list[Any] = []

    def among() -> Any:
        lease.end()
        yield from replicas

    taking = threading.Thread(target=lambda: done.append(engine._take(among(), 1)), daemon=True)
    taking.start()
    await anyio.to_thread.run_sync(taking.join, 10)
    assert done and sum(engine.running) == 1


async def test_calls_go_to_whoever_has_the_least_to_do() -> None:
    replicas = [ScriptedEngine(HELD, slots=4) for _ in range(3)]
    engine = ReplicatedEngine(replicas)
    streams = await held(engine, 7)
    assert sorted(engine.running) == [2, 2, 3]
    busy = engine.running
    for stream in streams:
        if busy[0]:
            await stream.aclose()
            break
    await held(engine, 1)
    assert max(engine.running) - min(engine.running) <= 1
    await engine.aclose()
    with anyio.fail_after(10):
        while sum(one.open_now for one in replicas):
            await anyio.sleep(0.01)


async def test_slots_weigh() -> None:
    big, small = ScriptedEngine(HELD, slots=8), ScriptedEngine(HELD, slots=2)
    engine = ReplicatedEngine([big, small])
    assert engine.slots == 10
    await held(engine, 10)
    assert engine.running == [8, 2]
    await engine.aclose()


async def test_among_equals_the_fewest_tokens() -> None:
    first, second = ScriptedEngine(HELD), ScriptedEngine(HELD)
    engine = ReplicatedEngine([first, second])
    long, short = GenerationParams(max_new_tokens=1000), GenerationParams(max_new_tokens=1)
    streams = [engine.stream("hi", generation=params) for params in (long, short, short, short)]
    for stream in streams[:2]:
        await stream.__aenter__()
        await anext(stream.events().__aiter__())
    for stream in streams[2:]:
        await stream.__aenter__()
        await anext(stream.events().__aiter__())
    budgets = sorted(sum(r.generation.max_new_tokens or 0 for r in one.requests) for one in (first, second))
    assert budgets == [2, 1001]
    await engine.aclose()


async def test_a_place_comes_back_however_an_answer_ends() -> None:
    replica = ScriptedEngine(echo)
    engine = ReplicatedEngine([replica])
    assert (await engine.generate("a b c")).text == "abc"
    async for _ in engine.stream("a b c"):
        break
    await anyio.sleep(0.01)
    assert engine.running == [0]
    broken = ReplicatedEngine([ScriptedEngine([*answer("a")[:2], EngineError("gone")])])
    with pytest.raises(StreamInterrupted, match="gone"):
        await broken.generate("hi")
    assert broken.running == [0]
    waiting = ReplicatedEngine([ScriptedEngine([PAUSE])])
    with anyio.move_on_after(0.02):
        await waiting.generate("hi")
    assert waiting.running == [0]


async def test_many_rows_keep_their_order_and_use_everybody() -> None:
    replicas = [ScriptedEngine(lambda request: [0.001, *echo(request)], slots=3) for _ in range(4)]
    engine = ReplicatedEngine(replicas)
    results = await engine.generate_many(str(number) for number in range(200))
    assert [result.text for result in results] == [str(number) for number in range(200)]
    assert all(30 < len(one.requests) < 70 for one in replicas)
    assert all(one.peak <= 3 for one in replicas)


async def test_a_lazy_source_is_not_read_ahead_without_end() -> None:
    taken = 0

    def rows():
        nonlocal taken
        while True:
            taken += 1
            yield "row"

    engine = ReplicatedEngine([ScriptedEngine(echo, slots=1), ScriptedEngine(echo, slots=1)])
    async with engine.generate_many(rows()) as results:
        async for _ in results:
            break
    assert taken < 1000


async def test_another_replica_answers_and_the_failed_one_is_asked_last(caplog: pytest.LogCaptureFixture) -> None:
    dead = ScriptedEngine(EngineError("dead"), remote_params=RemoteParams(max_retries=0))
    alive = ScriptedEngine(echo)
    engine = ReplicatedEngine([dead, alive])
    results = await engine.generate_many(str(number) for number in range(50))
    assert all(results)
    assert len(dead.requests) <= 3  # the first ones; an empty replica must not draw every call
    assert "another one is asked" in caplog.text


async def test_when_all_fail_the_error_is_theirs() -> None:
    dead = [ScriptedEngine(AuthenticationError("revoked", status=401)) for _ in range(2)]
    with pytest.raises(AuthenticationError):
        await ReplicatedEngine(dead).generate("hi")
    bad = [ScriptedEngine(BadRequestError("no", status=400)) for _ in range(2)]
    with pytest.raises(BadRequestError):
        await ReplicatedEngine(bad).generate("hi")
    assert sum(len(one.requests) for one in bad) == 1


async def test_all_replicas_are_loaded_or_none() -> None:
    class Loaded(ScriptedEngine):
        loaded = False

        async def start(self) -> None:
            await anyio.lowlevel.checkpoint()
            self.loaded = True

        async def stop(self) -> None:
            self.loaded = False

    class Broken(ScriptedEngine):
        async def start(self) -> None:
            await anyio.sleep(0.01)
            raise EngineError("no memory")

    good = Loaded(echo)
    with pytest.raises(EngineError, match="no memory"):
        await ReplicatedEngine([good, Broken(echo)]).generate("hi")
    assert not good.loaded
    pair = [Loaded(echo), Loaded(echo)]
    async with ReplicatedEngine(pair):
        assert all(one.loaded for one in pair)
    assert not any(one.loaded for one in pair)


async def test_prompts_are_passed_on_only_where_all_take_them() -> None:
    with pytest.raises(ConfigError, match="Prompt"):
        await ReplicatedEngine([ScriptedEngine(echo)]).generate(Prompt("x"))


def test_no_engines() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        ReplicatedEngine([])


@pytest.mark.parametrize(
    ("given", "path"), [(None, "engines"), (ScriptedEngine(echo), "engines"), ("ab", "engines[0]"), ([1], "engines[0]")]
)
def test_what_are_no_engines(given: Any, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ReplicatedEngine(given)
    assert caught.value.path == path


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "count"), [("0,1,2", 3), ("", 0), ("-1", 0), ("3", 1), ("0,-1,2", 1), ("GPU-aa, GPU-bb", 2)]
)
def test_visible_devices_are_counted(monkeypatch: pytest.MonkeyPatch, listed: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert gpus() == count


def test_without_a_list_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in placing._VISIBLE:
        monkeypatch.delenv(name, raising=False)
    for name in ("nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(placing, "Path", lambda folder: tmp_path if folder == "/dev" else tmp_path / "none")
    assert gpus() == 2


def layout(kind: Kind, devices: int, monkeypatch: pytest.MonkeyPatch, *sizes: int, **params: Any) -> list[ModelParams]:
    monkeypatch.setattr(placing, "gpus", lambda: devices)
    monkeypatch.setattr(placing, "_offloads", lambda: devices > 0)
    return LAYOUTS[kind](ModelParams(**params), _Sizes(*sizes))


def test_vllm_spreads_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    (params,) = layout(Kind.VLLM, 8, monkeypatch, 4, 1, -1, model_kwargs={"gpu_memory_utilization": 0.9})
    assert params.model_kwargs == {
        "gpu_memory_utilization": 0.9,
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 1,
        "data_parallel_size": -1,
    }


def test_transformers_by_device_map(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [one.device_map for one in layout(Kind.NATIVE, 4, monkeypatch, 2, 1, -1)]
    assert maps == ["cuda:0,cuda:1", "cuda:2,cuda:3"]
    assert [one.device_map for one in layout(Kind.NATIVE, 4, monkeypatch, 1, 1, 3)] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [one.device_map for one in layout(Kind.NATIVE, 0, monkeypatch, 1, 1, 2)] == ["cpu", "cpu"]
    assert [one.device_map for one in layout(Kind.NATIVE, 4, monkeypatch, 1, 1, -1, device_map="cuda:3")] == ["cuda:3"]
    assert len(layout(Kind.NATIVE, 0, monkeypatch, 1, 1, -1)) == 1
    assert all("device_map" in one.model_fields_set for one in layout(Kind.NATIVE, 2, monkeypatch, 1, 1, 2))


def test_llama_cpp_by_split(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = layout(Kind.LLAMACPP, 4, monkeypatch, 2, 1, -1)
    assert (one.model_kwargs["tensor_split"], one.model_kwargs["main_gpu"]) == ([1.0, 1.0, 0.0, 0.0], 0)
    assert (two.model_kwargs["tensor_split"], two.model_kwargs["main_gpu"]) == ([0.0, 0.0, 1.0, 1.0], 2)
    monkeypatch.setattr(placing, "_cpus", lambda: 8)
    assert [p.model_kwargs for p in layout(Kind.LLAMACPP, 0, monkeypatch, 1, 1, 4)] == [{"n_threads": 2}] * 4
    given = layout(Kind.LLAMACPP, 0, monkeypatch, 1, 1, 2, model_kwargs={"n_threads": 5})
    assert [p.model_kwargs for p in given] == [{"n_threads": 5}] * 2
    assert [p.model_kwargs for p in layout(Kind.LLAMACPP, 0, monkeypatch, 1, 1, -1)] == [{}]
    cpu = layout(Kind.LLAMACPP, 4, monkeypatch, 1, 1, -1, model_kwargs={"n_gpu_layers": 0})
    assert [p.model_kwargs for p in cpu] == [{"n_gpu_layers": 0}]


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, -2), (True, 1, 1), (2.0, 1, 1), ("2", 1, 1)])
def test_sizes_are_whole_numbers(sizes: Any) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        _Sizes(*sizes)


@pytest.mark.parametrize("kind", [Kind.NATIVE, Kind.LLAMACPP])
@pytest.mark.parametrize(("devices", "sizes"), [(2, (4, 1, -1)), (2, (1, 1, 3)), (0, (2, 1, -1)), (0, (1, 2, 1))])
def test_devices_that_are_not_there(kind: Kind, devices: int, sizes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        layout(kind, devices, monkeypatch, *sizes)
    assert caught.value.path in {"tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"}


def test_an_engine_elsewhere_has_no_devices_here() -> None:
    with pytest.raises(ConfigError, match="its own server"):
        ReplicatedEngine.over_devices("openai", ModelParams(model_name="m"), tensor_parallel_size=2)


async def test_two_real_replicas_on_one_machine() -> None:
    engine = ReplicatedEngine.over_devices(
        "llamacpp", ModelParams(model_kwargs={"n_parallel": 2, "n_threads": 1}), data_parallel_size=2
    )
    assert isinstance(engine, ReplicatedEngine)
    assert engine.slots == 4
    async with engine:
        results = await engine.generate_many(["Hello"] * 12)
        assert {result.text for result in results} == {"Hello! How can I help you today?"}
        prompt = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        assert (await engine.generate(Prompt(prompt))).text == "Hello! How can I help you today?"
    single = ReplicatedEngine.over_devices("llamacpp")
    assert isinstance(single, (LlamaCppInferenceEngine, ReplicatedEngine))


def test_devices_of_no_engine():
    with pytest.raises(ConfigError, match="there is no engine None") as caught:
        ReplicatedEngine.over_devices(None)
    assert caught.value.path == "engine"
