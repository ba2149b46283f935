"""TTFT, ITL, tokens/s and requests/s of any engine, over a sweep of concurrencies.

    python benchmarks/throughput.py                                        # the embedded model
    python benchmarks/throughput.py openai:gpt-4o-mini -c 1 4 16 64
    python benchmarks/throughput.py config.yaml --prompts prompts.jsonl --json out.json --plot out.png

At each concurrency ``c``, ``c`` workers send streamed requests back to back until the level's requests are used up; a
warm-up of ``c`` requests is not counted. Per request: TTFT is the time from the call to its first token, waiting for
the engine's own limiter included (shown beside it as "queued"); ITL is every gap between two deltas, pooled over all
requests; tokens are those the engine counted (``usage``), or estimates where it says so. A failed request is counted
and named, and is in no other figure. The plot goes to a PNG where matplotlib is installed, else to the terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from asyncinfer import (
    EMBEDDED_MODEL,
    AsyncInferError,
    Conversation,
    Engine,
    GenerationParams,
    InferenceConfig,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    open_engine,
)

PROMPTS = [
    "What is the capital of France?",
    "Count from 1 to 9.",
    "What is 12 plus 7?",
    "What is the capital of Japan?",
]
DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta)


@dataclass
class Level:
    """What one concurrency gave. Times in seconds."""

    concurrency: int
    wall: float = 0.0
    cpu: float = 0.0
    ttft: list[float] = field(default_factory=list)
    itl: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    tokens: int = 0
    estimated: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    def row(self) -> dict[str, float | int]:
        """The figures, in ms and per second."""
        done = len(self.total)
        figures: dict[str, float | int] = {
            "concurrency": self.concurrency,
            "requests": done,
            "failed": self.failed.total(),
            "requests_per_s": done / self.wall,
            "tokens_per_s": self.tokens / self.wall,
            "estimated": self.estimated,
            "client_cpu_us_per_token": 1e6 * self.cpu / max(1, self.tokens),
        }
        for name in ("ttft", "itl", "total", "queued"):
            values = sorted(getattr(self, name))
            for share in (50, 95, 99):
                figures[f"{name}_p{share}_ms"] = 1000 * percentile(values, share)
        return figures


def percentile(values: list[float], share: float) -> float:
    """The smallest value that ``share`` % of the (sorted) values do not exceed; NaN of nothing."""
    return values[max(0, math.ceil(len(values) * share / 100) - 1)] if values else math.nan


async def one(
    engine: Engine, conversation: Conversation, generation: GenerationParams | None, level: Level | None
) -> None:
    start = time.perf_counter()
    first = last = 0.0
    gaps: list[float] = []
    try:
        async with engine.stream(conversation, generation=generation) as stream:
            async for event in stream.events():
                if isinstance(event, DELTAS):
                    now = time.perf_counter()
                    if first:
                        gaps.append(now - last)
                    else:
                        first = now
                    last = now
            completion = await stream.completion()
    except AsyncInferError as error:
        if level is not None:
            level.failed[f"{type(error).__name__}: {error.message}"[:100]] += 1
        return
    if level is None:
        return
    level.total.append(time.perf_counter() - start)
    if first:
        level.ttft.append(first - start)
    level.itl += gaps
    level.queued.append(completion.timings.queued)
    level.tokens += completion.usage.output_tokens
    level.estimated += completion.usage.source == "estimated"


async def sweep(
    engine: Engine,
    prompts: list[Conversation],
    concurrencies: list[int],
    requests: int | None,
    generation: GenerationParams | None,
) -> list[Level]:
    levels = []
    async with engine:
        for concurrency in concurrencies:
            source = cycle(prompts)

            async def load(number: int, level: Level | None, workers: int, source=source) -> None:
                rows = islice(source, number)

                async def worker() -> None:
                    for conversation in rows:
                        await one(engine, conversation, generation, level)

                async with asyncio.TaskGroup() as group:
                    for _ in range(workers):
                        group.create_task(worker())

            level = Level(concurrency)
            await load(concurrency, None, concurrency)
            wall, cpu = time.perf_counter(), time.process_time()
            await load(requests or max(32, 8 * concurrency), level, concurrency)
            level.wall, level.cpu = time.perf_counter() - wall, time.process_time() - cpu
            levels.append(level)
            print(line(level.row()), flush=True)
            for message, times in level.failed.items():
                print(f"  {times} x {message}", file=sys.stderr)
    return levels


HEADER = """\
| c | requests | failed | req/s | tokens/s | TTFT p50/95/99 ms | ITL p50/95/99 ms | total p50/95/99 ms | queued p50 ms |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


