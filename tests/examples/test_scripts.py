"""Each example is run as its reader would run it, and says what its docstring promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.servers.background import eventually
from tests.servers.provider import FakeProvider

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def command(name: str, *words: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *map(str, words)]


def run(name: str, *words: object) -> str:
    done = subprocess.run(
        command(name, *words), capture_output=True, text=True, timeout=100, check=False, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_rows(path: Path, contents: list[str]) -> None:
    lines = [json.dumps({"messages": [{"role": "user", "content": content}]}) for content in contents]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_rows(path: Path) -> list[list[str]]:
    """The texts of each row's messages."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [[message["content"] for message in row["messages"]] for row in rows]


def test_stream_in_ten_lines():
    assert run("stream_in_ten_lines.py") == "The capital of France is Paris.\n"
    code = (EXAMPLES / "stream_in_ten_lines.py").read_text(encoding="utf-8").split('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_own_engine():
    assert run("own_engine.py").split("\n") == ["three two one ", "0 row ", "1 row ", "2 row ", ""]


def test_check_own_engine():
    assert run("check_own_engine.py").startswith("reverse: 17 passed, 0 failed, 11 not applicable\n")


def test_batch_on_the_embedded_model(tmp_path):
    write_rows(tmp_path / "in.jsonl", ["What is the capital of France?", "What is the capital of Japan?"])
    said = run("batch_with_resume.py", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert "2 answers" in said
    answers = [row[-1] for row in read_rows(tmp_path / "out.jsonl")]
    assert answers == ["The capital of France is Paris.", "The capital of Japan is Tokyo."]


async def test_batch_killed_and_resumed(tmp_path):
    contents = [f"row number {n}" for n in range(300)]
    write_rows(tmp_path / "in.jsonl", contents)
    with FakeProvider(first_token=0.02) as provider:
        config = tmp_path / "config.yaml"
        remote = {"api_url": provider.url, "api_key": "sk-test", "num_workers": 8}
        config.write_text(json.dumps({"engine": "REMOTE", "model": {"model_name": "fake-1"}, "remote_params": remote}))
        words = (tmp_path / "in.jsonl", tmp_path / "out.jsonl", config)

        with subprocess.Popen(
            command("batch_with_resume.py", *words), stderr=subprocess.DEVNULL, env=ENVIRONMENT
        ) as process:
            await eventually(lambda: provider.stats.completed >= 100, timeout=60)
            process.kill()
        await eventually(lambda: provider.stats.in_flight == 0)
        assert not (tmp_path / "out.jsonl").exists()
        first = provider.stats.completed
        said = run("batch_with_resume.py", *words)

        resumed = int(said.rpartition(", ")[2].split()[0])
        assert 80 <= resumed <= first
        assert provider.stats.completed - first == 300 - resumed
        asked = Counter(request.body["messages"][-1]["content"] for request in provider.stats.requests)
        assert set(asked) == set(contents)
    assert read_rows(tmp_path / "out.jsonl") == [[content, content] for content in contents]
