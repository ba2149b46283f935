"""``asyncinfer batch``: a file to a provider's batch API and back, each step a program of its own."""

from __future__ import annotations

import json

import pytest

from tests.batch.jobs.fakes import OpenAIBatches
from tests.servers.canned import CannedServer


@pytest.fixture
def fake():
    return OpenAIBatches()


@pytest.fixture
def at(fake, program):
    program.env["OPENAI_API_KEY"] = "sk-of-the-environment"
    with CannedServer(fake) as server:
        yield ["-m", "openai:gpt-4o-mini", "--remote_params.api_url", server.origin]


def rows(program, *texts: str) -> None:
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in texts]
    (program.folder / "in.jsonl").write_text("\n".join(lines))


def test_submit_wait_results(program, fake, at):
    rows(program, "a", "bad b", "c")
    done = program("batch", "submit", *at, "--input_path", "in.jsonl", "--generation.max_new_tokens", 5)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "in.job.json"
    assert "3 of 3 rows submitted to openai" in done.stderr
    job = (program.folder / "in.job.json").read_text()
    assert "sk-of-the-environment" not in job
    assert json.loads(next(iter(fake.files.values())).splitlines()[0])["body"]["max_completion_tokens"] == 5

    fake.status = "in_progress"
    done = program("batch", "status", "in.job.json")
    assert (done.returncode, done.stdout) == (0, "running: 0 of 3 rows done\n")
    done = program("batch", "results", "in.job.json", "--output_path", "out.jsonl")
    assert done.returncode == 1
    assert "has not ended" in done.stderr

    fake.status = ["in_progress", "completed"]
    done = program("batch", "wait", "in.job.json", "--interval", "0.01")
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["running: 0 of 3 rows done", "completed: 2 of 3 rows done, 1 failed"]

    fake.status = "completed"
    done = program("batch", "status", "in.job.json", "--json")
    assert json.loads(done.stdout)["parts"] == [{"id": "batch_0", "state": "completed", "said": "completed"}]
    done = program("batch", "results", "in.job.json", "--output_path", "out.jsonl")
    assert done.returncode == 3, done.stderr
    found = [json.loads(line) for line in (program.folder / "out.jsonl").read_text().splitlines()]
    assert [row["messages"][-1]["content"] for row in found] == ["re: a", "re: c"]
    assert json.loads((program.folder / "out.failures.jsonl").read_text())["index"] == 1


def test_cancel_and_what_is_finished(program, fake, at):
    rows(program, "a", "b")
    assert program("batch", "submit", *at, "--input_path", "in.jsonl", "--job", "j").returncode == 0
    fake.status = "in_progress"
    done = program("batch", "cancel", "j")
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "cancelling")
    fake.status, fake.done = "cancelled", 1
    done = program("batch", "results", "j", "--output_path", "out.jsonl")
    assert done.returncode == 3
    assert len((program.folder / "out.jsonl").read_text().splitlines()) == 1


def test_what_the_user_can_mend(program, at):
    rows(program, "a")
    assert program("batch", "submit", *at).returncode == 2
    done = program("batch", "submit", "--engine", "LLAMACPP", "--input_path", "in.jsonl")
    assert done.returncode == 2
    assert "no batch API" in done.stderr
    done = program("batch", "status", "missing.json")
    assert (done.returncode, "cannot read the job missing.json" in done.stderr) == (2, True)
    (program.folder / "x.json").write_text("{}")
    assert program("batch", "status", "x.json").returncode == 2
