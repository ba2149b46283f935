"""Files through the command line: the same command again always finishes the job."""

from __future__ import annotations

import json
import os
import pty
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.servers.provider import Fail


def write(path: Path, texts) -> list[str]:
    texts = list(texts)
    path.write_text("".join(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n" for text in texts))
    return texts


def answers(path: Path) -> list[str]:
    return [json.loads(line)["messages"][-1]["content"] for line in path.read_text().splitlines()]


@pytest.fixture
def files(tmp_path) -> list[str]:
    write(tmp_path / "in.jsonl", (f"question {n}" for n in range(120)))
    return ["--input_path", "in.jsonl", "--output_path", "out/answers.jsonl"]


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_file_in_order_and_once_is_enough(program, provider, at, files, tmp_path):
    done = program("infer", *files, *at)
    assert (done.returncode, done.stdout) == (0, "")
    assert answers(tmp_path / "out" / "answers.jsonl") == [f"question {n}" for n in range(120)]
    assert "120 of 120 rows answered" in done.stderr
    assert "output: " in done.stderr
    assert "Traceback" not in done.stderr
    again = program("infer", *files, *at)
    assert again.returncode == 0
    assert "already complete" in again.stderr
    assert provider.stats.served == 120
    quiet = program("infer", *files, *at, "--overwrite", "--quiet")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert provider.stats.served == 240


def test_failed_rows_are_exit_3_and_are_tried_again(program, provider, at, files, tmp_path):
    bad = Fail(status=400, match=lambda body: body["messages"][-1]["content"] in {"question 7", "question 77"})
    provider.fail.append(bad)
    done = program("infer", *files, *at)
    assert done.returncode == 3
    assert "118 of 120 rows answered, 2 FAILED" in done.stderr
    assert "answers.failures.jsonl" in done.stderr
    failures = [json.loads(line) for line in (tmp_path / "out" / "answers.failures.jsonl").read_text().splitlines()]
    assert [row["index"] for row in failures] == [7, 77]
    assert "question 7" not in answers(tmp_path / "out" / "answers.jsonl")
    provider.fail.clear()
    done = program("infer", *files, *at)
    assert done.returncode == 0
    assert provider.stats.served == 122
    assert answers(tmp_path / "out" / "answers.jsonl") == [f"question {n}" for n in range(120)]
    assert not (tmp_path / "out" / "answers.failures.jsonl").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_says_how_to_go_on_and_loses_nothing(program, provider, at, files, tmp_path, number, code):
    provider.first_token = 0.2
    slow = ["--remote_params.num_workers", "4"]
    process = program.start("infer", *files, *at, *slow)
    wait_for(lambda: provider.stats.completed >= 12)
    process.send_signal(number)
    began = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == code
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    kept = int(err.split("stopped: ")[1].split(" of ")[0])
    assert kept >= 8
    provider.first_token = 0
    served = provider.stats.served
    done = program("infer", *files, *at, *slow)
    assert done.returncode == 0
    assert f"{kept} of them earlier" in done.stderr
    assert provider.stats.served - served == 120 - kept
    assert answers(tmp_path / "out" / "answers.jsonl") == [f"question {n}" for n in range(120)]


def test_killed_three_times_on_the_embedded_model(program, tmp_path):
    capitals = ["France", "Germany", "Italy", "Spain", "Japan"]
    texts = write(tmp_path / "in.jsonl", (f"What is the capital of {capitals[n % 5]}? ({n})" for n in range(160)))
    words = ["infer", "--input_path", "in.jsonl", "--output_path", "out.jsonl", "--generation.max_new_tokens", "12"]
    journal = tmp_path / "out.jsonl.journal"
    kills = 0
    for _ in range(3):
        before = journal.stat().st_size if journal.exists() else 0
        process = program.start(*words)
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            if journal.exists() and journal.stat().st_size > before + 400:
                break
            time.sleep(0.005)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 3
    done = program(*words)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["messages"][0]["content"] for row in rows] == texts
    assert all(len(row["messages"]) == 2 and row["messages"][1]["content"] for row in rows)
    assert not journal.exists()


def test_another_temperature_is_another_job(program, provider, at, files, tmp_path):
    provider.first_token = 0.1
    process = program.start("infer", *files, *at, "--generation.temperature", "0.1")
    wait_for(lambda: provider.stats.completed >= 10)
    process.kill()
    process.communicate()
    provider.first_token = 0
    served = provider.stats.served
    done = program("infer", *files, *at, "--generation.temperature", "0.9")
    assert done.returncode == 0
    assert "earlier" not in done.stderr
    assert provider.stats.served - served == 120
    assert {request.body["temperature"] for request in list(provider.stats.requests)[-120:]} == {0.9}


def test_a_wrong_key_stops_early_and_nothing_names_it(program, provider, files, at, tmp_path):
    provider.key = "right"
    done = program("infer", *files, *at, "--remote_params.api_key", "sk-wrong-and-secret")
    assert done.returncode == 1
    assert "AuthenticationError" in done.stderr
    assert provider.stats.served < 120
    everything = done.stderr.encode() + b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-wrong-and-secret" not in everything


def test_without_an_output_path_the_rows_go_to_stdout(program, provider, at, files, tmp_path):
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write("nonsense\n")
    done = program("infer", *files[:2], *at)
    assert done.returncode == 3
    assert [json.loads(line)["messages"][-1]["content"] for line in done.stdout.splitlines()] == [
        f"question {n}" for n in range(120)
    ]
    assert '"line": 121' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_paths_in_the_configuration(program, provider, at, files, tmp_path):
    (tmp_path / "c.yaml").write_text("input_path: in.jsonl\noutput_path: o.jsonl\nprogress_path: p.json\n")
    done = program("infer", "-i", "-c", "c.yaml", *at)
    assert done.returncode == 0
    assert "-i ignored" in done.stderr
    assert len(answers(tmp_path / "o.jsonl")) == 120
    assert json.loads((tmp_path / "p.json").read_text())["completed"] == 120


def test_mistakes_are_exit_2(program, provider, at, files, tmp_path):
    cases = [
        ("is its input", ["--input_path", "in.jsonl", "--output_path", "in.jsonl"]),
        ("No such file", ["--input_path", "none.jsonl", "--output_path", "out.jsonl"]),
    ]
    (tmp_path / "bad.jsonl").write_text('{"messages": 1}\n')
    cases.append(("bad.jsonl, line 1: ", ["--input_path", "bad.jsonl", "--output_path", "out.jsonl", "--strict"]))
    for hint, words in cases:
        done = program("infer", *words, *at)
        assert done.returncode == 2
        assert hint in done.stderr
        assert "Traceback" not in done.stderr
    assert provider.stats.served == 0


def test_a_bar_is_for_terminals(program, provider, at, files):
    provider.first_token = 0.05
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:
                return
            if not data:
                return
            seen.append(data)

    program.env["TERM"] = "xterm"
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    process = program.start("infer", *files, *at, "--remote_params.num_workers", "4", stderr=theirs)
    os.close(theirs)
    assert process.wait(60) == 0
    process.stdout.close()
    reader.join(10)
    os.close(ours)
    shown = b"".join(seen).decode()
    for part in ("running", "/120", "rows/s", "tokens/s", "in flight", "left", "120 of 120 rows answered"):
        assert part in shown
