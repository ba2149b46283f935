"""Together's batch API: the file goes where a redirect says."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from asyncinfer import (
    APIError,
    BatchJob,
    BatchState,
    GenerationParams,
    ModelParams,
    PermissionDeniedError,
    ProtocolError,
    RemoteParams,
    ServerError,
    TogetherInferenceEngine,
    TransportError,
    batch,
)
from tests.batch.jobs.fakes import refusal
from tests.batch.jobs.together_fake import Store, TogetherBatches
from tests.servers.canned import CannedServer, answer, head

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def fake(store: Store) -> Iterator[TogetherBatches]:
    with CannedServer(store) as server:
        yield TogetherBatches(store, server.origin)


@pytest.fixture
def server(fake: TogetherBatches) -> Iterator[CannedServer]:
    with CannedServer(fake) as server:
        yield server


def engine_at(server: CannedServer, **remote: object) -> TogetherInferenceEngine:
    params = RemoteParams(
        api_url=f"{server.origin}/v1", api_key="tgp-secret", extra_headers={"x-mine": "my-secret"}, **remote
    )
    return TogetherInferenceEngine(ModelParams(model_name="org/model"), remote_params=params)


async def test_from_conversations_to_answers(fake, store, server):
    engine = engine_at(server)
    rows = ["one", "bad two", "lost three", "four"]
    job = await batch.submit(engine, rows, generation=GenerationParams(max_new_tokens=7), max_rows=3)
    job = BatchJob.from_json(job.to_json(), engine)
    status = await job.wait(interval=0)
    assert (status.state, status.total, status.fraction) == (BatchState.COMPLETED, 4, 1.0)
    results = await job.results(rows)
    assert [bool(row) for row in results] == [True, False, False, True]
    assert (results[0].text, results[3].text) == ("re: one", "re: four")
    assert (results[0].usage.input_tokens, results[0].finish_reason) == (3, "stop")
    assert (results[1].error.code, results[1].error.message) == ("bad_words", "too rude")
    assert results[2].error.code == "batch_completed"

    form = fake.uploads[0]
    assert (form["purpose"], form["file_type"]) == ("batch-api", "jsonl")
    assert form["file_name"].endswith(".jsonl")
    assert len({upload["file_name"] for upload in fake.uploads}) == 2
    lines = [json.loads(line) for line in store.files["file-1"].splitlines()]
    assert lines[0] == {
        "custom_id": "row-0",
        "body": {"model": "org/model", "messages": [{"role": "user", "content": "one"}], "max_tokens": 7},
    }
    made = next(json.loads(r.body) for r in server.requests if (r.method, r.target) == ("POST", "/v1/batches"))
    assert made == {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    order = [f"{r.method} {r.target}" for r in server.requests[:3]]
    assert order == ["POST /v1/files", "POST /v1/files/file-1/preprocess", "POST /v1/batches"]


async def test_no_credentials_where_the_redirect_leads(store, server):
    await batch.submit(engine_at(server), ["a"])
    for request in store.requests:
        assert "secret" not in str(request.headers)
        assert request.method == "PUT"
        assert int(request.headers["content-length"]) == len(request.body)
    assert all(request.headers["authorization"] == "Bearer tgp-secret" for request in server.requests)


async def test_an_upload_is_tried_again_and_says_no_secrets(fake, store, server, caplog):
    engine = engine_at(server)
    store.trouble = [answer(b"slow down", 503), ["reset"]]
    await batch.submit(engine, ["a"])
    assert len(store.requests) == 3
    assert len(fake.batches) == 1
    store.trouble = [answer(b"<Error><Code>SignatureDoesNotMatch</Code></Error>", 403)]
    with pytest.raises(PermissionDeniedError) as caught:
        await batch.submit(engine, ["a"])
    assert "s3cr3t" not in f"{caught.value!r} {caught.value} {caplog.text}"
    assert len(fake.batches) == 1


@pytest.mark.parametrize("lost", [{"X-Together-File-Id": "f"}, {"Location": "http://x.invalid"}, {}])
async def test_a_redirect_without_directions(fake, server, lost):
    fake.trouble["POST /v1/files"] = [answer(b"", 302, lost)]
    with pytest.raises(ProtocolError, match="where the file goes"):
        await batch.submit(engine_at(server), ["a"])


async def test_files_that_are_refused(fake, server):
    fake.trouble["POST /v1/files"] = [refusal(401, "Invalid API key provided", "invalid_api_key")]
    with pytest.raises(APIError, match="Invalid API key"):
        await batch.submit(engine_at(server), ["a"])


async def test_nothing_goes_in_clear_that_came_in_cipher():
    from asyncinfer.engines.jobs.door import Door

    engine = TogetherInferenceEngine(ModelParams(model_name="m"), remote_params=RemoteParams(api_key="k"))
    door: Door = engine.batch.door
    with pytest.raises(TransportError, match="not encrypted") as caught:
        await door.once("PUT", "http://127.0.0.1:9/bucket?s=s3cr3t", b"rows")
    assert not caught.value.retryable
    assert "s3cr3t" not in str(caught.value)


async def test_a_batch_whose_creation_was_not_heard_of_is_found(fake, server):
    engine = engine_at(server)
    fake.trouble["POST /v1/batches"] = [refusal(500, "oops")]
    with pytest.raises(ServerError):
        await batch.submit(engine, ["a"])
    assert not fake.batches
    fake.created_silently = True
    fake.trouble["POST /v1/batches"] = [[head(201, {"content-length": "500"}), b'{"job', "reset"]]
    job = await batch.submit(engine, ["a"])
    assert (job.parts[0].id, len(fake.batches)) == ("batch-0", 1)


async def test_progress_cancel_and_failure(fake, server):
    job = await batch.submit(engine_at(server), ["a", "b", "c", "d"])
    fake.status, fake.progress = ["VALIDATING", "IN_PROGRESS"], 50.0
    assert (await job.status()).state is BatchState.QUEUED
    status = await job.status()
    assert (status.state, status.completed, status.fraction) == (BatchState.RUNNING, 2, 0.5)
    fake.status, fake.done = "IN_PROGRESS", 1
    assert (await job.cancel()).state is BatchState.CANCELLED
    results = await job.results()
    assert [bool(row) for row in results] == [True, False, False, False]
    assert results[2].error.code == "batch_cancelled"

    fake.status, fake.error = "FAILED", "line 1: model not found"
    job = await batch.submit(engine_at(server), ["a"])
    status = await job.wait(interval=0)
    assert (status.state, status.parts[0].reason) == (BatchState.FAILED, "line 1: model not found")
    assert "model not found" in str((await job.results())[0].error)
