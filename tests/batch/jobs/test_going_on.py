"""A submission that is interrupted loses nothing and pays nothing twice: what the provider took is known, the rest is
sent later."""

from __future__ import annotations

import json

import anyio
import pytest

from asyncinfer import (
    AsyncInferError,
    BatchJob,
    ConfigError,
    EngineError,
    GenerationParams,
    InferenceConfig,
    ServerError,
    batch,
)
from tests.batch.jobs import test_fireworks_jobs, test_together_jobs
from tests.batch.jobs.fakes import OpenAIBatches, refusal
from tests.batch.jobs.fireworks_fake import ACCOUNT, FireworksJobs, SignedStore
from tests.batch.jobs.test_openai_jobs import engine_at
from tests.batch.jobs.together_fake import Store, TogetherBatches
from tests.servers.canned import CannedServer

pytestmark = pytest.mark.anyio
ROWS = ["a", "b", "c", "d", "e"]
NO_MORE = refusal(500, "oops")


class Breaking:
    """Lets ``parts`` uploads through, then breaks, as long as ``broken``."""

    def __init__(self, fake: OpenAIBatches, parts: int) -> None:
        self.fake, self.parts, self.broken = fake, parts, True

    def __call__(self, request):
        if self.broken and request.target == "/v1/files" and len(self.fake.forms) == self.parts:
            return NO_MORE
        return self.fake(request)


def sent_rows(fake: OpenAIBatches) -> list[str]:
    """The rows of all batches, in order of sending."""
    return [row["custom_id"] for name in fake.batches for row in fake.rows(name)]


@pytest.mark.parametrize("through_json", [False, True])
async def test_an_error_in_the_middle(through_json):
    fake = OpenAIBatches()
    wire = Breaking(fake, 2)
    with CannedServer(wire) as server:
        engine = engine_at(server, max_retries=0)
        hot = GenerationParams(temperature=0.5)
        with pytest.raises(ServerError) as caught:
            await batch.submit(engine, ROWS, max_rows=1, generation=hot, labels={"who": "me"})
        job = caught.value.partial
        assert (job.total, len(job.parts), job.complete) == (2, 2, False)
        assert [row.text for row in await job.results()] == ["re: a", "re: b"]
        if through_json:
            job = BatchJob.from_json(job.to_json(), engine)
        wire.broken = False
        again = await batch.submit(engine, ROWS, resume=job)
        assert again is job
        assert (job.total, [part.first for part in job.parts], job.complete) == (5, [0, 1, 2, 3, 4], True)
        assert [row.text for row in await job.results()] == [f"re: {row}" for row in ROWS]
        results = await BatchJob.from_json(job.to_json(), engine).results(ROWS)
        assert [row.conversation.messages[0].text for row in results] == ROWS
    assert sent_rows(fake) == [f"row-{n}" for n in range(5)]
    assert {row["body"]["temperature"] for name in fake.batches for row in fake.rows(name)} == {0.5}
    assert [made["metadata"]["who"] for made in fake.batches.values()] == ["me"] * 5


async def test_it_may_break_again_and_again():
    fake = OpenAIBatches()
    wire = Breaking(fake, 0)
    with CannedServer(wire) as server:
        engine = engine_at(server, max_retries=0)
        job = None
        for parts in range(1, 5):
            wire.parts = parts
            with pytest.raises(ServerError) as caught:
                await batch.submit(engine, iter(ROWS), max_rows=1, resume=job)
            job = caught.value.partial
            assert (len(job.parts), job.total) == (parts, parts)
        wire.broken = False
        job = await batch.submit(engine, iter(ROWS), resume=job)
        assert [row.text for row in await job.results()] == [f"re: {row}" for row in ROWS]
    assert sent_rows(fake) == [f"row-{n}" for n in range(5)]


async def test_rows_that_cannot_be_sent_are_told_once():
    fake = OpenAIBatches()
    wire = Breaking(fake, 1)
    bad = {"messages": []}
    rows = ["a", bad, "b", bad, bad, "c", bad]
    with CannedServer(wire) as server:
        engine = engine_at(server, max_retries=0)
        with pytest.raises(ServerError) as caught:
            await batch.submit(engine, rows, max_rows=2)
        job = BatchJob.from_json(caught.value.partial.to_json(), engine)
        assert (job.total, sorted(job.unsent)) == (5, [1, 3, 4])
        wire.broken = False
        await batch.submit(engine, rows, resume=job)
        assert sorted(job.unsent) == [1, 3, 4, 6]
        results = await job.results(rows)
    assert [(row.index, bool(row)) for row in results] == list(
        enumerate([True, False, True, False, False, True, False])
    )


async def test_conversations_that_break_off():
    def source():
        yield from ROWS[:3]
        raise OSError("the disk is gone")

    async def asynchronous():
        for row in source():
            yield row

    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        with pytest.raises(OSError, match="the disk"):
            await batch.submit(engine, source())  # nothing was sent: there is nothing to go on with
        for rows in (source(), asynchronous()):
            with pytest.raises(EngineError, match=r"OSError.*after 2 had been submitted") as caught:
                await batch.submit(engine, rows, max_rows=2)
            assert isinstance(caught.value.__cause__, OSError)
            job = await batch.submit(engine, ROWS, resume=caught.value.partial)
            assert [row.text for row in await job.results()] == [f"re: {row}" for row in ROWS]


