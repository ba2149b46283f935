"""Programs that end in every possible way while streams are running: they end soon, and with the code they should."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

pytestmark = [pytest.mark.native, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, signal, sys
import anyio
from asyncinfer import GenerationParams, NativeTextInferenceEngine

engine = NativeTextInferenceEngine()
LONG = GenerationParams(max_new_tokens=1900, logit_bias={{2: -100}})
BEAMS = GenerationParams(max_new_tokens=1900, num_beams=2, logit_bias={{2: -100}})

async def read(how=LONG):
    async for token in engine.stream("Count from 1 to 20.", generation=how):
        pass

async def main():
    await engine.ready()
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(read)
        group.start_soon(read, BEAMS)
        await anyio.sleep(0.3)
        {end}

anyio.run(main, backend={backend!r})
"""

ENDS = {
    "sys.exit": ("sys.exit(3)", {1, 3}),  # through a task group: an exception group on the way out
    "cancelled": ("group.cancel_scope.cancel()", {0}),
    "closed": ("await engine.aclose(); group.cancel_scope.cancel()", {0, 1}),
    "ctrl-c": ("os.kill(os.getpid(), signal.SIGINT)", {1, 130, -2}),
}


@cache
def environment():
    """Where nothing compiled may be kept, compiling PyTorch takes longer than all tests: once is enough for them."""
    found = {**os.environ, "OMP_NUM_THREADS": "1"}
    if found.pop("PYTHONDONTWRITEBYTECODE", None):
        folder = tempfile.TemporaryDirectory()
        atexit.register(folder.cleanup)
        found["PYTHONPYCACHEPREFIX"] = folder.name
    return found


def run(source):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment(),
    )


@pytest.mark.parametrize(("end", "backend"), [(end, ("asyncio", "trio")[at % 2]) for at, end in enumerate(ENDS)])
def test_a_program_ends_while_streams_run(end, backend):
    code, expected = ENDS[end]
    done = run(PROGRAM.format(backend=backend, end=code))
    assert done.returncode in expected, done.stderr
    assert "Fatal Python error" not in done.stderr and "terminate called" not in done.stderr


def test_a_program_that_never_closes_its_engine():
    source = PROGRAM.format(backend="asyncio", end="pass").split("async def main")[0]
    body = "await engine.stream('Count from 1 to 20.', generation=LONG).__aiter__().__anext__()"
    done = run(f"{source}async def main():\n    {body}\nanyio.run(main)\nanyio.run(main)\nprint('bye')")
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr
    assert not done.stderr
