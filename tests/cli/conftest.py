"""Runs the program as a user does: another process, no keys in the environment, a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.provider import FakeProvider

ROOT = Path(__file__).parents[2]


@dataclass
class Program:
    """``program("infer", "Hello")`` runs it to its end; ``program.start(...)`` leaves it running."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "asyncinfer", *map(str, words)]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_TOKEN"))}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "COLUMNS": "200", **self.env}

    def __call__(self, *words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, *words: object, **more: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            text=True,
            **{
                "env": self.environment(),
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **more,
            },
        )


@pytest.fixture
def program(tmp_path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def provider():
    """An OpenAI-compatible server that answers with the last user message."""
    with FakeProvider() as server:
        yield server


@pytest.fixture
def at(provider) -> list[str]:
    """The words that point a command at `provider`."""
    return ["--remote_params.api_url", provider.url, "--model.model_name", "fake-1"]
