"""kill -9 at any moment, the same command again: nothing lost, nothing twice. And memory that rows do not fill."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from asyncinfer.batch.index import AnswerIndex
from asyncinfer.batch.journal import Journal
from asyncinfer.batch.plan import make_plan
from asyncinfer.batch.rows import InputFile

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(tmp_path, seed):
    rng = random.Random(seed)
    count, window = 300, 64
    source, out, calls = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "calls"
    texts = [f"q{n // 3}" for n in range(count)]  # each row three times
    source.write_text("".join(json.dumps({"messages": [{"role": "user", "content": t}]}) + "\n" for t in texts))
    command = [sys.executable, "-m", "tests.batch.echo", str(source), str(out), str(calls)]
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        journal = tmp_path / "out.jsonl.journal"
        before = journal.stat().st_size if journal.exists() else 0
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            if journal.exists() and journal.stat().st_size > before + 500:  # it has begun to answer
                break
            time.sleep(0.002)
        time.sleep(rng.random() * 0.15)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if out.exists():
            break
    assert kills
    last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    total, completed, resumed = map(int, last.stdout.split())
    assert (total, completed) == (count, count)
    assert resumed > 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    answers = [row["messages"][-1]["content"] for row in rows]
    assert [row["messages"][0]["content"] for row in rows] == texts
    assert [answer.rsplit(" #", 1)[0] for answer in answers] == texts
    assert len(set(answers)) == count  # no answer stands in two rows
    made = len(calls.read_text().splitlines())
    assert count <= made <= count + kills * window  # only what was in flight is asked again
    assert not (tmp_path / "out.jsonl.journal").exists()


def test_a_row_costs_some_ten_bytes_once_looked_up(tmp_path):
    """What stays for a row while a batch runs, and what its answer costs while the journal is read."""
    rows = 20_000
    source = tmp_path / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"messages": [{"role": "user", "content": f"{n}"}]}) + "\n" for n in range(rows))
    )
    journal = Journal(tmp_path / "journal")
    tracemalloc.start()
    try:
        steps = make_plan(InputFile(source), journal, b"s" * 16, strict=False)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                plan = end.value
                break
        kept, peak = tracemalloc.get_traced_memory()
        assert plan.total == rows
        assert kept < 16 * rows + 50_000
        assert peak < 24 * rows + 800_000  # the file's buffer
        tracemalloc.reset_peak()
        index = AnswerIndex()
        for n in range(rows):
            index.add(n.to_bytes(16, "little"), n + 21)
        assert tracemalloc.get_traced_memory()[0] - kept < 50 * rows
    finally:
        tracemalloc.stop()
        journal.close()
