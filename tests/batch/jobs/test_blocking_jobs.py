"""Provider batches without a loop: `asyncinfer.blocking`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asyncinfer.blocking import (
    BatchJob,
    BatchState,
    ConfigError,
    GenerationParams,
    ModelParams,
    NotFoundError,
    OpenAIInferenceEngine,
    RemoteParams,
    ServerError,
    TotalTimeout,
    open_engine,
)
from tests.batch.jobs.fakes import OpenAIBatches, refusal
from tests.servers.canned import CannedServer, stream


@pytest.fixture
def fake() -> OpenAIBatches:
    return OpenAIBatches()


@pytest.fixture
def server(fake: OpenAIBatches) -> Iterator[CannedServer]:
    with CannedServer(fake) as server:
        yield server


@pytest.fixture
def engine(server: CannedServer) -> Iterator[OpenAIInferenceEngine]:
    params = RemoteParams(api_url=f"{server.origin}/v1", api_key="sk-x", max_retries=0)
    with OpenAIInferenceEngine(ModelParams(model_name="gpt-4o-mini"), remote_params=params) as engine:
        yield engine


def test_there_and_back(engine, fake, monkeypatch):
    fake.status = ["in_progress", "validating", "completed"]
    seen, parts = [], []
    hot = GenerationParams(temperature=0.5)
    rows = ["a", "bad b", "c"]
    job = engine.batch.submit(iter(rows), generation=hot, max_rows=3, on_part=parts.append)
    assert isinstance(job, BatchJob)
    assert [part.to_json() for part in parts]
    assert (job.total, len(job.parts), job.provider) == (3, 1, "openai")
    assert job.status().state is BatchState.RUNNING
    assert job.wait(interval=0, on_progress=lambda now: seen.append(str(now.state))).completed == 2
    assert seen == ["queued", "completed"]
    assert [(row.index, bool(row)) for row in job.results()] == [(2, True), (0, True), (1, False)]
    assert [row.text for row in job.results(rows).all() if row] == ["re: a", "re: c"]
    fake.status = "completed"
    assert engine.batch.job(job.to_json()).results().all()[2].text == "re: c"
    assert BatchJob.from_json(job.to_json(), engine).id == job.id
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    again = BatchJob.from_json(job.to_json())
    assert again.status().ended
    again.close()


def test_many_rows_come_lazily_and_leaving_ends_the_download(engine, server):
    job = engine.batch.submit(f"q{n}" for n in range(300))
    assert sorted(row.index for row in job.results()) == list(range(300))
    for _ in job.results():
        break
    assert next(iter(job.results())).index == 299


def test_rows_before_an_error_are_given(engine, fake):
    job = engine.batch.submit(["a", "b", "c"])
    job.status()
    body = fake.files["output_file_id-batch_0"]
    lines = body.splitlines(keepends=True)
    path = "GET /v1/files/output_file_id-batch_0/content"
    fake.trouble[path] = [stream(lines[0], lines[1], "reset"), refusal(404, "gone")]
    found = []
    with pytest.raises(NotFoundError):
        for row in job.results():
            found.append(row.index)  # noqa: PERF401 -- what came before the error counts
    assert found == [2, 1]


def test_interrupted_and_gone_on_with(engine, fake):
    def break_down(job):
        if len(job.parts) == 2:
            fake.trouble["POST /v1/files"] = [refusal(500, "oops")]

    rows = ["a", "b", "c", "d"]
    with pytest.raises(ServerError) as caught:
        engine.batch.submit(rows, max_rows=1, on_part=break_down)
    job = caught.value.partial
    assert isinstance(job, BatchJob)
    assert (job.total, job.complete) == (2, False)
    job = engine.batch.submit(rows, resume=job)
    assert [row.text for row in job.results().all()] == ["re: a", "re: b", "re: c", "re: d"]
    assert len(fake.batches) == 4


def test_cancel_and_clocks(engine, fake):
    job = engine.batch.submit(["a"])
    fake.status = "in_progress"
    assert job.cancel().state is BatchState.CANCELLING
    with pytest.raises(TotalTimeout):
        job.wait(interval=0.01, timeout=0.03)
    with pytest.raises(AttributeError):
        job.nonsense  # noqa: B018


def test_engines_without_one_say_so():
    with open_engine("deepseek:x", remote_params=RemoteParams(api_key="k")) as engine:
        with pytest.raises(ConfigError, match="no batch API"):
            engine.batch.submit(["a"])
