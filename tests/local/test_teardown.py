"""Programs that end in every possible way while streams are running: they end soon, and with the code they should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, signal, sys
import anyio
from asyncinfer import GenerationParams, LlamaCppInferenceEngine, ModelParams

engine = LlamaCppInferenceEngine(ModelParams(model_kwargs={{"binding": {binding!r}, "n_parallel": 4}}))
LONG = GenerationParams(max_new_tokens=1900, logit_bias={{2: -100}})

async def read():
    async for token in engine.stream("Count from 1 to 20.", generation=LONG):
        pass

async def main():
    await engine.ready()
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(read)
        await anyio.sleep(0.1)
        {end}

anyio.run(main, backend={backend!r})
"""

ENDS = {
    "sigterm": ("os.kill(os.getpid(), signal.SIGTERM); await anyio.sleep(5)", {-15}),
    "dropped": ("globals().pop('engine'); group.cancel_scope.cancel()", {0}),
    "sys.exit": ("sys.exit(3)", {1, 3}),  # through a task group: an exception group on the way out
    "cancelled": ("group.cancel_scope.cancel()", {0}),
    "closed": ("await engine.aclose(); group.cancel_scope.cancel()", {0, 1}),
    "error": ("raise KeyError(1)", {1}),
    "ctrl-c": ("os.kill(os.getpid(), signal.SIGINT)", {1, 130, -2}),
}


def run(source, timeout=60.0):
    return subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_ends_while_streams_run(binding, backend, end):
    code, expected = ENDS[end]
    done = run(PROGRAM.format(binding=binding, backend=backend, end=code))
    assert done.returncode in expected, done.stderr
    assert "Fatal Python error" not in done.stderr and "terminate called" not in done.stderr


def test_a_program_that_leaves_before_the_model_is_loaded_or_the_prompt_is_read(binding):
    source = PROGRAM.format(binding=binding, backend="asyncio", end="pass").split("async def main")[0]
    for body, end in (
        ("with anyio.move_on_after(0.002):\n        await engine.ready()", "sys.exit(0)"),
        ("await engine.ready()\n    with anyio.move_on_after(0.01):\n        await read('hi there ' * 380)", "pass"),
    ):
        begin = source.replace("async def read():", "async def read(prompt):").replace(
            '"Count from 1 to 20."', "prompt"
        )
        done = run(f"{begin}async def main():\n    {body}\n    {end}\nanyio.run(main)")
        assert done.returncode == 0, done.stderr
        assert not done.stderr


def test_a_program_that_never_closes_its_engine(binding):
    for body in (
        "await engine.generate('Hello')",
        "await engine.ready()",
        "await engine.stream('Count from 1 to 20.', generation=LONG).__aiter__().__anext__()",
    ):
        source = PROGRAM.format(binding=binding, backend="asyncio", end="pass").split("async def main")[0]
        done = run(f"{source}async def main():\n    {body}\nanyio.run(main)\nprint('bye')")
        assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr


def test_a_program_that_ends_in_another_thread_s_stream(binding):
    """The main thread just returns; a loop in a daemon thread is still streaming."""
    source = PROGRAM.format(binding=binding, backend="asyncio", end="pass").split("async def main")[0]
    done = run(
        source
        + "import threading, time\nthreading.Thread(target=anyio.run, args=(read,), daemon=True).start()\n"
        + "time.sleep(0.5)\nprint('bye')"
    )
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr


def test_ctrl_c_is_still_python_s(binding):
    """No binding may take over the signals of the process it is loaded into."""
    source = PROGRAM.format(binding=binding, backend="asyncio", end="pass").split("async def main")[0]
    program = source + (
        "async def main():\n    await engine.generate('Hello')\n    print('ready', flush=True)\n"
        "    try:\n        while True:\n            await engine.generate('Count from 1 to 20.', generation=LONG)\n"
        "    finally:\n        print('unwound', flush=True)\n"
        "try:\n    anyio.run(main)\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.05)
        os.kill(child.pid, signal.SIGINT)
        assert child.stdout.read() == "unwound\ninterrupted\n"
    assert child.returncode == 0


def test_opening_and_closing_again_and_again(binding):
    source = PROGRAM.format(binding=binding, backend="asyncio", end="pass").split("async def main")[0]
    done = run(
        source
        + "async def main():\n    for _ in range(10):\n        await engine.ready()\n        await engine.aclose()\n"
        + "    for _ in range(5):\n        await engine.generate('Hello')\n        await engine.aclose()\n"
        + "anyio.run(main)\nprint('bye')"
    )
    assert (done.returncode, done.stdout) == (0, "bye\n"), done.stderr


def test_a_forked_process_is_told_to_load_the_model_itself(binding):
    source = """
    import os, sys, time, anyio
    from asyncinfer import LlamaCppInferenceEngine, ModelParams
    from asyncinfer.errors import EngineError

    engine = LlamaCppInferenceEngine(ModelParams(model_kwargs={"binding": %r}))
    print(anyio.run(engine.generate, "What is 3 + 4?").text)
    child = os.fork()
    if not child:
        try:
            anyio.run(engine.generate, "What is 3 + 4?")
        except EngineError as error:
            print(error.message)
            anyio.run(engine.aclose)
            sys.stdout.flush()
            os._exit(7)  # (where xllamacpp was forked, its own destructor waits for ever)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    print(anyio.run(engine.generate, "What is 3 + 4?").text)
    """
    done = run(textwrap.dedent(source) % binding)
    assert done.returncode == 0, done.stderr
    first, told, second = done.stdout.splitlines()
    assert first == second == "3 + 4 = 7."
    assert "spawn" in told


def test_a_program_that_leaves_a_blocking_stream_half_read_ends_in_silence(binding):
    source = """
    import asyncinfer.blocking
    from asyncinfer import ModelParams

    engine = asyncinfer.blocking.open_engine("llamacpp:", model_params=ModelParams(model_kwargs={"binding": %r}))
    tokens = iter(engine.stream("Count from 1 to 20."))
    print(next(tokens))
    """
    done = run(textwrap.dedent(source) % binding)
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "portal" not in done.stderr
