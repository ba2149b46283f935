"""OpenAI's batch API, which others speak too: files up, jobs, files down."""

from __future__ import annotations

import json

import pytest

from asyncinfer import (
    AsyncInferError,
    BadRequestError,
    BatchJob,
    BatchState,
    ConfigError,
    Conversation,
    EngineError,
    GenerationParams,
    ModelParams,
    NotFoundError,
    OpenAIInferenceEngine,
    RemoteInferenceEngine,
    RemoteParams,
    RetryKind,
    ServerError,
    TotalTimeout,
    batch,
)
from tests.batch.jobs.fakes import OpenAIBatches, chat, refusal
from tests.servers.canned import CannedServer, answer, head

pytestmark = pytest.mark.anyio


def engine_at(server: CannedServer, **remote) -> OpenAIInferenceEngine:
    params = RemoteParams(api_url=f"{server.origin}/v1", api_key="sk-very-secret-key", **remote)
    return OpenAIInferenceEngine(ModelParams(model_name="gpt-4o-mini"), remote_params=params)


async def test_from_conversations_to_answers():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        asked = [
            "one",
            "bad two",
            "lost three",
            Conversation.from_dict({"messages": [{"role": "user", "content": "4"}]}),
        ]
        job = await batch.submit(engine, asked, generation=GenerationParams(max_new_tokens=7))
        status = await job.wait(interval=0)
        assert (status.state, status.total, status.completed, status.failed) == (BatchState.COMPLETED, 4, 2, 1)
        results = await job.results()

    form = fake.forms[0]
    assert form["purpose"] == (None, b"batch")
    assert form["file"][0] == "batch.jsonl"
    lines = [json.loads(line) for line in form["file"][1].splitlines()]
    assert lines[0] == {
        "custom_id": "row-0",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "one"}],
            "max_completion_tokens": 7,
        },
    }
    made = fake.batches["batch_0"]
    assert (made["endpoint"], made["completion_window"]) == ("/v1/chat/completions", "24h")

    assert [row.index for row in results] == [0, 1, 2, 3]
    first, second, third, fourth = results
    assert (first.text, fourth.text) == ("re: one", "re: 4")
    assert [message.role for message in first.conversation.messages] == ["user", "assistant"]
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.source) == (3, 2, "exact")
    assert (first.finish_reason, first.request_id) == ("stop", "req_g")
    assert isinstance(second.error, BadRequestError)
    assert (second.error.code, second.error.status, second.error.request_id) == ("bad_words", 400, "req_b")
    assert second.conversation.messages[0].text == "bad two"
    assert (third.error.code, third.error.retryable) == ("batch_completed", True)


async def test_iteration_gives_rows_as_they_lie_there():
    with CannedServer(OpenAIBatches()) as server:
        job = await engine_at(server).batch.submit(iter("abc"))
        found = [(row.index, row.text) async for row in job.results()]
    assert found == [(2, "re: c"), (1, "re: b"), (0, "re: a")]


async def test_leaving_early_closes_the_download():
    with CannedServer(OpenAIBatches()) as server:
        job = await engine_at(server).batch.submit([f"row {n}" for n in range(50)])
        async with job.results() as results:
            async for _ in results:
                break
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        async for _ in job.results():  # dropped, not closed
            break


async def test_rows_are_split_at_the_limits():
    fake = OpenAIBatches()
    seen = []
    with CannedServer(fake) as server:
        engine = engine_at(server)
        job = await batch.submit(
            engine, (f"q{n}" for n in range(7)), max_rows=3, on_part=lambda job: seen.append(len(job.parts))
        )
        assert [(part.first, part.end, part.rows) for part in job.parts] == [(0, 3, 3), (3, 6, 3), (6, 7, 1)]
        assert [row.text for row in await job.results()] == [f"re: q{n}" for n in range(7)]
        line = len(fake.forms[0]["file"][1].splitlines()[0]) + 1
        job = await batch.submit(engine, [f"q{n}" for n in range(7)], max_bytes=2 * line)
        assert [part.rows for part in job.parts] == [2, 2, 2, 1]
        assert all(len(form["file"][1]) <= 2 * line for form in fake.forms[3:])
        assert [row.text for row in await job.results()] == [f"re: q{n}" for n in range(7)]
    assert seen == [1, 2, 3]
    assert len({made["metadata"]["asyncinfer_part"] for made in fake.batches.values()}) == 7


async def test_rows_that_cannot_be_asked_are_failures():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        job = await batch.submit(
            engine, ["good", {"messages": []}, "x" * 5000, ConfigError("line 4 is no JSON")], max_bytes=2000
        )
        assert sorted(job.unsent) == [1, 2, 3]
        again = BatchJob.from_json(job.to_json(), engine)
        for each in (job, again):
            results = await each.results()
            assert [bool(row) for row in results] == [True, False, False, False]
            assert isinstance(results[1].error, ConfigError)
            assert "too large" in str(results[2].error)
            assert "line 4" in str(results[3].error)
            status = await each.status()
            assert (status.completed, status.failed, status.fraction) == (1, 3, 1.0)
        nothing = await batch.submit(engine, [{"messages": []}])
        assert (await nothing.wait()).state is BatchState.COMPLETED
        assert not (await nothing.results())[0]
        with pytest.raises(ConfigError, match="no conversations"):
            await batch.submit(engine, [])


