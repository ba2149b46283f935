"""From a JSONL file to a job, and from the job to a JSONL file."""

from __future__ import annotations

import json

import pytest

from asyncinfer import BatchJob, ConfigError, ServerError, batch
from tests.batch.jobs.fakes import OpenAIBatches, refusal
from tests.batch.jobs.test_openai_jobs import engine_at
from tests.servers.canned import CannedServer

pytestmark = pytest.mark.anyio


def row(text: str, **more) -> str:
    return json.dumps({**more, "messages": [{"role": "user", "content": text}]})


async def test_there_and_back(tmp_path):
    source, job_file, output = tmp_path / "in.jsonl", tmp_path / "job.json", tmp_path / "out.jsonl"
    source.write_text("\n".join([row("a", id=1), "{broken", "", row("bad b"), row("c", metadata={"k": 1})]))
    with CannedServer(OpenAIBatches()) as server:
        engine = engine_at(server)
        job = await batch.submit_file(engine, source, job_file, max_rows=1)
        assert (job.total, len(job.parts)) == (4, 3)
        job = BatchJob.from_json(job_file.read_text(), engine)
        assert await batch.collect_file(job, output) == (2, 2)
        with pytest.raises(ConfigError, match="exists"):
            await batch.submit_file(engine, source, job_file)
        source.write_text("something else")
        with pytest.raises(ConfigError, match="not the file"):
            await batch.collect_file(job, output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["messages"][-1]["content"] for row in rows] == ["re: a", "re: c"]
    assert rows[0]["id"] == 1
    assert list(rows[1]["metadata"]) == ["k", "usage", "finish_reason"]
    failures = [json.loads(line) for line in (tmp_path / "out.failures.jsonl").read_text().splitlines()]
    assert [(failed["index"], failed["line"], failed["error_type"]) for failed in failures] == [
        (1, 2, "ConfigError"),
        (2, 4, "BadRequestError"),
    ]
    assert "invalid JSON" in failures[0]["message"]
    assert failures[1]["conversation"]["messages"][0]["content"] == "bad b"


async def test_what_was_paid_for_is_in_the_file_when_the_rest_fails(tmp_path):
    source, job_file = tmp_path / "in.jsonl", tmp_path / "job.json"
    source.write_text("\n".join(map(row, "abc")))
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server, max_retries=0)
        fake.trouble["POST /v1/files"] = [refusal(500, "oops")]
        with pytest.raises(ServerError):
            await batch.submit_file(engine, source, job_file)
        assert not job_file.exists()

        class Wire:
            """The second upload fails."""

            def __call__(self, request):
                if request.target == "/v1/files" and len(fake.files) == 1:
                    return refusal(500, "oops")
                return fake(request)

        server.answers = [Wire()]
        with pytest.raises(ServerError):
            await batch.submit_file(engine, source, job_file, max_rows=2)
        job = BatchJob.from_json(job_file.read_text(), engine)
        assert await batch.collect_file(job, tmp_path / "out.jsonl") == (2, 0)
