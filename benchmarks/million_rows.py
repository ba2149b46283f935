"""A million rows through ``generate_many`` in constant memory.

    python benchmarks/million_rows.py [--rows 1000000] [--server]

Rows are made lazily, one at a time; answers are checked (each echoes its row) and dropped. Peak memory is reported
after 1 % of the rows and at the end: the difference is what the number of rows costs. The engine is one of our own in
this process; with ``--server`` every row is an HTTP request to a server in another process (`server.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from asyncinfer import (
    Conversation,
    Engine,
    Event,
    Finish,
    FinishReason,
    ModelParams,
    RemoteInferenceEngine,
    RemoteParams,
    Request,
    Start,
    TextDelta,
)
from benchmarks.server import WORDS, serving


class Echo(Engine):
    """Answers with the last message, in one piece."""

    name = "echo"
    slots = 64

    async def produce(self, request: Request) -> AsyncIterator[Event]:
        yield Start(model="echo")
        yield TextDelta(request.conversation.messages[-1].content)
        yield Finish(FinishReason.STOP)


def rows(number: int) -> Iterator[Conversation]:
    for n in range(number):
        yield Conversation.from_dict({"messages": [{"role": "user", "content": f"row {n}"}]})


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


async def measure(engine: Engine, number: int, *, echoes: bool, ordered: bool) -> None:
    early, seen, failures, wrong = 0.0, 0, 0, 0
    wall, cpu = time.perf_counter(), time.process_time()
    async with engine:
        async for result in engine.generate_many(rows(number), ordered=ordered):
            seen += 1
            if not result:
                failures += 1
            elif result.text != (f"row {result.index}" if echoes else WORDS[0].strip()):
                wrong += 1
            if seen == max(1, number // 100):
                early = peak_mb()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    late = peak_mb()
    print(
        f"| {engine.name} | {'input order' if ordered else 'as finished'} | {seen:,} | {failures + wrong} |"
        f" {seen / wall:,.0f} | {1e6 * cpu / seen:.1f} | {early:.1f} | {late:.1f} | {late - early:+.1f} |",
        flush=True,
    )
    if seen != number or failures or wrong:
        message = f"{number} rows in, {seen} out, {failures} failed, {wrong} wrong"
        raise SystemExit(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--server", action="store_true", help="over loopback HTTP instead of in process")
    parser.add_argument("--unordered", action="store_true", help="results as they finish, not in input order")
    options = parser.parse_args()
    print("| engine | order | rows | failed | rows/s | CPU us/row | peak RSS at 1 % MB | at the end | growth |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    if not options.server:
        asyncio.run(measure(Echo(), options.rows, echoes=True, ordered=not options.unordered))
        return
    with serving() as url:
        remote = RemoteParams(api_url=f"{url}/1/0/v1", api_key="sk-bench", num_workers=64, use_streaming=False)
        engine = RemoteInferenceEngine(ModelParams(model_name="bench"), remote_params=remote)
        asyncio.run(measure(engine, options.rows, echoes=False, ordered=not options.unordered))


if __name__ == "__main__":
    main()
