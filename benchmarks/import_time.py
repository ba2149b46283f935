"""What an import costs: CPU of a fresh interpreter, warm bytecode, beside peers.

    python benchmarks/import_time.py [--rounds 7]

CPU (user + system) of the whole process, so the bare interpreter is part of every figure and is listed by itself.
Median of the rounds, in shuffled order, after one round that writes the bytecode.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec

CASES = {
    "(bare interpreter)": "pass",
    "pydantic": "from pydantic import BaseModel\nclass A(BaseModel): x: int",
    "import asyncinfer": "import asyncinfer",
    "from asyncinfer import Conversation, RemoteInferenceEngine": (
        "from asyncinfer import Conversation, RemoteInferenceEngine"
    ),
    "httpx": "import httpx",
    "aiohttp": "import aiohttp",
    "openai": "from openai import AsyncOpenAI",
    "anthropic": "from anthropic import AsyncAnthropic",
    "litellm": "import litellm",
}

TAIL = """
import json, resource, sys
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([1000 * (usage.ru_utime + usage.ru_stime), len(sys.modules), usage.ru_maxrss / 1024]))
"""


def run(code: str, pycache: str) -> tuple[float, int, float]:
    """CPU in ms, modules loaded, peak RSS in MB."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": pycache, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code + TAIL], capture_output=True, text=True, env=environment, check=True
    )
    cpu, modules, rss = done.stdout.splitlines()[-1].strip("[]").split(",")
    return float(cpu), int(modules), float(rss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    present = {name: code for name, code in CASES.items() if "(" in name or "asyncinfer" in name or find_spec(name)}
    runs: dict[str, list[tuple[float, int, float]]] = {name: [] for name in present}
    with tempfile.TemporaryDirectory() as pycache:
        for code in present.values():
            run(code, pycache)
        for _ in range(rounds):
            for name in random.sample(list(present), len(present)):
                runs[name].append(run(present[name], pycache))
    print(f"Python {sys.version.split()[0]}, {rounds} rounds, load {os.getloadavg()[0]:.1f}\n")
    print("| import | CPU ms (min..max) | modules | RSS MB |\n|---|---:|---:|---:|")
    for name, rows in runs.items():
        cpu = [row[0] for row in rows]
        span = f"{statistics.median(cpu):.0f} ({min(cpu):.0f}..{max(cpu):.0f})"
        print(f"| {name} | {span} | {rows[0][1]} | {rows[0][2]:.0f} |")
    for name in sorted(set(CASES) - set(present)):
        print(f"| {name} | not installed | | |")


if __name__ == "__main__":
    main()
