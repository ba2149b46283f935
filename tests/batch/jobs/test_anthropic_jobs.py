"""Anthropic's Message Batches: one document up, counts, a JSONL of results down."""

from __future__ import annotations

import json

import pytest

from asyncinfer import (
    AnthropicInferenceEngine,
    BadRequestError,
    BatchJob,
    BatchState,
    GenerationParams,
    ModelParams,
    RemoteParams,
    RetryKind,
    ServerError,
    batch,
)
from tests.batch.jobs.fakes import AnthropicBatches, refusal
from tests.servers.canned import CannedServer

pytestmark = pytest.mark.anyio


def engine_at(server: CannedServer) -> AnthropicInferenceEngine:
    params = RemoteParams(api_url=f"{server.origin}/v1", api_key="sk-ant-test")
    return AnthropicInferenceEngine(ModelParams(model_name="claude-sonnet-4-5"), remote_params=params)


async def test_from_conversations_to_answers():
    fake = AnthropicBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        rows = ["one", "bad two", "old three", "off four", "lost five", "six"]
        job = await batch.submit(engine, rows, generation=GenerationParams(max_new_tokens=9), max_rows=4)
        assert [(part.id, part.rows) for part in job.parts] == [("msgbatch_0", 4), ("msgbatch_1", 2)]
        job = BatchJob.from_json(job.to_json(), engine)
        status = await job.wait(interval=0)
        assert (status.state, status.completed, status.failed) == (BatchState.EXPIRED, 2, 3)
        results = await job.results(rows)
    sent = fake.batches["msgbatch_0"]["requests"]
    assert sent[0]["custom_id"] == "row-0"
    assert (sent[0]["params"]["model"], sent[0]["params"]["max_tokens"]) == ("claude-sonnet-4-5", 9)
    assert "stream" not in sent[0]["params"]
    assert [row.index for row in results] == list(range(6))
    assert (results[0].text, results[5].text) == ("re: one", "re: six")
    assert (results[0].finish_reason, results[0].usage.input_tokens, results[0].usage.output_tokens) == ("stop", 3, 2)
    assert [message.text for message in results[5].conversation.messages] == ["six", "re: six"]
    assert isinstance(results[1].error, BadRequestError)
    assert [(row.error.code, row.error.retry) for row in results[2:5]] == [
        ("expired", RetryKind.TRANSIENT),
        ("canceled", RetryKind.TRANSIENT),
        ("batch_completed", RetryKind.TRANSIENT),
    ]


async def test_the_key_goes_to_the_provider_only():
    fake = AnthropicBatches()  # its results_url leads elsewhere: it is not followed
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a"])
        assert (await job.results())[0].text == "re: a"
        assert server.requests[-1].target == "/v1/messages/batches/msgbatch_0/results"


async def test_rows_are_split_at_a_size():
    fake = AnthropicBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        await batch.submit(engine, ["a", "b"])
        size = len(server.requests[-1].body)
        await batch.submit(engine, ["a", "b", "c"], max_bytes=size)
        assert [len(request.body) <= size for request in server.requests] == [True] * 3
        assert [len(made["requests"]) for made in fake.batches.values()] == [2, 2, 1]
        json.loads(server.requests[-1].body)


async def test_waiting_and_cancelling():
    fake = AnthropicBatches()
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a", "off b"])
        fake.status = "in_progress"
        assert (await job.cancel()).state is BatchState.CANCELLING
        assert [r.target for r in server.requests].count("/v1/messages/batches/msgbatch_0/cancel") == 1
        fake.status = ["canceling", "a_new_word", "ended"]
        seen = []
        status = await job.wait(interval=0, on_progress=lambda status: seen.append(str(status.state)))
        assert seen == ["cancelling", "running", "cancelled"]
        assert status.state is BatchState.CANCELLED
        results = await job.results()
        assert [bool(row) for row in results] == [True, False]


async def test_a_creation_that_may_have_worked_is_not_repeated():
    fake = AnthropicBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        fake.trouble["POST /v1/messages/batches"] = [refusal(529, "overloaded"), refusal(500, "oops")]
        with pytest.raises(ServerError):
            await batch.submit(engine, ["a"])
        assert not fake.batches
        assert len(server.requests) == 2
