"""Fireworks' batch inference: datasets, a job that has the model, signed URLs that run out."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from asyncinfer import (
    APIError,
    BadRequestError,
    BatchJob,
    BatchState,
    ConfigError,
    FireworksInferenceEngine,
    GenerationParams,
    ModelParams,
    RemoteParams,
    batch,
)
from tests.batch.jobs.fireworks_fake import ACCOUNT, FireworksJobs, SignedStore, status
from tests.servers.canned import CannedServer, answer, head

pytestmark = pytest.mark.anyio
MODEL = "accounts/fireworks/models/llama-v3p1-8b-instruct"


@pytest.fixture(autouse=True)
def no_account(monkeypatch):
    monkeypatch.delenv("FIREWORKS_ACCOUNT_ID", raising=False)
    monkeypatch.setattr("asyncinfer.engines.jobs.fireworks._PAUSE", 0.0)


@pytest.fixture
def store() -> SignedStore:
    return SignedStore()


@pytest.fixture
def fake(store: SignedStore) -> Iterator[FireworksJobs]:
    with CannedServer(store) as server:
        yield FireworksJobs(store, server.origin)


@pytest.fixture
def server(fake: FireworksJobs) -> Iterator[CannedServer]:
    with CannedServer(fake) as server:
        yield server


def engine_at(server: CannedServer, **remote: object) -> FireworksInferenceEngine:
    params = RemoteParams(api_url=f"{server.origin}/inference/v1", api_key="fw-secret", **remote)
    return FireworksInferenceEngine(ModelParams(model_name=MODEL), remote_params=params)


async def test_from_conversations_to_answers(fake, server):
    engine = engine_at(server)
    fake.uploading = 3
    rows = ["one", "bad two", "lost three", "four"]
    job = await batch.submit(engine, rows, generation=GenerationParams(max_new_tokens=7), max_rows=3)
    assert [part.id.rpartition("/")[0] for part in job.parts] == [f"{ACCOUNT}/batchInferenceJobs"] * 2
    job = BatchJob.from_json(job.to_json(), engine)
    found = await job.wait(interval=0)
    assert (found.state, found.total, found.completed, found.failed) == (BatchState.COMPLETED, 4, 2, 1)
    results = await job.results(rows)
    assert [bool(row) for row in results] == [True, False, False, True]
    assert (results[0].text, results[3].text) == ("re: one", "re: four")
    assert (results[0].usage.input_tokens, results[0].finish_reason) == (3, "stop")
    assert (results[1].error.code, results[1].error.message) == ("bad_words", "too rude")
    assert results[2].error.code == "batch_completed"

    name, rows_sent = next(iter(fake.rows.items()))
    assert json.loads(rows_sent.splitlines()[0]) == {
        "custom_id": "row-0",
        "body": {"messages": [{"role": "user", "content": "one"}], "max_tokens": 7},
    }
    assert fake.datasets[name]["exampleCount"] == "3"
    made = next(r for r in server.requests if "batchInferenceJobs?" in r.target)
    assert made.json == {"model": MODEL, "inputDatasetId": f"{ACCOUNT}/datasets/{name}"}


async def test_signed_urls_get_no_key_and_are_asked_for_anew(fake, store, server):
    job = await batch.submit(engine_at(server), ["a", "b"])
    await job.status()
    fake.store.valid += 1  # what `status` may have seen has run out meanwhile
    assert [row.text for row in await job.results()] == ["re: a", "re: b"]
    assert [row.text for row in await job.results()] == ["re: a", "re: b"]
    assert store.requests
    assert not any("fw-secret" in str(request.headers) for request in store.requests)
    body = store.files["dataset/bij-0/BIJOutputSet.jsonl"]
    store.trouble = [[head(200, {"content-length": str(len(body))}), body[: len(body) // 2], "reset"]]
    assert [row.text for row in await job.results()] == ["re: a", "re: b"]


async def test_the_account(fake, server, monkeypatch):
    fake.accounts = ["accounts/other", ACCOUNT]
    engine = engine_at(server)
    with pytest.raises(ConfigError, match="opens 2 accounts: set the environment variable FIREWORKS_ACCOUNT_ID"):
        await batch.submit(engine, ["a"])
    fake.accounts = []
    with pytest.raises(ConfigError, match="FIREWORKS_ACCOUNT_ID"):
        await batch.submit(engine, ["a"])
    monkeypatch.setenv("FIREWORKS_ACCOUNT_ID", "acct")
    job = await batch.submit(engine, ["a"])
    monkeypatch.delenv("FIREWORKS_ACCOUNT_ID")  # the job knows
    assert (await BatchJob.from_json(job.to_json(), engine).results())[0].text == "re: a"


async def test_making_twice_makes_one(fake, server):
    engine = engine_at(server)
    fake.silently = True
    cut = [head(200, {"content-length": "500"}), b'{"na', "reset"]
    fake.trouble[f"POST {ACCOUNT}/datasets"] = [cut, status(503, "busy", 14)]
    fake.trouble[f"POST {ACCOUNT}/batchInferenceJobs"] = [cut, status(500, "oops", 13)]
    job = await batch.submit(engine, ["a"])
    assert (len(fake.datasets), len(fake.jobs)) == (1, 1)
    assert (await job.results())[0].text == "re: a"


async def test_an_upload_whose_answer_was_lost(fake, server):
    name = ""

    def wire(request):
        nonlocal name
        if not request.target.endswith(":upload"):
            return fake(request)
        if name:
            return status(400, "the dataset has its files already", 9)
        name = request.target
        fake(request)
        return [head(200, {"content-length": "500"}), b'{"id', "reset"]

    server.answers = [wire]
    job = await batch.submit(engine_at(server), ["a"])
    assert (len(fake.jobs), (await job.results())[0].text) == (1, "re: a")


async def test_what_is_refused(fake, server):
    engine = engine_at(server)
    fake.trouble[f"POST {ACCOUNT}/batchInferenceJobs"] = [status(400, "model is not served in batches", 3)]
    with pytest.raises(BadRequestError, match="not served in batches"):
        await batch.submit(engine, ["a"])
    assert not fake.datasets  # the rows are not left behind
    fake.complaint = {"code": "INVALID_ARGUMENT", "message": "line 1: no messages"}
    fake.uploading = 5
    with pytest.raises(APIError, match="line 1: no messages") as caught:
        await batch.submit(engine, ["a"])
    assert not caught.value.retryable


async def test_states(fake, server):
    job = await batch.submit(engine_at(server), ["a", "b"])
    fake.state = ["VALIDATING", "PENDING", "RUNNING", "WRITING_RESULTS", "A_NEW_WORD", "EXPIRED"]
    fake.done = 1
    seen = []
    found = await job.wait(interval=0, on_progress=lambda found: seen.append(str(found.state)))
    assert seen == ["queued", "queued", "running", "running", "running", "expired"]
    assert (found.parts[0].said, found.completed) == ("EXPIRED", 1)
    results = await job.results()
    assert (results[0].text, results[1].error.code) == ("re: a", "batch_expired")

    fake.state = "FAILED"
    job = await batch.submit(engine_at(server), ["a"])
    found = await job.wait(interval=0)
    assert (found.state, found.parts[0].reason) == (BatchState.FAILED, "row 1: invalid role")
    assert "invalid role" in str((await job.results())[0].error)


async def test_cancelling_deletes(fake, server):
    fake.state = "RUNNING"
    job = await batch.submit(engine_at(server), ["a", "b"])
    assert (await job.cancel()).state is BatchState.CANCELLED
    assert [row.error.code for row in await job.results()] == ["batch_cancelled"] * 2
    fake.jobs.clear()  # the provider has cleaned up
    again = BatchJob.from_json(job.to_json(), engine_at(server))
    assert (await again.status()).state is BatchState.CANCELLED
    assert (await again.cancel()).parts[0].said == "DELETED"


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ({"custom_id": "row-0", "response": {"status_code": 200, "body": "CHAT"}}, None, "hi"),
        ({"custom_id": "row-0", "response": {"status_code": 429, "body": {"error": {"code": "slow"}}}}, "slow", None),
        ({"custom_id": "row-0", "error": "it broke"}, None, None),
        ({"custom_id": "row-0", "response": {"error": {"message": "m", "code": "c"}}}, "c", None),
        ({"custom_id": "row-0", "response": None}, None, None),
        ({"custom_id": "row-0"}, None, None),
    ],
)
async def test_other_shapes_of_lines(fake, server, line, code, text):
    from tests.batch.jobs.fakes import chat

    raw = json.dumps(line).replace('"CHAT"', json.dumps(chat("hi"))).encode() + b"\n"
    fake.outcome = lambda name: ([], [raw])
    job = await batch.submit(engine_at(server), ["a"])
    (row,) = await job.results()
    if text is not None:
        assert row.text == text
    else:
        assert not row
        assert row.error.code == code
        assert row.error.message


async def test_a_store_that_refuses_quotes_no_signature(store, server, caplog):
    job = await batch.submit(engine_at(server), ["a"])
    store.trouble = [answer(b"<Error><Code>AccessDenied</Code></Error>", 403)]
    with pytest.raises(APIError) as caught:
        await job.results()
    assert "Signature" not in f"{caught.value!r} {caught.value} {caplog.text}"
