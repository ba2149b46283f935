"""Our local engines beside the library that each one drives, used directly: tokens/s and CPU per token, in pairs.

    python benchmarks/local.py                                     # whatever is installed in this interpreter
    python benchmarks/local.py --engine llamacpp --streams 1 16 --tokens 64
    python benchmarks/local.py --engine vllm --streams 1 16 256 --model path/or/hub-id --threads 0

Every side is a process of its own that loads the model once and then waits for orders on stdin, so that the two of a
pair can take turns: each repeat runs both, in an order drawn by lot, and gives one ratio; the table has the median and
the range of the ratios. What is measured is the whole way from a conversation to text: the direct sides
(`local_direct.py`) apply a chat template, tokenize, and read the answers' text too. Every answer has exactly
``--tokens`` tokens, the model's wish to end is overruled; a side that made another number fails the run. CPU is that of
the process and its children (Linux; elsewhere without children).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.local_direct import DIRECT, Order, Setup

PROMPT = "Count from 1 to 20."


class Pair(NamedTuple):
    """What is compared: two sides by name, and the module that has to be there."""

    engine: str
    direct: str
    ours: str
    module: str
    package: str


PAIRS = [
    Pair("llamacpp", "xllamacpp, a thread each", "asyncinfer on xllamacpp", "xllamacpp", "xllamacpp"),
    Pair("llamacpp", "llama_cpp, own batch loop", "asyncinfer on llama_cpp", "llama_cpp", "llama-cpp-python"),
    Pair("vllm", "vllm AsyncLLM", "asyncinfer on vllm", "vllm", "vllm"),
    Pair("native", "transformers, its batching", "asyncinfer on transformers", "transformers", "transformers"),
    Pair("native", "transformers, one by one", "asyncinfer on transformers", "transformers", "transformers"),
]


# -- a side: a process that waits for orders ---------------------------------------------------------------------------


class Ours:
    """The engine of this package, streamed from by as many tasks as there are streams."""

    def __init__(self, name: str, setup: Setup) -> None:
        from asyncinfer import GenerationParams, ModelParams, open_engine

        self._params = GenerationParams
        slots, threads = setup.slots, setup.threads
        kwargs: dict[str, Any] = {
            "asyncinfer on xllamacpp": {"binding": "xllamacpp", "n_parallel": slots, "n_ctx": setup.context},
            "asyncinfer on llama_cpp": {"binding": "llama-cpp-python", "n_parallel": slots, "n_ctx": setup.context},
            "asyncinfer on vllm": {"max_num_seqs": slots, "max_model_len": setup.context},
            "asyncinfer on transformers": {"n_parallel": slots},
        }[name]
        engine = {"vllm": "vllm", "transformers": "native"}.get(name.rpartition(" ")[2], "llamacpp")
        if threads:
            kwargs |= {"llamacpp": {"n_threads": threads}, "native": {"num_threads": threads}}.get(engine, {})
        self._without_end = {setup.end: -100.0} if engine == "llamacpp" else None
        self._engine = open_engine(f"{engine}:{setup.model or ''}", model_params=ModelParams(model_kwargs=kwargs))

    async def load(self) -> None:
        await self._engine.ready()

    async def run(self, order: Order) -> int:
        if self._without_end:
            generation = self._params(max_new_tokens=order.tokens, logit_bias=self._without_end)
        else:
            generation = self._params(max_new_tokens=order.tokens, min_new_tokens=order.tokens)
        left, made = order.requests, 0

        async def worker() -> None:
            nonlocal left, made
            while left > 0:
                left -= 1
                async with self._engine.stream(PROMPT, generation=generation) as stream:
                    text = [token async for token in stream]
                    completion = await stream.completion()
                assert text
                made += completion.usage.output_tokens

        async with asyncio.TaskGroup() as group:
            for _ in range(order.streams):
                group.create_task(worker())
        return made

    async def close(self) -> None:
        await self._engine.aclose()


def cpu() -> float:
    """Seconds of CPU of this process and, where /proc tells, of its descendants."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    ticks = os.sysconf("SC_CLK_TCK")
    for pid in descendants(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        used += (int(fields[11]) + int(fields[12])) / ticks
    return used


def descendants(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


async def serve(name: str, setup: Setup, out: Any) -> None:
    """Load, then obey: a line of JSON in, a line of JSON out."""
    side = DIRECT[name](setup, PROMPT) if name in DIRECT else Ours(name, setup)
    await side.load()
    print(json.dumps({"ready": True}), file=out, flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = Order(**json.loads(line))
        before, begun = cpu(), time.perf_counter()
        made = await side.run(order)
        wall, used = time.perf_counter() - begun, cpu() - before
        print(json.dumps({"made": made, "wall": wall, "cpu": used}), file=out, flush=True)
    await side.close()


# -- the other end -----------------------------------------------------------------------------------------------------


class Side:
    """A child process and its last words."""

    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
        command = [sys.executable, __file__, "--child", name, json.dumps(setup)]
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", **os.environ}
        if setup.threads:
            environment["OMP_NUM_THREADS"] = str(setup.threads)
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self._child.wait()}; its words are above")
        return json.loads(line)

    def run(self, order: Order) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(order._asdict()) + "\n")
        self._child.stdin.flush()
        result = self._read()
        wanted = order.requests * order.tokens
        if result["made"] != wanted:
            raise SystemExit(f"{self.name} made {result['made']} tokens, {wanted} were asked for")
        return result

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(60)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def compare(pair: Pair, setup: Setup, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both sides at each number of streams, taking turns."""
    rows = []
    with ExitStack() as stack:
        sides = []
        for name in (pair.direct, pair.ours):
            side = Side(name, setup)
            stack.callback(side.close)
            sides.append(side)
        for streams in options.streams:
            order = Order(streams, options.tokens, max(streams, options.requests or 2 * streams))
            for side in sides:
                side.run(order._replace(requests=streams))  # warm-up
            runs: list[list[dict[str, Any]]] = [[], []]
            for _ in range(options.repeats):
                for which in random.sample((0, 1), 2):
                    runs[which].append(sides[which].run(order))
            rows.append(figures(pair, order, *runs))
            print(line(rows[-1]), flush=True)
    return rows


def figures(pair: Pair, order: Order, direct: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    tokens = order.tokens * order.requests
    ratios = sorted(one["wall"] / other["wall"] for one, other in zip(direct, ours, strict=True))
    return {
        "engine": pair.engine,
        "direct": pair.direct,
        "ours": pair.ours,
        "streams": order.streams,
        "direct_tokens_per_s": tokens / statistics.median(run["wall"] for run in direct),
        "ours_tokens_per_s": tokens / statistics.median(run["wall"] for run in ours),
        "ratio": statistics.median(ratios),
        "ratio_range": [ratios[0], ratios[-1]],
        "direct_cpu_us": 1e6 * statistics.median(run["cpu"] for run in direct) / tokens,
        "ours_cpu_us": 1e6 * statistics.median(run["cpu"] for run in ours) / tokens,
    }


HEADER = """\
| library, used directly | streams | direct, tokens/s | asyncinfer, tokens/s | ratio (range) | direct, CPU us/token | \
asyncinfer, CPU us/token |
|---|---:|---:|---:|---:|---:|---:|"""


def line(row: dict[str, Any]) -> str:
    low, high = row["ratio_range"]
    return (
        f"| {row['direct']} | {row['streams']} | {row['direct_tokens_per_s']:,.0f} | {row['ours_tokens_per_s']:,.0f} "
        f"| {row['ratio']:.2f} ({low:.2f}..{high:.2f}) | {row['direct_cpu_us']:,.0f} | {row['ours_cpu_us']:,.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="+", choices=["llamacpp", "vllm", "native"])
    parser.add_argument("--only", help="pairs whose direct side has this in its name")
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--requests", type=int, help="in each run; twice the streams unless given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", help="a model that both sides can load; the embedded one unless given")
    parser.add_argument("--context", type=int, default=512, help="tokens of one conversation")
    parser.add_argument("--threads", type=int, default=1, help="of the library; 0 for its own choice")
    parser.add_argument("--end", type=int, default=2, help="token that ends an answer of the model (llama.cpp)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "SETUP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a library prints is not an answer
        asyncio.run(serve(options.child[0], Setup(*json.loads(options.child[1])), out))
        return 0

    pairs = [pair for pair in PAIRS if not options.engine or pair.engine in options.engine]
    pairs = [pair for pair in pairs if not options.only or options.only in pair.direct]
    present = [pair for pair in pairs if find_spec(pair.module) is not None]
    if not present:
        print(f"nothing to compare: none of {', '.join(sorted({pair.package for pair in pairs}))} is installed")
        return 1
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; ")
    print(", ".join(f"{pair.package} {release(pair.package)}" for pair in present), "\n")
    print(HEADER)
    setup = Setup(options.model, max(options.streams), options.context, options.threads, options.end)
    rows = [row for pair in present for row in compare(pair, setup, options)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 0


def release(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"


if __name__ == "__main__":
    sys.exit(main())
