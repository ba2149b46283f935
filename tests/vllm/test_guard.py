"""Scripts with and without ``if __name__ == "__main__":``. It is looked at before vLLM is, which need not be there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BODY = """
import anyio
from asyncinfer import EngineError, MissingDependencyError, VLLMInferenceEngine
from asyncinfer.engines.vllm import guard
"""
ASK = """
    try:
        guard.check()
        print("guarded")
    except EngineError as error:
        print(type(error).__name__, error)
"""


def run(tmp_path, source, *words):
    script = tmp_path / "script.py"
    script.write_text(BODY + source)
    command = [sys.executable, *(words or (str(script),))]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


UNGUARDED = [
    "async def main():" + ASK + "anyio.run(main)\n",
    "def main():" + ASK + "main()\n",
    "if True:" + ASK,
    "async def main():" + ASK + "anyio.run(main, backend='trio')\n",
    "if __name__ == '__main__':\n    pass\ndef main():" + ASK + "main()\n",
]
GUARDED = [
    "async def main():" + ASK + "if __name__ == '__main__':\n    anyio.run(main)\n",
    "if '__main__' == __name__:" + ASK,
    "import threading\ndef main():" + ASK + "if __name__ == '__main__':\n"
    "    thread = threading.Thread(target=main)\n    thread.start()\n    thread.join()\n",
]


@pytest.mark.parametrize("source", UNGUARDED)
def test_a_script_without_the_guard_is_told_so(tmp_path, source):
    said = run(tmp_path, source)
    assert said.startswith("EngineError")
    assert 'if __name__ == "__main__":' in said and "script.py, line" in said


@pytest.mark.parametrize("source", GUARDED)
def test_a_script_with_it_passes(tmp_path, source):
    assert run(tmp_path, source) == "guarded\n"


def test_so_does_what_no_process_would_import_again(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(BODY + "if True:" + ASK)
    assert run(tmp_path, "", "-m", "package") == "guarded\n"
    assert run(tmp_path, "", "-c", BODY + "if True:" + ASK) == "guarded\n"


def test_the_engine_itself_says_it_before_anything_is_loaded(tmp_path):
    source = (
        "try:\n    anyio.run(VLLMInferenceEngine().generate, 'Hello')\n"
        "except EngineError as error:\n    print(type(error).__name__, error)\n"
    )
    assert run(tmp_path, source).startswith("EngineError")


def test_a_process_that_imports_the_script_stops_there(tmp_path):
    """What multiprocessing itself would say, in our words."""
    script = tmp_path / "script.py"
    script.write_text(
        BODY + "import multiprocessing\nif __name__ != '__main__':" + ASK + "    raise SystemExit(0)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=print)\n"
        "    process.start()\n    process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "EngineError an engine is opened while a process" in done.stdout, done.stderr