async def test_cancelling_the_submission_leaves_the_job_in_order():
    fake = OpenAIBatches()
    kept = []
    with CannedServer(fake) as server:
        engine = engine_at(server)

        async def source():
            for row in ROWS:
                yield row
                if row == "d":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()

        with anyio.CancelScope() as scope:
            await batch.submit(engine, source(), max_rows=2, on_part=kept.append)
        assert scope.cancelled_caught
        (job,) = set(kept)
        assert (job.total, job.complete) == (2, False)
        await batch.submit(engine, ROWS, resume=job)
        assert [row.text for row in await job.results()] == [f"re: {row}" for row in ROWS]
    assert sent_rows(fake) == [f"row-{n}" for n in range(5)]


async def test_what_is_complete_stays_as_it_is():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        engine = engine_at(server)
        job = await batch.submit(engine, ROWS, max_rows=2)
        assert job.complete
        seen = len(server.requests)
        assert await batch.submit(engine, ROWS, resume=BatchJob.from_json(job.to_json(), engine))
        assert len(server.requests) == seen
        old = json.loads(job.to_json())
        for name in ("complete", "limits", "tools"):
            del old[name]
        assert BatchJob.from_json(json.dumps(old), engine).complete  # written before there was such a thing


async def test_a_job_that_only_its_last_save_is_known_of():
    """Killed after the last part, before anybody could say that it was the last."""
    fake = OpenAIBatches()
    saved = []
    with CannedServer(fake) as server:
        engine = engine_at(server)
        await batch.submit(engine, ROWS, max_rows=5, on_part=lambda job: saved.append(job.to_json()))
        job = BatchJob.from_json(saved[-1], engine)
        assert not job.complete
        await batch.submit(engine, ROWS, resume=job)
        assert (job.complete, len(fake.batches)) == (True, 1)


async def test_what_does_not_fit():
    def tool(city: str) -> str:
        """Weather of a city."""
        return city

    fake = OpenAIBatches()
    wire = Breaking(fake, 1)
    with CannedServer(wire) as server, CannedServer(fake) as elsewhere:
        engine = engine_at(server, max_retries=0)
        with pytest.raises(ServerError) as caught:
            await batch.submit(engine, ROWS, max_rows=2, generation=GenerationParams(temperature=0.5), tools=[tool])
        job = BatchJob.from_json(caught.value.partial.to_json(), engine)
        wire.broken = False
        with pytest.raises(ConfigError, match="give the same again"):
            await batch.submit(engine, ROWS, resume=job)
        with pytest.raises(ConfigError, match="other parameters"):
            await batch.submit(engine, ROWS, resume=job, tools=[tool], generation=GenerationParams(temperature=1.0))
        other = InferenceConfig.from_str("model: {model_name: another}")
        with pytest.raises(ConfigError, match="another model"):
            await batch.submit(engine, ROWS, resume=job, tools=[tool], inference_config=other)
        with pytest.raises(ConfigError, match="the same api_url"):
            await batch.submit(engine_at(elsewhere), ROWS, resume=job, tools=[tool])
        with pytest.raises(ConfigError, match="end after 1, but 2 were submitted") as short:
            await batch.submit(engine, ROWS[:1], resume=job, tools=[tool])
        assert short.value.partial is job
        assert len(fake.batches) == 1
        same = GenerationParams(temperature=0.5)
        await batch.submit(engine, ROWS, resume=job, tools=[tool], generation=same)
        assert [len(fake.rows(name)) for name in fake.batches] == [2, 2, 1]
        assert all(row["body"]["tools"] for name in fake.batches for row in fake.rows(name))


async def test_what_was_taken_but_not_told_is_not_sent_again():
    """Killed while the provider made the second part: it has it, the saved job does not."""
    fake = OpenAIBatches()
    saved = []
    with CannedServer(fake) as server:
        engine = engine_at(server)
        await batch.submit(engine, ROWS, max_rows=2, on_part=lambda job: saved.append(job.to_json()))
        job = BatchJob.from_json(saved[0], engine)
        fake.batches.pop("batch_2")
        await batch.submit(engine, ROWS, resume=job)
        assert [part.id for part in job.parts] == ["batch_0", "batch_1", "batch_2"]
        assert sent_rows(fake) == [f"row-{n}" for n in range(5)]
        # Other rows are other rows: nobody else's answers are taken for theirs.
        job = BatchJob.from_json(saved[0], engine)
        await batch.submit(engine, ["a", "b", "x", "y", "z"], resume=job)
        assert [row.text for row in await job.results()] == ["re: a", "re: b", "re: x", "re: y", "re: z"]
        # What failed as a whole is no use.
        job = BatchJob.from_json(saved[0], engine)
        for name in fake.batches:
            fake.batches[name]["status"] = "failed"
        await batch.submit(engine, ROWS, resume=job)
        assert {part.id for part in job.parts[1:]}.isdisjoint({"batch_1", "batch_2"})


