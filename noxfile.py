"""Everything that is run on this project, by hand or by CI: ``nox`` alone checks lint, types and tests.

The checks run in the environment that nox itself is installed in (``pip install -e '.[dev]'``), so nothing is installed
twice. ``nox -s matrix`` builds a fresh environment for each Python named in the classifiers. Words after ``--`` go to
the tool: ``nox -s tests -- tests/wire -x``.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import nox

HERE = Path(__file__).parent
CLASSIFIERS: list[str] = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["classifiers"]
PYTHONS = [last for last in (line.rpartition(" :: ")[2] for line in CLASSIFIERS) if last.startswith("3.")]

nox.needs_version = ">=2025.5"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False

here = nox.session(venv_backend="none")


def python(session: nox.Session, *words: str) -> None:
    """Run a module of this very environment, whatever the PATH says."""
    session.run(sys.executable, *words, external=True)


@here
def lint(session: nox.Session) -> None:
    """Rules and format of every Python file."""
    python(session, "-m", "ruff", "check", *session.posargs)
    python(session, "-m", "ruff", "format", "--check", "--quiet")


@here
def types(session: nox.Session) -> None:
    """Strict types of the package and of the examples, which see only the public ones."""
    python(session, "-m", "mypy", *session.posargs)


@here
def tests(session: nox.Session) -> None:
    """All tests; the examples are among them."""
    python(session, "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS)
def matrix(session: nox.Session) -> None:
    """All tests on every supported Python, in a fresh environment each."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@here
def examples(session: nox.Session) -> None:
    """The examples alone."""
    python(session, "-m", "pytest", "tests/examples", *session.posargs)


@here
def bench(session: nox.Session) -> None:
    """The figures of the README; needs ``pip install -e '.[bench]'`` for the peers."""
    for script in ("import_time", "client_cost", "throughput", "million_rows", "scheduler"):
        python(session, f"benchmarks/{script}.py", *session.posargs)


@here
def demo(session: nox.Session) -> None:
    """The main job, on the embedded model."""
    for words in (["--version"], ["engines"], ["infer", "What is the capital of France?"]):
        python(session, "-m", "asyncinfer", *words)


@nox.session
def dist(session: nox.Session) -> None:
    """Build the wheel, install it in a fresh environment, run the main job from there."""
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(HERE / "dist"), str(HERE))
    wheel = max((HERE / "dist").glob("asyncinfer-*.whl"), key=os.path.getmtime)
    session.install(f"{wheel}[llamacpp]")
    with session.chdir(session.create_tmp()):
        session.run("asyncinfer", "infer", "What is the capital of France?")