def line(row: dict[str, float | int]) -> str:
    def three(name: str) -> str:
        return " / ".join(f"{row[f'{name}_p{share}_ms']:.1f}" for share in (50, 95, 99))

    mark = "~" if row["estimated"] else ""
    return (
        f"| {row['concurrency']} | {row['requests']} | {row['failed']} | {row['requests_per_s']:.1f} "
        f"| {mark}{row['tokens_per_s']:.0f} | {three('ttft')} | {three('itl')} | {three('total')} "
        f"| {row['queued_p50_ms']:.1f} |"
    )


def plot(rows: list[dict[str, float | int]], path: Path | None, title: str) -> None:
    """Tokens/s and TTFT against concurrency: a PNG if a path is given, else bars of text."""
    if path is None:
        most = max(row["tokens_per_s"] for row in rows) or 1
        print("\ntokens/s")
        for row in rows:
            bar = "#" * round(50 * row["tokens_per_s"] / most)
            print(f"{row['concurrency']:>6} {bar} {row['tokens_per_s']:.0f}")
        return
    try:
        import matplotlib as mpl
    except ImportError:
        raise SystemExit("a plot needs matplotlib: pip install 'asyncinfer[bench]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    x = [row["concurrency"] for row in rows]
    left.plot(x, [row["tokens_per_s"] for row in rows], marker="o")
    left.set(xlabel="concurrent requests", ylabel="tokens/s", title="throughput", xscale="log", ylim=(0, None))
    for share in (50, 95, 99):
        right.plot(x, [row[f"ttft_p{share}_ms"] for row in rows], marker="o", label=f"TTFT p{share}")
    right.plot(x, [row["itl_p50_ms"] for row in rows], marker="x", linestyle="--", label="ITL p50")
    right.set(xlabel="concurrent requests", ylabel="ms", title="latency", xscale="log", yscale="log")
    right.legend()
    for axes in (left, right):
        axes.set_xticks(x, [str(value) for value in x])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    print(f"\nplot: {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "engine", nargs="?", help="provider:model, or a YAML configuration; the embedded model if absent"
    )
    parser.add_argument("-c", "--concurrency", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument(
        "-n", "--requests", type=int, help="requests at each level; 8 x concurrency, at least 32, if absent"
    )
    parser.add_argument("--max-tokens", type=int, help="max_new_tokens of every request")
    parser.add_argument("--prompts", type=Path, help="JSONL of conversations, used in turn")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="write a PNG here (matplotlib)")
    options = parser.parse_args()

    target = options.engine
    if target is not None and target.endswith((".yaml", ".yml")):
        target = InferenceConfig.from_yaml(target)
    engine = open_engine(target)
    generation = GenerationParams(max_new_tokens=options.max_tokens) if options.max_tokens else None
    if options.prompts:
        with options.prompts.open(encoding="utf-8") as file:
            prompts = [Conversation.from_json(text) for text in file if text.strip()]
    else:
        prompts = [Conversation.from_dict({"messages": [{"role": "user", "content": text}]}) for text in PROMPTS]

    title = f"{engine.name}: {engine.model_params.model_name or EMBEDDED_MODEL}"
    print(f"{title}\n\n{HEADER}", flush=True)
    levels = asyncio.run(sweep(engine, prompts, options.concurrency, options.requests, generation))
    rows = [level.row() for level in levels]
    plot(rows, options.plot, title)
    if options.json:
        options.json.write_text(json.dumps({"engine": title, "levels": rows}, indent=1))
    return 0 if all(row["requests"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
