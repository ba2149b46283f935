"""Gemini's batches: a file up that survives faults, an operation, a file down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asyncinfer import (
    APIError,
    BadRequestError,
    BatchJob,
    BatchState,
    ConfigError,
    FinishReason,
    GenerationParams,
    GoogleGeminiInferenceEngine,
    GoogleVertexInferenceEngine,
    ModelParams,
    OverloadedError,
    ProtocolError,
    RemoteParams,
    ServerError,
    TransportError,
    batch,
)
from tests.batch.jobs.gemini_fake import GeminiBatches, refusal
from tests.servers.canned import CannedServer, answer

pytestmark = pytest.mark.anyio
CREATE = "POST /v1beta/models/gemini-x:batchGenerateContent"


@contextmanager
def served(fake: GeminiBatches) -> Iterator[CannedServer]:
    with CannedServer(fake) as server:
        fake.origin = server.origin
        yield server


def engine_at(server: CannedServer, **remote) -> GoogleGeminiInferenceEngine:
    params = RemoteParams(api_url=f"{server.origin}/v1beta", api_key="AIza-very-secret", **remote)
    return GoogleGeminiInferenceEngine(ModelParams(model_name="gemini-x"), remote_params=params)


async def test_from_conversations_to_answers():
    fake = GeminiBatches()
    with served(fake) as server:
        engine = engine_at(server)
        rows = ["one", "bad two", "lost three", "four", "busy five", "shut six"]
        job = await batch.submit(engine, rows, generation=GenerationParams(max_new_tokens=9), max_rows=4)
        assert [(part.id, part.rows) for part in job.parts] == [("batches/b0", 4), ("batches/b1", 2)]
        text = job.to_json()
        assert "AIza" not in text
        job = BatchJob.from_json(text, engine)
        status = await job.wait(interval=0)
        assert (status.state, status.completed, status.failed) == (BatchState.COMPLETED, 3, 2)
        results = await job.results(rows)
    sent = [json.loads(line) for line in fake.files["files/u1"].splitlines()]
    assert sent[0] == {
        "key": "row-0",
        "request": {
            "contents": [{"role": "user", "parts": [{"text": "one"}]}],
            "generationConfig": {"maxOutputTokens": 9},
        },
    }
    assert {made["model"] for made in fake.batches.values()} == {"models/gemini-x"}
    assert len({made["displayName"] for made in fake.batches.values()}) == 2
    assert fake.starts[0].json["file"]["displayName"] == fake.batches["batches/b0"]["displayName"]
    assert [row.index for row in results] == list(range(6))
    assert (results[0].text, results[3].text) == ("re: one", "re: four")
    assert (results[0].finish_reason, results[0].usage.input_tokens, results[0].usage.output_tokens) == ("stop", 3, 2)
    assert [message.text for message in results[3].conversation.messages] == ["four", "re: four"]
    assert isinstance(results[1].error, BadRequestError)
    assert (results[1].error.message, results[1].error.status, results[1].error.retryable) == ("too rude", 400, False)
    assert (results[2].error.code, results[2].error.retryable) == ("batch_completed", True)
    assert isinstance(results[4].error, OverloadedError)
    assert (results[4].error.status, results[4].error.retryable) == (503, True)
    assert results[5].finish_reason is FinishReason.CONTENT_FILTER


async def test_an_upload_goes_on_where_it_broke():
    fake = GeminiBatches()
    fake.cuts = [1000, 0, 5000]
    with served(fake) as server:
        job = await batch.submit(engine_at(server, max_retries=5), [f"{n} {'x' * 200}" for n in range(40)])
        assert len(await job.results()) == 40
    assert len(fake.starts) == 1
    size = len(fake.files["files/u1"])
    assert [(start, count) for _, start, count in fake.uploads] == [
        (0, size),
        (1000, size - 1000),
        (1000, size - 1000),
        (6000, size - 6000),
    ]


async def test_an_upload_whose_end_was_lost_begins_again():
    fake = GeminiBatches()
    fake.forgets = 1
    with served(fake) as server:
        job = await batch.submit(engine_at(server), ["a"])
        assert [row.text for row in await job.results()] == ["re: a"]
        assert (len(fake.starts), list(fake.batches)) == (2, ["batches/b0"])
        fake.forgets = 2
        with pytest.raises(ProtocolError, match="upload"):
            await batch.submit(engine_at(server), ["a"])


async def test_an_upload_that_breaks_each_time_fails_typed():
    fake = GeminiBatches()
    fake.cuts = [10] * 9
    with served(fake) as server:
        with pytest.raises(TransportError):
            await batch.submit(engine_at(server, max_retries=2), ["a"])
        assert (len(fake.uploads), fake.batches) == (3, {})


async def test_an_upload_elsewhere_gets_no_key():
    fake, other = GeminiBatches(), GeminiBatches()
    with served(fake) as server, CannedServer(other) as elsewhere:
        fake.origin = elsewhere.origin
        other.starts, other.partly, other.files, other.ended = fake.starts, fake.partly, fake.files, fake.ended
        job = await batch.submit(engine_at(server, extra_headers={"x-mine": "secret"}), ["a"])
        assert [row.text for row in await job.results()] == ["re: a"]
        [request] = elsewhere.requests
        assert not {"x-goog-api-key", "authorization", "x-mine"} & set(request.headers)
        assert server.requests[-1].headers["x-mine"] == "secret"


async def test_a_creation_that_may_have_worked_is_looked_for():
    fake = GeminiBatches()
    with served(fake) as server:
        engine = engine_at(server)
        fake.trouble[CREATE] = [refusal(500, "oops", "INTERNAL")]
        fake.created_silently = True
        job = await batch.submit(engine, ["a"])
        assert (job.parts[0].id, len(fake.batches)) == ("batches/b0", 1)
        fake.trouble[CREATE] = [refusal(500, "oops", "INTERNAL")]
        fake.created_silently = False
        with pytest.raises(ServerError):
            await batch.submit(engine, ["a"])
        assert len(fake.batches) == 1
        fake.trouble[CREATE] = [refusal(429, "slow down", "RESOURCE_EXHAUSTED")]  # nothing was made: tried again
        await batch.submit(engine, ["a"])
        assert len(fake.batches) == 2


async def test_what_was_taken_but_not_told_is_not_sent_again():
    fake = GeminiBatches()
    saved = []
    with served(fake) as server:
        engine = engine_at(server, max_retries=0)

        def lose(job: BatchJob) -> None:
            saved.append(job.to_json())
            fake.created_silently = True
            fake.trouble[CREATE] = [refusal(500, "oops", "INTERNAL")]
            fake.trouble["GET /v1beta/batches"] = [refusal(500, "oops", "INTERNAL")]

        with pytest.raises(ServerError):
            await batch.submit(engine, ["a", "b", "c", "d"], max_rows=2, on_part=lose)
        fake.created_silently = False
        assert (len(saved), len(fake.batches), len(fake.starts)) == (1, 2, 2)
        job = await batch.submit(engine, ["a", "b", "c", "d"], resume=BatchJob.from_json(saved[0], engine))
        assert [part.id for part in job.parts] == ["batches/b0", "batches/b1"]
        assert len(fake.starts) == 2
        assert [row.text for row in await job.results()] == ["re: a", "re: b", "re: c", "re: d"]


async def test_states_old_and_new():
    fake = GeminiBatches()
    with served(fake) as server:
        job = await batch.submit(engine_at(server), ["a", "b"])
        fake.state = ["BATCH_STATE_PENDING", "JOB_STATE_RUNNING", "BATCH_STATE_NOVEL", "BATCH_STATE_RETIRED"]
        seen = []
        status = await job.wait(interval=0, on_progress=lambda status: seen.append(status.parts[0].state.value))
        assert seen == ["queued", "running", "running", "completed"]
        assert status.parts[0].said == "BATCH_STATE_RETIRED"
        assert [row.text for row in await job.results()] == ["re: a", "re: b"]


async def test_cancelled_and_expired_jobs_give_what_was_finished():
    fake = GeminiBatches()
    with served(fake) as server:
        engine = engine_at(server)
        fake.state, fake.done = "BATCH_STATE_RUNNING", 1
        job = await batch.submit(engine, ["a", "b"])
        assert [row async for row in job.results(partial=True)] == []
        assert (await job.cancel()).state is BatchState.CANCELLED
        assert server.requests[-2].target == "/v1beta/batches/b0:cancel"
        first, second = await job.results()
        assert (first.text, second.error.code) == ("re: a", "batch_cancelled")
        fake.state = "BATCH_STATE_EXPIRED"
        first, second = await BatchJob.from_json(job.to_json(), engine).results()
        assert (first.text, second.error.code) == ("re: a", "batch_expired")


async def test_a_job_that_failed_says_why():
    fake = GeminiBatches()
    with served(fake) as server:
        job = await batch.submit(engine_at(server), ["a"])
        fake.state, fake.error = "BATCH_STATE_FAILED", {"code": 3, "message": "line 1 is no request"}
        status = await job.wait(interval=0)
        assert (status.state, status.parts[0].reason) == (BatchState.FAILED, "line 1 is no request")
        [failure] = await job.results()
        assert "line 1 is no request" in failure.error.message
        assert not failure.error.retryable


async def test_lines_that_are_none():
    fake = GeminiBatches()
    odd = b'\n{broken\n{"key":"row-7","response":{}}\n{"key":"row-0"}\n{"response":{}}\n{"key":"row-1","error":"x"}\n'
    with served(fake) as server:
        job = await batch.submit(engine_at(server), ["a", "b"])
        fake.trouble["GET /download/v1beta/files/batch-b0:download"] = [answer(odd)]
        first, second = await job.results()
        assert isinstance(first.error, APIError)
        assert isinstance(second.error, APIError)


async def test_an_upload_without_a_place_is_an_error():
    fake = GeminiBatches()
    with served(fake) as server:
        fake.trouble["POST /upload/v1beta/files"] = [answer(b"{}")]
        with pytest.raises(ProtocolError, match="upload"):
            await batch.submit(engine_at(server), ["a"])


async def test_vertex_says_that_it_has_none():
    params = RemoteParams(api_key="ya29.x", project_id="p", region="us-central1")
    engine = GoogleVertexInferenceEngine(ModelParams(model_name="gemini-x"), remote_params=params)
    with pytest.raises(ConfigError, match="no batch API that asyncinfer speaks"):
        await batch.submit(engine, ["a"])