async def test_a_job_survives_its_program(monkeypatch):
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        job = await batch.submit(engine, ["a", "b", "c"], max_rows=2, labels={"who": "me"})
        text = job.to_json()
        assert "sk-very-secret-key" not in text + repr(job)
        await engine.aclose()
        monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
        found = BatchJob.from_json(text)
        assert (found.id, found.total, found.labels) == (job.id, 3, {"who": "me"})
        assert isinstance(found.engine, OpenAIInferenceEngine)
        await found.wait(interval=0)
        results = await found.results()
        assert [row.text for row in results] == ["re: a", "re: b", "re: c"]
        assert [len(row.conversation.messages) for row in results] == [1, 1, 1]
        results = await found.results(["a", "b", "c"])
        assert results[1].conversation.messages[0].text == "b"
        results = await found.results(lambda index: f"number {index}")
        assert results[1].conversation.messages[0].text == "number 1"
        with pytest.raises(ConfigError, match="the same api_url"):
            BatchJob.from_json(text, OpenAIInferenceEngine(ModelParams(model_name="x")))
    assert server.requests[-1].headers["authorization"] == "Bearer sk-other"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "asyncinfer.batch/1"}'])
async def test_what_is_no_job(text):
    with CannedServer(OpenAIBatches()) as server, pytest.raises(ConfigError):
        BatchJob.from_json(text, engine_at(server))


@pytest.mark.parametrize("status", ["expired", "cancelled"])
async def test_finished_rows_of_an_ended_batch_are_there(status):
    fake = OpenAIBatches()
    fake.status, fake.done = status, 2
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a", "b", "c"])
        assert (await job.status()).state == status
        results = await job.results()
    assert [row.text for row in results if row] == ["re: a", "re: b"]
    assert (results[2].error.code, results[2].error.retry) == (f"batch_{status}", RetryKind.TRANSIENT)


async def test_a_batch_that_failed_says_why():
    fake = OpenAIBatches()
    fake.status = "failed"
    fake.errors = {
        "object": "list",
        "data": [{"code": "invalid_json", "line": 3, "message": "not JSON", "param": None}],
    }
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a"])
        status = await job.wait(interval=0)
        assert (status.state, status.parts[0].reason) == (BatchState.FAILED, "line 3: not JSON")
        (row,) = await job.results()
    assert "line 3: not JSON" in str(row.error)
    assert not row.error.retryable


async def test_a_batch_that_runs():
    fake = OpenAIBatches()
    fake.status = "in_progress"
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a", {"messages": []}])
        status = await job.status()
        assert (status.state, status.ended, status.fraction) == (BatchState.RUNNING, False, 0.5)
        with pytest.raises(EngineError) as caught:
            await job.results()
        assert (caught.value.code, caught.value.retryable) == ("batch_not_ended", True)
        assert [row.index for row in await job.results(partial=True)] == [1]
        with pytest.raises(TotalTimeout):
            await job.wait(interval=0.01, timeout=0.05)


async def test_partial_results_of_a_job_of_several_parts():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a", "b"], max_rows=1)
        fake.status = ["completed", "in_progress"]
        assert [(row.index, row.text) for row in await job.results(partial=True)] == [(0, "re: a")]
        fake.status = "completed"
        assert [row.text for row in await job.results()] == ["re: a", "re: b"]


async def test_waiting_looks_again_and_tells():
    fake = OpenAIBatches()
    told = []

    async def tell(status):
        told.append(status.state)

    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server, max_retries=0), ["a"])
        fake.status = ["validating", "a_new_word", "finalizing", "retired"]
        path = f"GET /v1/batches/{job.parts[0].id}"
        fake.trouble[path] = [refusal(500, "oops"), refusal(429, "slow")]
        status = await job.wait(interval=0, on_progress=tell)
    assert [str(state) for state in told] == ["queued", "running", "running", "completed"]
    assert status.parts[0].said == "retired"


async def test_cancelling():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a", "b"], max_rows=1)
        fake.status = "in_progress"
        assert (await job.cancel()).state is BatchState.CANCELLING
        posts = [request.target for request in server.requests if request.target.endswith("/cancel")]
        assert posts == ["/v1/batches/batch_0/cancel", "/v1/batches/batch_1/cancel"]
        fake.status = "cancelled"
        fake.done = 0
        assert (await job.wait(interval=0)).state is BatchState.CANCELLED
        assert (await job.cancel()).state is BatchState.CANCELLED
        assert len([request for request in server.requests if request.target.endswith("/cancel")]) == 2
        assert [row.error.code for row in await job.results()] == ["batch_cancelled"] * 2


