"""The official clients as the other side: they use the fakes, so the fakes' shapes are the real ones, and what we send
is what they would."""

from __future__ import annotations

import json

import anthropic
import openai
import pydantic
import pytest
from anthropic.types.messages.batch_create_params import Request as AnthropicRow
from openai.types.batch_create_params import BatchCreateParams

from tests.batch.jobs import test_anthropic_jobs, test_openai_jobs
from tests.batch.jobs.fakes import AnthropicBatches, OpenAIBatches
from tests.servers.canned import CannedServer


@pytest.mark.anyio
async def test_openai_reads_a_job_of_ours():
    fake = OpenAIBatches()
    with CannedServer(fake) as server:
        job = await test_openai_jobs.engine_at(server).batch.submit(["a", "bad b"])
        asked = next(json.loads(r.body) for r in server.requests if r.target == "/v1/batches")
        pydantic.TypeAdapter(BatchCreateParams).validate_python(asked)
        with openai.OpenAI(api_key="k", base_url=f"{server.origin}/v1", max_retries=0) as client:
            batch = client.batches.retrieve(job.parts[0].id)
            assert batch.status == "completed"
            assert batch.request_counts is not None
            assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
            line = json.loads(client.files.content(batch.output_file_id or "").text)
            assert openai.types.chat.ChatCompletion.model_validate(line["response"]["body"], strict=True)
            assert client.batches.cancel(batch.id).status == "cancelling"


@pytest.mark.anyio
async def test_anthropic_reads_a_job_of_ours():
    fake = AnthropicBatches()
    with CannedServer(fake) as server:
        job = await test_anthropic_jobs.engine_at(server).batch.submit(["a", "bad b", "old c", "off d"])
        rows = pydantic.TypeAdapter(list[AnthropicRow])
        rows.validate_python(fake.batches["msgbatch_0"]["requests"])
        fake_url = f"{server.origin}/v1/messages/batches/{job.parts[0].id}/results"
        fake.shape = lambda name, status, shape=fake.shape: shape(name, status) | {"results_url": fake_url}
        with anthropic.Anthropic(api_key="sk-ant-test", base_url=server.origin, max_retries=0) as client:
            batch = client.messages.batches.retrieve(job.parts[0].id)
            assert batch.processing_status == "ended"
            kinds = {row.custom_id: row.result.type for row in client.messages.batches.results(batch.id)}
    assert kinds == {"row-0": "succeeded", "row-1": "errored", "row-2": "expired", "row-3": "canceled"}
