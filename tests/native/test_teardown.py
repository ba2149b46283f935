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
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); await anyio.sleep(5)", {-15}),
    "dropped": ("globals().pop('engine'); group.cancel_scope.cancel()", {0}),
    "error": ("raise KeyError(1)", {1}),
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


BEGIN = PROGRAM.format(backend="asyncio", end="pass").split("async def main")[0]


@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_a_program_that_leaves_before_the_model_is_loaded(seconds):
    body = f"with anyio.move_on_after({seconds}):\n        await engine.ready()"
    done = run(f"{BEGIN}async def main():\n    {body}\nanyio.run(main)\nprint('bye')")
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr
    assert not done.stderr


def test_a_program_that_ends_in_another_thread_s_stream():
    """The main thread just returns; a loop in a daemon thread is still streaming."""
    done = run(
        f"{BEGIN}import threading, time\nanyio.run(engine.ready)\n"
        "threading.Thread(target=anyio.run, args=(read,), daemon=True).start()\ntime.sleep(0.5)\nprint('bye')"
    )
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr
    assert "Fatal Python error" not in done.stderr


def test_ctrl_c_is_still_python_s():
    program = (
        f"{BEGIN}async def main():\n    try:\n        await read()\n"
        "    finally:\n        print('unwound', flush=True)\n"
        "import threading\nanyio.run(engine.ready)\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    anyio.run(main)\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    done = run(program)
    assert (done.returncode, done.stdout) == (0, "unwound\ninterrupted\n"), done.stderr


def test_opening_and_closing_again_and_again():
    done = run(
        f"{BEGIN}async def main():\n"
        "    for _ in range(3):\n        await engine.ready()\n        await engine.aclose()\n"
        "    for _ in range(3):\n        await engine.generate('Hello')\n        await engine.aclose()\n"
        "anyio.run(main)\nprint('bye')"
    )
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr


def test_a_forked_process_is_told_to_load_the_model_itself():
    source = f"""{BEGIN}
import warnings
from asyncinfer.errors import EngineError

warnings.simplefilter("ignore", DeprecationWarning)  # of Python, about forks of processes with threads
print(anyio.run(engine.generate, "What is 3 + 4?").text, flush=True)
child = os.fork()
if not child:
    try:
        anyio.run(engine.generate, "What is 3 + 4?")
    except EngineError as error:
        print(error.message, flush=True)
        anyio.run(engine.aclose)
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(anyio.run(engine.generate, "What is 3 + 4?").text)
"""
    done = run(source)
    assert done.returncode == 0, done.stderr
    first, told, second = done.stdout.splitlines()
    assert first == second == "3 + 4 = 7."
    assert "spawn" in told


def test_spawned_processes_have_models_of_their_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\nimport anyio\nfrom asyncinfer import NativeTextInferenceEngine\n\n"
        "def work(queue):\n"
        "    answer = anyio.run(NativeTextInferenceEngine().generate, 'What is 3 + 4?')\n"
        "    queue.put(answer.text)\n\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n    queue = context.SimpleQueue()\n"
        "    processes = [context.Process(target=work, args=(queue,)) for _ in range(2)]\n"
        "    for process in processes:\n        process.start()\n"
        "    print(*[queue.get() for _ in processes], sep='\\n')\n"
        "    for process in processes:\n        process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "3 + 4 = 7.\n" * 2), done.stderr
    assert not done.stderr