async def test_an_upload_is_tried_again_a_creation_only_if_nothing_was_done():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        fake.trouble["POST /v1/files"] = [refusal(500, "oops")]
        fake.trouble["POST /v1/batches"] = [refusal(429, "slow")]
        await batch.submit(engine, ["a"])
        assert len(fake.batches) == 1
        fake.trouble["POST /v1/batches"] = [refusal(500, "oops")]
        with pytest.raises(ServerError):
            await batch.submit(engine, ["a"])
        assert len(fake.batches) == 1
        # An answer that was lost after the provider had made the batch: it is found, not made twice.
        fake.created_silently = True
        fake.trouble["POST /v1/batches"] = [[head(200, {"content-length": "500"}), b'{"id', "reset"]]
        job = await batch.submit(engine, ["a"])
        assert (job.parts[0].id, len(fake.batches)) == ("batch_1", 2)


async def test_parts_that_were_created_are_not_lost_with_a_failure():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)

        def break_down(job):
            fake.trouble["POST /v1/files"] = [refusal(401, "who are you?")]

        with pytest.raises(AsyncInferError) as caught:
            await batch.submit(engine, ["a", "b"], max_rows=1, on_part=break_down)
        job = caught.value.partial
        assert [row.text for row in await job.results()] == ["re: a"]


async def test_a_download_that_breaks_goes_on():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a", "b", "c"])
        await job.status()
        path = "GET /v1/files/output_file_id-batch_0/content"
        body = fake.files["output_file_id-batch_0"]
        fake.trouble[path] = [[head(200, {"content-length": str(len(body))}), body[: len(body) // 2], "reset"]]
        results = await job.results()
    assert [row.text for row in results] == ["re: a", "re: b", "re: c"]


async def test_strange_lines_harm_nobody(caplog):
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a", "b"])
        await job.status()
        good = json.dumps({"custom_id": "row-1", "response": {"status_code": 200, "body": chat("yes")}, "error": None})
        twice = json.dumps({"custom_id": "row-1", "response": {"status_code": 200, "body": chat("again")}})
        odd = json.dumps({"custom_id": "row-0", "response": {"status_code": 200, "body": {"what": 1}}})
        foreign = json.dumps({"custom_id": "their-1", "response": {"status_code": 200, "body": chat("no")}})
        lines = ["{broken", "", "\r", "[]", good, twice, foreign, json.dumps({"custom_id": "row-7"}), odd]
        fake.files["output_file_id-batch_0"] = "\n".join(lines).encode()
        results = await job.results()
    assert results[1].text == "yes"
    assert isinstance(results[0].error, AsyncInferError)
    assert len(results) == 2


async def test_a_file_that_is_gone_is_an_error():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        job = await batch.submit(engine_at(server), ["a"])
        fake.trouble["GET /v1/files/output_file_id-batch_0/content"] = [refusal(404, "deleted")]
        with pytest.raises(NotFoundError):
            await job.results()


async def test_an_async_source_and_an_answer_of_a_model():
    import pydantic

    class Point(pydantic.BaseModel):
        x: int

    async def source():
        yield "a"
        yield "b"

    fake = OpenAIBatches()
    fake.outcome = lambda rows: (
        [
            {"custom_id": row["custom_id"], "response": {"status_code": 200, "body": chat(text)}, "error": None}
            for row, text in zip(rows, ['{"x": 1}', '{"x": "no"}'], strict=True)
        ],
        [],
    )
    with CannedServer(fake) as server:
        engine = engine_at(server)
        job = await batch.submit(engine, source(), response_model=Point)
        assert (await job.results())[0].parsed == Point(x=1)
        later = BatchJob.from_json(job.to_json(), engine)
        first, second = await later.results(response_model=Point)
        assert first.parsed == Point(x=1)
        assert not second
        assert (await later.results())[0].parsed == {"x": 1}


async def test_any_server_may_speak_it():
    with CannedServer(OpenAIBatches()) as server:
        engine = RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=RemoteParams(api_url=server.origin))
        assert [row.text for row in await (await batch.submit(engine, ["a"])).results()] == ["re: a"]


async def test_engines_without_one_say_so():
    from asyncinfer import DeepSeekInferenceEngine
    from tests.batch.echo import Echo

    with pytest.raises(ConfigError, match="DeepSeek has no batch API"):
        await batch.submit(DeepSeekInferenceEngine(remote_params=RemoteParams(api_key="k")), ["a"])
    with pytest.raises(ConfigError, match="echo has no batch API"):
        await batch.submit(Echo(), ["a"])
    with pytest.raises(ConfigError, match="max_rows"):
        with CannedServer(answer(b"{}")) as server:
            await batch.submit(engine_at(server), ["a"], max_rows=0)
