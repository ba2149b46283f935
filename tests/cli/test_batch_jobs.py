"""``asyncinfer batch``: a file to a provider's batch API and back, each step a program of its own."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.batch.jobs.fakes import OpenAIBatches, refusal
from tests.batch.jobs.fireworks_fake import FireworksJobs, SignedStore
from tests.batch.jobs.together_fake import Store, TogetherBatches
from tests.servers.background import eventually
from tests.servers.canned import CannedServer, Gate


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


def test_killed_and_gone_on_with(program, fake):
    """The provider takes the second part and answers never; the program is killed; it loses and pays nothing."""
    rows(program, "a", "b", "c", "d", "e")
    gate = Gate()

    def wire(request):
        answered = fake(request)
        if (request.method, request.target) == ("POST", "/v1/batches") and len(fake.batches) == 2 and not gate.reached:
            return [gate]
        return answered

    program.env["OPENAI_API_KEY"] = "sk-of-the-environment"
    with CannedServer(wire) as server:
        at = ["-m", "openai:gpt-4o-mini", "--remote_params.api_url", server.origin, "--generation.temperature", 0.5]
        process = program.start("batch", "submit", *at, "--input_path", "in.jsonl", "--max_rows", 2)
        asyncio.run(eventually(lambda: gate.reached == 1, 30.0))
        process.kill()
        process.communicate()
        saved = json.loads((program.folder / "in.job.json").read_text())
        assert ([part["id"] for part in saved["parts"]], saved["total"], saved["complete"]) == (["batch_0"], 2, False)

        done = program("batch", "submit", *at, "--input_path", "in.jsonl")
        assert (done.returncode, "--resume" in done.stderr) == (2, True)
        done = program("batch", "submit", "--resume", "in.job.json", "--generation.temperature", 1.0)
        assert (done.returncode, "other parameters" in done.stderr) == (2, True)
        done = program("batch", "submit", "--resume", "in.job.json", "--model.model_name", "gpt-9")
        assert (done.returncode, "a job of gpt-4o-mini" in done.stderr) == (2, True)
        done = program("batch", "submit", "--resume", "in.job.json")
        assert done.returncode == 0, done.stderr
        assert "5 of 5 rows submitted to openai in 3 provider jobs" in done.stderr
        done = program("batch", "submit", "--resume", "in.job.json")
        assert (done.returncode, "were submitted already" in done.stderr) == (0, True)
        done = program("batch", "results", "in.job.json", "--output_path", "out.jsonl")
        assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (program.folder / "out.jsonl").read_text().splitlines()]
    assert [row["messages"][-1]["content"] for row in found] == ["re: a", "re: b", "re: c", "re: d", "re: e"]
    sent = [row["custom_id"] for name in fake.batches for row in fake.rows(name)]
    assert sent == [f"row-{n}" for n in range(5)]


def test_an_error_in_the_middle_says_how_to_go_on(program, fake):
    rows(program, "a", "b", "c")
    broken = [True]

    def wire(request):
        if broken and request.target == "/v1/files" and len(fake.forms) == 1:
            return refusal(401, "the key was withdrawn", "invalid_api_key")
        return fake(request)

    program.env["OPENAI_API_KEY"] = "sk-of-the-environment"
    with CannedServer(wire) as server:
        at = ["-m", "openai:gpt-4o-mini", "--remote_params.api_url", server.origin]
        done = program("batch", "submit", *at, "--input_path", "in.jsonl", "--job", "j", "--max_rows", 1)
        assert done.returncode == 1
        assert "asyncinfer batch submit --resume j" in done.stderr
        broken.clear()
        (program.folder / "in.jsonl").rename(program.folder / "moved.jsonl")
        done = program("batch", "submit", "--resume", "j")
        assert done.returncode == 2
        done = program("batch", "submit", "--resume", "j", "--input_path", "moved.jsonl")
        assert done.returncode == 0, done.stderr
    assert len(fake.batches) == 3


def test_together_and_fireworks_through_their_commands(program):
    rows(program, "a", "bad b", "c")
    program.env |= {"TOGETHER_API_KEY": "tgp-secret", "FIREWORKS_API_KEY": "fw-secret", "FIREWORKS_ACCOUNT_ID": "acct"}
    disk, store = Store(), SignedStore()
    with CannedServer(disk) as there, CannedServer(store) as signed:
        together, fireworks = TogetherBatches(disk, there.origin), FireworksJobs(store, signed.origin)
        with CannedServer(together) as one, CannedServer(fireworks) as two:
            for fake, model, url in (
                (together, "together:m", f"{one.origin}/v1"),
                (fireworks, "fireworks:m", f"{two.origin}/inference/v1"),
            ):
                words = [
                    "-m",
                    model,
                    "--remote_params.api_url",
                    url,
                    "--input_path",
                    "in.jsonl",
                    "--job",
                    f"{model}.job",
                ]
                done = program("batch", "submit", *words)
                assert done.returncode == 0, done.stderr
                assert program("batch", "wait", f"{model}.job", "--interval", "0.01").returncode == 0
                status = json.loads(program("batch", "status", f"{model}.job", "--json").stdout)
                assert (status["state"], status["parts"][0]["said"]) == ("completed", "COMPLETED")
                done = program("batch", "results", f"{model}.job", "--output_path", f"{model}.jsonl")
                assert done.returncode == 3, done.stderr
                lines = (program.folder / f"{model}.jsonl").read_text().splitlines()
                assert [json.loads(line)["messages"][-1]["content"] for line in lines] == ["re: a", "re: c"]
                fake.status = fake.state = "RUNNING"
                done = program("batch", "cancel", f"{model}.job")
                assert (done.returncode, done.stdout.split(":")[0]) == (0, "cancelled")
