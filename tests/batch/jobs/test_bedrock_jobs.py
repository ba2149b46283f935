"""Bedrock's jobs: a file into S3, a job on it, a folder out of S3; through aiobotocore, on both loops."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator

import pytest

from asyncinfer import (
    APIError,
    BadRequestError,
    BatchJob,
    BatchState,
    BedrockInferenceEngine,
    ConfigError,
    EngineError,
    GenerationParams,
    ModelParams,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RemoteParams,
    ServerError,
    TransportError,
    batch,
)
from tests.batch.jobs.bedrock_fake import ROLE, BedrockJobs
from tests.servers import s3
from tests.servers.bedrock_bytes import refusal
from tests.servers.canned import CannedServer, answer

pytestmark = pytest.mark.anyio
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CREATE = "POST /model-invocation-job"


@pytest.fixture
def fake() -> BedrockJobs:
    return BedrockJobs()


@pytest.fixture
def server(fake: BedrockJobs, monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[CannedServer]:
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with CannedServer(fake) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", found.origin)
        yield found


def engine_at(server: CannedServer, **remote) -> BedrockInferenceEngine:
    remote = {"batch_storage": "s3://rows/mine", "batch_role": ROLE, **remote}
    return BedrockInferenceEngine(
        ModelParams(model_name=CLAUDE), remote_params=RemoteParams(api_url=server.origin, **remote)
    )


def texts(count: int) -> list[str]:
    return [f"row {n}" for n in range(count)]


async def test_from_conversations_to_answers(fake: BedrockJobs, server: CannedServer):
    engine = engine_at(server)
    rows = ["one", "bad two", "lost three", "busy four", "think five", *texts(100)]
    job = await batch.submit(engine, rows, generation=GenerationParams(max_new_tokens=9))
    [part] = job.parts
    assert (part.id, part.rows) == ("arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/job000000000", 105)
    assert "EXAMPLE" not in job.to_json()
    job = BatchJob.from_json(job.to_json(), engine)
    status = await job.wait(interval=0)
    assert (status.state, status.completed, status.failed) == (BatchState.COMPLETED, 102, 2)
    results = await job.results(rows)
    await engine.aclose()

    [asked] = fake.jobs.values()
    folder = f"s3://rows/mine/{asked['clientRequestToken']}"
    assert asked.pop("clientRequestToken").startswith(f"{job.id}-0")
    assert len(asked["jobName"]) <= 63
    assert asked.pop("jobName").startswith(f"asyncinfer-{job.id}-0")
    assert asked == {
        "roleArn": ROLE,
        "modelId": CLAUDE,
        "modelInvocationType": "Converse",
        "inputDataConfig": {"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": f"{folder}/input.jsonl"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"{folder}/output/"}},
        "timeoutDurationInHours": 24,
    }
    sent = [json.loads(line) for line in fake.store.objects[f"{folder[5:]}/input.jsonl"].splitlines()]
    assert sent[0] == {
        "recordId": "R0000000000",
        "modelInput": {
            "messages": [{"role": "user", "content": [{"text": "one"}]}],
            "inferenceConfig": {"maxTokens": 9},
        },
    }
    assert [row.index for row in results] == list(range(105))
    first, bad, lost, busy, sealed, *others = results
    assert (first.text, first.finish_reason, first.usage.input_tokens) == ("re: one", "stop", 3)
    assert [row.text for row in others] == [f"re: row {n}" for n in range(100)]
    assert isinstance(bad.error, BadRequestError)
    assert (bad.error.message, bad.error.retryable, bad.error.provider) == ("too rude", False, "bedrock")
    assert (lost.error.code, lost.error.retryable) == ("batch_completed", True)
    assert isinstance(busy.error, RateLimitError)
    assert sealed.text == "re: think five"
    assert sealed.message.reasoning_details == [{"redactedContent": "c2VhbGVk"}]


async def test_bytes_travel_in_base64(fake: BedrockJobs, server: CannedServer):
    png = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
    picture = {"type": "image_binary", "binary": png}
    turn = {"role": "user", "content": [picture, {"type": "text", "content": "what?"}]}
    await batch.submit(engine_at(server), [{"messages": [turn]}] * 100)
    line = json.loads(next(iter(fake.store.objects.values())).splitlines()[0])
    [image, text] = line["modelInput"]["messages"][0]["content"]
    assert base64.b64decode(image["image"]["source"]["bytes"]) == png
    assert (image["image"]["format"], text) == ("png", {"text": "what?"})


async def test_no_job_is_smaller_than_bedrock_takes(fake: BedrockJobs, server: CannedServer):
    engine = engine_at(server)
    for count in (399, 400, 401, 499):
        job = await batch.submit(engine, texts(count), max_rows=200)
        sizes = [part.rows for part in job.parts]
        assert (sum(sizes), min(sizes) >= 100, max(sizes) <= 200) == (count, True, True)
        assert [part.end for part in job.parts[:-1]] == [part.first for part in job.parts[1:]]
        assert [row.text for row in await job.results()] == [f"re: row {n}" for n in range(count)]
    made = len(fake.jobs)
    with pytest.raises(ConfigError, match="fewer than 100 rows, and here are 99"):
        await batch.submit(engine, texts(99))
    with pytest.raises(ConfigError, match="max_rows must be at least 200"):
        await batch.submit(engine, texts(300), max_rows=150)
    odd = [*texts(99), {"messages": "no"}]
    with pytest.raises(ConfigError, match="here are 99"):
        await batch.submit(engine, odd)
    job = await batch.submit(engine, [*odd, "last"])
    assert (list(job.unsent), job.parts[0].rows) == ([99], 100)
    assert len(fake.jobs) == made + 1


async def test_what_is_missing_is_said_before_a_row_is_read(server: CannedServer):
    def rows() -> Iterator[str]:
        raise AssertionError
        yield ""

    for field, value in [
        ("batch_storage", None),
        ("batch_storage", "gs://rows/mine"),
        ("batch_role", None),
        ("batch_role", "arn:aws:iam::1:user/me"),
        ("batch_completion_window", "1h"),
        ("batch_completion_window", "soon"),
    ]:
        with pytest.raises(ConfigError, match=field) as caught:
            await batch.submit(engine_at(server, **{field: value}), rows())
        assert caught.value.path == f"remote_params.{field}"
    assert not server.requests


async def test_the_window_and_a_bucket_without_a_folder(fake: BedrockJobs, server: CannedServer):
    engine = engine_at(server, batch_completion_window="7d", batch_storage="s3://rows")
    job = await batch.submit(engine, texts(100))
    [asked] = fake.jobs.values()
    assert asked["timeoutDurationInHours"] == 168
    assert job.parts[0].details["input"] == f"s3://rows/{asked['clientRequestToken']}/input.jsonl"
    assert len(await job.results()) == 100


async def test_a_large_file_goes_in_parts(fake: BedrockJobs, server: CannedServer, monkeypatch):
    monkeypatch.setattr("asyncinfer.engines.jobs.aws_door._PIECE", 5000)
    engine = engine_at(server)
    fake.store.piece = 333
    job = await batch.submit(engine, [f"row {n} {'é' * 50}" for n in range(200)])
    assert (fake.store.begun, fake.store.parts) == (1, {})
    assert sum("partNumber" in request.target for request in server.requests) > 5
    assert [row.text for row in await job.results()] == [f"re: row {n} {'é' * 50}" for n in range(200)]


async def test_an_upload_that_fails_leaves_no_parts(fake: BedrockJobs, server: CannedServer, monkeypatch):
    monkeypatch.setattr("asyncinfer.engines.jobs.aws_door._PIECE", 5000)

    class Broken:
        """The third part is refused."""

        def __call__(self, request):
            if "partNumber=3" in request.target:
                return s3.refusal(403, "AccessDenied", "Access Denied")
            return fake(request)

    server.answers = [Broken()]
    with pytest.raises(PermissionDeniedError):
        await batch.submit(engine_at(server), texts(300))
    assert (fake.store.begun, fake.store.parts, fake.store.objects, fake.jobs) == (1, {}, {}, {})


async def test_an_upload_whose_end_was_lost_is_there(fake: BedrockJobs, server: CannedServer, monkeypatch):
    monkeypatch.setattr("asyncinfer.engines.jobs.aws_door._PIECE", 5000)
    lost: list[str] = []

    class Forgetful:
        """The first answer to a finished upload is lost."""

        def __call__(self, request):
            told = fake(request)
            if request.method == "POST" and "?uploadId" in request.target and not lost:
                lost.append(request.target)
                return ["reset"]
            return told

    server.answers = [Forgetful()]
    job = await batch.submit(engine_at(server), texts(150))
    assert lost
    assert len(await job.results()) == 150


async def test_faults_that_pass_are_waited_out(fake: BedrockJobs, server: CannedServer, monkeypatch):
    monkeypatch.setattr("asyncinfer.engines.jobs.aws_door._PIECE", 5000)
    seen: set[str] = set()

    class Shaky:
        """Everything fails once."""

        def __call__(self, request):
            what = f"{request.method} {request.target}"
            if what in seen:
                return fake(request)
            seen.add(what)
            return s3.refusal(503, "SlowDown", "slow") if len(seen) % 2 else ["reset"]

    server.answers = [Shaky()]
    job = await batch.submit(engine_at(server, max_retries=3, retry_backoff_base=0.001), texts(150))
    await job.wait(interval=0)
    assert [row.text for row in await job.results()] == [f"re: row {n}" for n in range(150)]
    assert len(fake.jobs) == 1


async def test_a_download_that_breaks_goes_on(fake: BedrockJobs, server: CannedServer):
    job = await batch.submit(engine_at(server), texts(120))
    await job.status()
    [output] = [place for place in fake.store.objects if place.endswith(".jsonl.out")]
    fake.trouble[f"GET /{output}"] = [
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n",
            fake.store.objects[output][:5000],
            "close",
        ]
    ]
    assert [row.text for row in await job.results()] == [f"re: row {n}" for n in range(120)]


async def test_a_download_may_be_left(fake: BedrockJobs, server: CannedServer):
    fake.store.piece = 100
    job = await batch.submit(engine_at(server), texts(2000))
    async with job.results() as results:
        async for _ in results:
            break
    async for _ in job.results():  # dropped, not closed
        break


async def test_a_creation_that_may_have_worked_is_looked_for(fake: BedrockJobs, server: CannedServer):
    engine = engine_at(server, max_retries=0)
    fake.trouble[CREATE] = [refusal(500, "InternalServerException", "oops")]
    fake.created_silently = True
    job = await batch.submit(engine, texts(100))
    assert [part.id for part in job.parts] == list(fake.jobs)
    fake.created_silently = False
    for trouble, kind in [
        (refusal(500, "InternalServerException", "oops"), ServerError),
        (refusal(409, "ConflictException", "there is one"), BadRequestError),
        (refusal(400, "ValidationException", "no such role"), BadRequestError),
        (refusal(403, "AccessDeniedException", "not you"), PermissionDeniedError),
    ]:
        fake.trouble[CREATE] = [trouble]
        with pytest.raises(kind):
            await batch.submit(engine, texts(100))
    assert len(fake.jobs) == 1


async def test_going_on_takes_the_job_that_was_made(fake: BedrockJobs, server: CannedServer):
    engine = engine_at(server)

    def rows() -> Iterator[str]:
        yield from texts(350)
        raise OSError("the disk went")

    with pytest.raises(EngineError, match="submit") as caught:
        await batch.submit(engine, rows(), max_rows=200)
    job = caught.value.partial
    assert [part.rows for part in job.parts] == [200]
    job = await batch.submit(engine, texts(450), resume=BatchJob.from_json(job.to_json(), engine))
    assert sum(part.rows for part in job.parts) == 450
    assert [row.text for row in await job.results()] == [f"re: row {n}" for n in range(450)]


async def test_what_was_taken_but_not_told_is_not_sent_again(fake: BedrockJobs, server: CannedServer):
    engine = engine_at(server, max_retries=0)
    saved = []

    class Deaf:
        """The second creation works, but nobody hears of it."""

        def __call__(self, request):
            told = fake(request)
            creates = (request.method, request.target) == ("POST", "/model-invocation-job")
            if len(fake.jobs) == 2 and (creates or "nameContains" in request.target):
                return ["reset"]
            return told

    server.answers = [Deaf()]
    with pytest.raises(TransportError) as caught:
        await batch.submit(engine, texts(400), max_rows=200, on_part=lambda job: saved.append(job.to_json()))
    assert (len(saved), len(caught.value.partial.parts), len(fake.jobs)) == (1, 1, 2)
    server.answers = [fake]
    before = len(server.requests)
    job = await batch.submit(engine, texts(400), resume=BatchJob.from_json(saved[0], engine))
    assert [part.id for part in job.parts] == list(fake.jobs)
    assert not any(request.method in {"PUT", "POST"} for request in server.requests[before:])
    assert [row.text for row in await job.results()] == [f"re: row {n}" for n in range(400)]


async def test_states_old_and_new(fake: BedrockJobs, server: CannedServer):
    job = await batch.submit(engine_at(server), texts(100))
    fake.status = ["Submitted", "Validating", "Scheduled", "InProgress", "Dreaming", "Novel"]
    fake.counts = False
    seen = []
    status = await job.wait(interval=0, on_progress=lambda status: seen.append(status.parts[0].state.value))
    assert seen == ["queued", "queued", "queued", "running", "running", "completed"]
    assert (status.parts[0].said, status.completed, status.failed) == ("Novel", 100, 0)


async def test_stopped_and_expired_jobs_give_what_was_finished(fake: BedrockJobs, server: CannedServer):
    engine = engine_at(server)
    fake.status, fake.done = "InProgress", 60
    job = await batch.submit(engine, texts(100))
    assert [row async for row in job.results(partial=True)] == []
    assert (await job.cancel()).state is BatchState.CANCELLING
    for said, state in [("Stopped", "cancelled"), ("Expired", "expired"), ("PartiallyCompleted", "completed")]:
        fake.status = said
        again = BatchJob.from_json(job.to_json(), engine)
        assert (await again.status()).state == state
        results = await again.results()
        assert [bool(row) for row in results] == [True] * 60 + [False] * 40
        assert results[99].error.code == f"batch_{state}"


async def test_a_job_that_failed_says_why(fake: BedrockJobs, server: CannedServer):
    job = await batch.submit(engine_at(server), texts(100))
    fake.status, fake.message = "Failed", "the role may not read the bucket"
    status = await job.wait(interval=0)
    assert (status.state, status.parts[0].reason) == (BatchState.FAILED, "the role may not read the bucket")
    assert "may not read" in (await job.results())[0].error.message


async def test_lines_that_are_none(fake: BedrockJobs, server: CannedServer):
    job = await batch.submit(engine_at(server), texts(100))
    await job.status()
    [output] = [place for place in fake.store.objects if place.endswith(".jsonl.out")]
    sealed = {"output": {"message": {"content": [{"reasoningContent": {"redactedContent": "!"}}]}}}
    odd = [
        b"{broken",
        b'{"recordId":"CALL0000001","modelOutput":{}}',
        b'{"recordId":"R0000000000"}',
        b'{"recordId":"R0000000001","modelOutput":null,"error":"x"}',
        b'{"recordId":"R0000000002","modelOutput":{"output":5}}',
        b'{"recordId":"R0000000003","modelOutput":[]}',
        json.dumps({"recordId": "R0000000004", "modelOutput": sealed}).encode(),
    ]
    fake.trouble[f"GET /{output}"] = [answer(b"\n".join(odd))]
    results = await job.results()
    assert len(results) == 100
    assert all(isinstance(row.error, APIError) or row.error.provider == "bedrock" for row in results)
    assert [row.error.code for row in results[5:]] == ["batch_completed"] * 95


async def test_a_bucket_that_may_be_read_but_not_listed(fake: BedrockJobs, server: CannedServer):
    job = await batch.submit(engine_at(server), texts(100))
    fake.trouble["GET /rows"] = [s3.refusal(403, "AccessDenied", "no s3:ListBucket")] * 9
    fake.counts = False
    assert (await job.status()).completed == 100
    assert [row.text for row in await job.results()] == [f"re: row {n}" for n in range(100)]


async def test_a_bucket_or_job_that_is_not_there(server: CannedServer):
    with pytest.raises(NotFoundError, match="bucket"):
        await batch.submit(engine_at(server, batch_storage="s3://elsewhere/x"), texts(100))
    engine = engine_at(server)
    job = await batch.submit(engine, texts(100))
    job.parts[0].id = job.parts[0].id[:-1] + "9"
    with pytest.raises(NotFoundError):
        await job.status()


async def test_a_bedrock_key_opens_no_bucket(server: CannedServer, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    key = "bedrock-api-key-very-secret"
    job = await batch.submit(engine_at(server, api_key=key), texts(100))
    assert len(await job.results()) == 100
    for request in server.requests:
        bearer = request.headers["authorization"] == f"Bearer {key}"
        assert bearer == request.target.startswith("/model-invocation-job")
    assert key not in caplog.text
    assert key not in job.to_json()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    elsewhere = BedrockInferenceEngine(  # the clients of the other region have their credentials
        ModelParams(model_name=CLAUDE),
        remote_params=RemoteParams(
            api_url=server.origin, api_key=key, region="eu-west-1", batch_storage="s3://rows", batch_role=ROLE
        ),
    )
    with pytest.raises(ConfigError, match="S3") as caught:
        await batch.submit(elsewhere, texts(100))
    assert caught.value.provider == "bedrock"


async def test_a_job_is_found_by_its_region(server: CannedServer):
    job = await batch.submit(engine_at(server), texts(100))
    other = BedrockInferenceEngine(ModelParams(model_name=CLAUDE), remote_params=RemoteParams(region="eu-west-1"))
    with pytest.raises(ConfigError, match="eu-west-1"):
        BatchJob.from_json(job.to_json(), other)
    found = BatchJob.from_json(job.to_json())  # the configuration is in it
    assert len(await found.results()) == 100
