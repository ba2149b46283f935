"""What a client costs: CPU per streamed token and per request, beside raw aiohttp, raw httpx, openai and litellm.

    python benchmarks/client_cost.py [--rounds 3] [--peers asyncinfer openai] [--json out.json]

Every run is a fresh process (``--child``): it warms up, then takes ``getrusage`` (user + system, all threads) around
the measured part and divides by the tokens or requests that it counted; a wrong count fails the run. The server
(`server.py`) is another process. Shapes:

* paced    64 streams, one event per TCP segment every 30 ms, as a model sends them: the cost of one wake-up.
* burst    64 streams of 256 tokens written at once, so that reads coalesce: parsing and objects alone.
* stream   whole streamed requests of one token, 64 at a time: the fixed cost of a stream.
* json     whole non-streamed requests of 64 tokens, 64 at a time.

Order is shuffled in each round; the table shows medians and ranges. Compare within one table only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers import MODULES, MOST, PEERS, Calls
from benchmarks.server import serving


class Shape(NamedTuple):
    """One kind of load. ``unit`` is what the cost is divided by: tokens or requests."""

    tokens: int
    delay_ms: int
    calls: int
    streamed: bool
    unit: str


SHAPES = {
    "paced": Shape(tokens=64, delay_ms=30, calls=64, streamed=True, unit="token"),
    "burst": Shape(tokens=256, delay_ms=0, calls=128, streamed=True, unit="token"),
    "stream": Shape(tokens=1, delay_ms=0, calls=512, streamed=True, unit="request"),
    "json": Shape(tokens=64, delay_ms=0, calls=512, streamed=False, unit="request"),
}


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def many(calls: Calls, shape: Shape, number: int) -> None:
    """``number`` calls, at most `MOST` at a time; raises if one of them saw another number of tokens."""
    call = calls.stream if shape.streamed else calls.document
    left = number

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            seen = await call()
            if seen != shape.tokens:
                message = f"{seen} tokens arrived, {shape.tokens} were sent"
                raise RuntimeError(message)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(MOST, number)):
            group.create_task(worker())


async def measure(peer: str, shape: Shape, url: str) -> dict[str, float]:
    async with PEERS[peer](f"{url}/{shape.tokens}/0") as calls:  # warm-up: imports, caches, code paths
        await many(calls, shape, MOST)
    async with PEERS[peer](f"{url}/{shape.tokens}/{shape.delay_ms}") as calls:
        if shape.delay_ms == 0:
            await many(calls, shape, MOST)  # connections are open when the clock starts
        wall, before = time.perf_counter(), cpu()
        await many(calls, shape, shape.calls)
        used, wall = cpu() - before, time.perf_counter() - wall
    units = shape.calls * (shape.tokens if shape.unit == "token" else 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "us": 1e6 * used / units,
        "rate": units / wall,
        "rss_mb": peak / (1024 * 1024 if sys.platform == "darwin" else 1024),
    }


def child(peer: str, shape: str, url: str) -> dict[str, float] | str:
    """One measurement in a fresh process, or why there is none."""
    command = [sys.executable, __file__, "--child", peer, shape, url]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return "did not finish in 300 s"
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if re.match(r"[\s|]*[\w.]+(Error|Exception)\b.*:", line)]
        return errors[-1].strip(" |")[:100] if errors else f"ended with {done.returncode}"
    return json.loads(done.stdout.splitlines()[-1])


def installed(peer: str) -> str | None:
    module = MODULES[peer]
    if find_spec(module) is None:
        return None
    try:
        return version(module)
    except PackageNotFoundError:
        return "of this folder"


def table(shape: str, runs: dict[str, list[dict[str, float]]], failed: dict[str, str]) -> str:
    """Markdown, cheapest first."""
    unit = SHAPES[shape].unit
    medians = {peer: statistics.median(run["us"] for run in rows) for peer, rows in runs.items() if rows}
    ours = medians.get("asyncinfer")
    lines = [
        f"| {shape} | CPU us/{unit} (min..max) | x asyncinfer | {unit}s/s seen | peak RSS MB |",
        "|---|---:|---:|---:|---:|",
    ]
    for peer, median in sorted(medians.items(), key=lambda item: item[1]):
        costs = [run["us"] for run in runs[peer]]
        times = f"{median / ours:.1f}" if ours else ""
        rate = statistics.median(run["rate"] for run in runs[peer])
        rss = max(run["rss_mb"] for run in runs[peer])
        lines.append(
            f"| {peer} | {median:.1f} ({min(costs):.1f}..{max(costs):.1f}) | {times} | {rate:,.0f} | {rss:.0f} |"
        )
    lines += [f"| {peer} | {why} | | | |" for peer, why in failed.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--json", type=Path, help="write every run here")
    parser.add_argument("--child", nargs=3, metavar=("PEER", "SHAPE", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        peer, shape, url = options.child
        print(json.dumps(asyncio.run(measure(peer, SHAPES[shape], url))))
        return 0

    versions = {peer: installed(peer) for peer in options.peers}
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    print(", ".join(f"{MODULES[peer]} {number or 'not installed'}" for peer, number in versions.items()), "\n")
    present = [peer for peer, number in versions.items() if number]
    everything = {}
    with serving() as url:
        for shape in options.shapes:
            runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in present}
            failed = {
                peer: "not installed: pip install 'asyncinfer[bench]'" for peer in versions if peer not in present
            }
            for _ in range(options.rounds):
                for peer in random.sample(present, len(present)):
                    result = child(peer, shape, url)
                    if isinstance(result, str):
                        failed[peer] = result
                    else:
                        runs[peer].append(result)
            print(table(shape, runs, failed), "\n", flush=True)
            everything[shape] = {"runs": runs, "failed": failed}
    if options.json:
        options.json.write_text(json.dumps({"versions": versions, "shapes": everything}, indent=1))
    return 1 if any(shape["failed"].get("asyncinfer") for shape in everything.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
