"""Whole programs: vLLM's process is killed, the engine is reopened, dropped or never closed. All of them end soon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]

HEAD = """
import gc, multiprocessing, os, signal, sys, threading, time
import anyio
from asyncinfer import EngineError, GenerationParams, ModelParams, StreamInterrupted, VLLMInferenceEngine

LONG = GenerationParams(max_new_tokens=1900, logit_bias={2: -100})

def make():
    return VLLMInferenceEngine(ModelParams(model_kwargs={"kv_cache_memory_bytes": 2**29}))

def children():
    return [child for child in multiprocessing.active_children() if "Core" in child.name]

def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("asyncinfer-vllm")]
"""

KILLED = """
async def main():
    engine = make()
    errors = []

    async def read():
        try:
            async for token in engine.stream("Count from 1 to 20.", generation=LONG):
                pass
        except (EngineError, StreamInterrupted) as error:
            errors.append(error)

    await engine.ready()
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(read)
        await anyio.sleep(0.3)
        for child in children():
            os.kill(child.pid, signal.SIGKILL)
    assert len(errors) == 4, errors
    assert all("died" in str(error) for error in errors), errors
    try:
        await engine.generate("Hello")
    except EngineError as error:
        assert "died" in str(error), error
    else:
        raise AssertionError("a dead engine answered")
    await engine.aclose()
    assert not children() and not threads(), (children(), threads())
    print("dead", flush=True)
    print((await engine.generate("What is 3 + 4?")).text, flush=True)
    # and never closed: a stream is still running in another thread when the program ends
    threading.Thread(target=anyio.run, args=(read,), daemon=True).start()
    await anyio.sleep(0.5)

if __name__ == "__main__":
    anyio.run(main, backend="trio")
    print("bye", flush=True)
"""

DROPPED = """
async def main():
    engine = make()
    with anyio.move_on_after(0.1):
        await engine.ready()
    print((await engine.generate("What is 3 + 4?")).text, flush=True)
    assert children()
    del engine
    gc.collect()
    with anyio.fail_after(60):
        while children() or threads():
            await anyio.sleep(0.1)

if __name__ == "__main__":
    anyio.run(main)
    print("bye", flush=True)
"""


def run(tmp_path, source):
    script = tmp_path / "script.py"
    script.write_text(HEAD + source)
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_killed_process_fails_its_streams_and_the_engine_opens_again_and_need_not_be_closed(tmp_path):
    done = run(tmp_path, KILLED)
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout == "dead\n3 + 4 = 7.\nbye\n"
    assert "Fatal Python error" not in done.stderr
    assert done.stderr.count("output_handler failed") <= 1, done.stderr[-5000:]  # when it was killed, never at the end


def test_loading_may_be_cancelled_and_a_dropped_engine_stops_its_processes(tmp_path):
    done = run(tmp_path, DROPPED)
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout == "3 + 4 = 7.\nbye\n"
