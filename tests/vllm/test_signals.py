"""Signals to whole programs while vLLM loads or answers: no process of it stays, and Ctrl-C is no crash to anybody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
ENOUGH = 60.0
"""Seconds; vLLM itself waits for minutes, or for ever."""

PROGRAM = """
import sys
import anyio
from asyncinfer import GenerationParams, ModelParams, VLLMInferenceEngine

async def main():
    engine = VLLMInferenceEngine(ModelParams(model_kwargs={"kv_cache_memory_bytes": 2**29}))
    how = GenerationParams(max_new_tokens=1900, logit_bias={2: -100})
    while True:
        async for token in engine.stream("Count from 1 to 20.", generation=how):
            print(token, flush=True)

if __name__ == "__main__":
    try:
        anyio.run(main)
    except KeyboardInterrupt:
        sys.exit(130)
"""


def family(session):
    """Processes of a session, with those that they start: number -> name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                name = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            fields = stat.rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(entry.name)] = name
    return found


@pytest.fixture
def program(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        with child:
            yield child, errors
            for number in family(child.pid):
                os.kill(number, signal.SIGKILL)


def wait(condition, what):
    by = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < by, what
        time.sleep(0.05)


def loading(child):
    wait(lambda: any("EngineCore" in name for name in family(child.pid).values()), "vLLM starts no process")


def answering(child):
    assert child.stdout.readline()


def gone(child):
    by = time.monotonic() + ENOUGH
    while left := family(child.pid):
        assert time.monotonic() < by, left
        time.sleep(0.05)


@pytest.mark.parametrize("stage", [loading, answering])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_a_killed_program_stays(program, number, stage):
    child, _ = program
    stage(child)
    child.send_signal(number)
    child.stdout.close()
    assert child.wait(ENOUGH) == -number
    gone(child)


@pytest.mark.parametrize("stage", [loading, answering])
def test_ctrl_c_ends_the_whole_program_in_silence(program, stage):
    """A terminal sends it to all processes that stand in the foreground."""
    child, errors = program
    stage(child)
    os.killpg(child.pid, signal.SIGINT)
    child.stdout.read()
    assert child.wait(ENOUGH) == 130
    gone(child)
    said = errors.read_text()
    assert "Traceback" not in said and "ERROR" not in said, said
    assert "Triton is installed" not in said