async def test_the_same_at_together():
    store = Store()
    saved = []
    with CannedServer(store) as there:
        fake = TogetherBatches(store, there.origin)
        with CannedServer(fake) as server:
            engine = test_together_jobs.engine_at(server)
            await batch.submit(engine, ROWS, max_rows=2, on_part=lambda job: saved.append(job.to_json()))
            job = BatchJob.from_json(saved[0], engine)
            fake.batches.pop("batch-2")
            await batch.submit(engine, ROWS, resume=job)
            assert [part.id for part in job.parts] == ["batch-0", "batch-1", "batch-2"]
            assert [row.text for row in await job.results()] == [f"re: {row}" for row in ROWS]


async def test_the_same_at_fireworks(monkeypatch):
    monkeypatch.setattr("asyncinfer.engines.jobs.fireworks._PAUSE", 0.0)
    monkeypatch.delenv("FIREWORKS_ACCOUNT_ID", raising=False)
    store = SignedStore()
    saved = []
    with CannedServer(store) as there:
        fake = FireworksJobs(store, there.origin)
        with CannedServer(fake) as server:
            engine = test_fireworks_jobs.engine_at(server, max_retries=0)
            await batch.submit(engine, ROWS, max_rows=2, on_part=lambda job: saved.append(job.to_json()))
            jobs = list(fake.jobs)
            job = BatchJob.from_json(saved[0], engine)
            await batch.submit(engine, ROWS, resume=job)
            assert list(fake.jobs) == jobs  # each has its name from its rows: nothing is made twice
            assert [row.text for row in await job.results()] == [f"re: {row}" for row in ROWS]

            # Killed after the dataset was made, before its rows were there; and one whose job failed.
            job = BatchJob.from_json(saved[0], engine)
            fake.jobs[jobs[1]]["deleted"] = True
            del fake.jobs[jobs[2]]
            del fake.rows[jobs[2]]
            fake.trouble[f"POST {ACCOUNT}/datasets/{jobs[2]}:upload"] = [refusal(401, "no")]
            with pytest.raises(AsyncInferError) as caught:
                await batch.submit(engine, ROWS, resume=job)
            assert len(caught.value.partial.parts) == 2
            await batch.submit(engine, ROWS, resume=job)
            assert [row.text for row in await job.results()] == [f"re: {row}" for row in ROWS]


async def test_answers_of_a_model_go_on_with_it_or_without():
    import pydantic

    class Point(pydantic.BaseModel):
        x: int

    fake = OpenAIBatches()
    for with_it in (True, False):
        wire = Breaking(fake, len(fake.forms) + 1)
        with CannedServer(wire) as server:
            engine = engine_at(server, max_retries=0)
            with pytest.raises(ServerError) as caught:
                await batch.submit(engine, ROWS, max_rows=3, response_model=Point)
            job = BatchJob.from_json(caught.value.partial.to_json(), engine)
            wire.broken = False
            await batch.submit(engine, ROWS, resume=job, response_model=Point if with_it else None)
    sent = [row["body"] for name in fake.batches for row in fake.rows(name)]
    assert len(sent) == 10
    assert all(body["response_format"]["json_schema"]["schema"]["properties"]["x"] for body in sent)
    forms = [body["response_format"]["json_schema"] for body in sent]
    assert len({json.dumps(form) for form in forms}) == 1
    assert all(form["strict"] for form in forms)


@pytest.mark.parametrize("through_json", [False, True])
@pytest.mark.parametrize("began_with_it", [False, True])
async def test_all_rows_of_a_job_are_asked_alike(began_with_it, through_json):
    """Whether it began with a class or with its schema, and goes on with the other: the schema is sent as it was."""
    import pydantic

    class Point(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(title="A point")
        x: int
        y: int | None = None

    schema = {"generation": GenerationParams(guided_decoding={"json": Point.model_json_schema()})}
    ways = [schema, {"response_model": Point}]
    fake = OpenAIBatches()
    wire = Breaking(fake, 1)
    with CannedServer(wire) as server:
        engine = engine_at(server, max_retries=0)
        with pytest.raises(ServerError) as caught:
            await batch.submit(engine, ROWS, max_rows=3, **ways[began_with_it])
        job = caught.value.partial
        if through_json:
            job = BatchJob.from_json(job.to_json(), engine)
        wire.broken = False
        await batch.submit(engine, ROWS, resume=job, **ways[not began_with_it])
    sent = [row["body"]["response_format"] for name in fake.batches for row in fake.rows(name)]
    assert len(sent) == 5
    assert len({json.dumps(form) for form in sent}) == 1
    assert sent[0]["json_schema"]["name"] == ("Point" if began_with_it else "A_point")
    assert sent[0]["json_schema"].get("strict", False) is began_with_it
