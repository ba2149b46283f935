"""A web app that streams from a model in its own process: does it still answer everybody else?

    python benchmarks/web_app.py                                  # the embedded model, 50 clients, 10 seconds
    python benchmarks/web_app.py config.yaml --clients 200 --seconds 30 --json out.json

Three processes: the app (examples/fastapi_sse.py under uvicorn), the clients (this one), each of which asks for one
streamed answer after another, and a prober that asks for /health on a connection of its own every few ms. The
prober's time is from writing the request to having read the answer. An idle round before shows what the machine is
worth, and on Linux the last line tells for how long the app's loop had to wait for a core. An answer counts when its
last event has come; one that breaks off is counted as failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx

ROOT = Path(__file__).parents[1]
PROMPT = "Count from 1 to 20."
EVERY = 0.005
"""Seconds between two health checks."""


@dataclass
class Load:
    """What the clients saw."""

    answers: list[int] = field(default_factory=list)
    tokens: int = 0
    texts: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)
    seconds: float = 0.0


@contextmanager
def serving(config: str | None) -> Iterator[tuple[str, int]]:
    """The app on a free loopback port, in a process of its own; gives its URL and the process's number."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if config is not None:
        environment["ASYNCINFER_CONFIG"] = str(Path(config).resolve())
    command = [sys.executable, "-m", "uvicorn", "examples.fastapi_sse:app", "--port", "0", "--no-access-log"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            seen = []
            assert process.stderr is not None
            for line in process.stderr:
                seen.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    yield found[1], process.pid
                    break
            else:
                sys.exit(f"the app did not start:\n{''.join(seen)}")
        finally:
            process.terminate()
            process.communicate(timeout=30)


def without_core(pid: int) -> float | None:
    """Seconds that the app's main thread, the loop's, was ready to run and no core was free; None outside Linux."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except OSError:
        return None


def probe(url: str, seconds: float) -> None:
    """The prober: prints the latencies of the health checks, in milliseconds, and how many failed, as JSON."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    latencies, failed = [], 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            failed += answer.read() != b'{"status":"ok"}' or answer.status != 200
        except OSError:
            failed += 1
            connection.close()
        latencies.append(1e3 * (time.perf_counter() - began))
        time.sleep(EVERY)
    print(json.dumps({"ms": latencies, "failed": failed}))


def prober(url: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--probe", url, "--seconds", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def figures(process: subprocess.Popen[str]) -> dict[str, float]:
    found = json.loads(process.communicate(timeout=120)[0])
    ordered = sorted(found["ms"])
    last = len(ordered) - 1
    shares = {f"p{share}_ms": ordered[round(share / 100 * last)] for share in (50, 99)}
    return {"checks": len(ordered), "failed": found["failed"], **shares, "max_ms": ordered[-1]}


async def client(http: httpx.AsyncClient, load: Load, number: int, end: float) -> None:
    """One answer after another, at least one."""
    body = {"messages": [{"role": "user", "content": PROMPT}]}
    while not load.answers[number] or time.perf_counter() < end:
        began, first, text, tokens, last = time.perf_counter(), None, [], 0, ""
        try:
            async with http.stream("POST", "/chat", json=body) as response:
                async for line in response.aiter_lines():
                    if line.startswith("event: "):
                        last = line[7:]
                    elif line.startswith("data: ") and last == "token":
                        first = first or time.perf_counter() - began
                        text.append(json.loads(line[6:])["text"])
                    elif line.startswith("data: ") and last == "done":
                        tokens = json.loads(line[6:])["output_tokens"]
                    elif line.startswith("data: "):
                        last = f"{last}: {line[6:]}"
        except httpx.HTTPError as error:
            last = repr(error)
        if last != "done":
            load.failed[last or "no event"] += 1
            return
        load.answers[number] += 1
        load.tokens += tokens
        load.texts["".join(text)] += 1
        load.first.append(first or 0.0)


async def drive(url: str, clients: int, seconds: float) -> Load:
    load = Load(answers=[0] * clients)
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(client(http, load, number, began + seconds))
        load.seconds = time.perf_counter() - began
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="YAML configuration of the engine; the embedded model without it")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        probe(options.probe, options.seconds)
        return
    with serving(options.config) as (url, pid):
        httpx.post(f"{url}/chat", json={"messages": [{"role": "user", "content": PROMPT}]}, timeout=600)  # warm
        idle = figures(prober(url, min(2.0, options.seconds)))
        watch, before = prober(url, options.seconds), without_core(pid)
        load = asyncio.run(drive(url, options.clients, options.seconds))
        after = without_core(pid)
        busy = figures(watch)
    measured = {
        "clients": options.clients,
        "answers": sum(load.answers),
        "least_answers_of_a_client": min(load.answers),
        "different_texts": len(load.texts),
        "failed": dict(load.failed),
        "tokens_per_s": load.tokens / load.seconds,
        "ttft_p50_ms": 1e3 * sorted(load.first)[len(load.first) // 2] if load.first else None,
        "loop_waited_for_a_core": None if before is None or after is None else (after - before) / load.seconds,
        "health": busy,
        "health_idle": idle,
    }
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2), encoding="utf-8")
    print(
        f"{options.clients} clients: {measured['answers']} answers, {load.failed.total()} failed, "
        f"{measured['tokens_per_s']:,.0f} tokens/s, TTFT p50 {measured['ttft_p50_ms'] or 0:.0f} ms"
    )
    for name, count in load.failed.items():
        print(f"  {count} failed by {name}")
    print("| /health | checks | failed | p50, ms | p99, ms | max, ms |\n|---|---:|---:|---:|---:|---:|")
    for label, row in (("idle", idle), ("while streaming", busy)):
        cells = f"{row['checks']:.0f} | {row['failed']:.0f} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f}"
        print(f"| {label} | {cells} | {row['max_ms']:.2f} |")
    if measured["loop_waited_for_a_core"] is not None:
        print(
            f"\nThe app's loop was ready but without a core for {measured['loop_waited_for_a_core']:.0%} of the time."
        )


if __name__ == "__main__":
    main()
