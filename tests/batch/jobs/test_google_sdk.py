"""Google's own client as the other side: it reads a job of ours, so the fake's shapes are the real ones."""

from __future__ import annotations

import json

import pytest
from google import genai
from google.genai import types

from tests.batch.jobs.gemini_fake import GeminiBatches
from tests.batch.jobs.test_gemini_jobs import engine_at, served


@pytest.mark.anyio
async def test_google_reads_a_job_of_ours_and_we_read_its_upload():
    fake = GeminiBatches()
    with served(fake) as server:
        job = await engine_at(server).batch.submit(["a", "bad b"])
        for line in fake.files["files/u1"].splitlines():
            request = json.loads(line)["request"]
            types._GenerateContentParameters.model_validate({"model": "gemini-x", **request})
        options = types.HttpOptions(
            base_url=server.origin, api_version="v1beta", retry_options=types.HttpRetryOptions(attempts=1)
        )
        client = genai.Client(api_key="AIza-very-secret", http_options=options)
        made = client.batches.get(name=job.parts[0].id)
        assert made.state is types.JobState.JOB_STATE_SUCCEEDED
        assert (made.model, made.display_name[:34]) == ("models/gemini-x", f"{job.id}-0")
        assert made.dest is not None
        assert made.dest.file_name == "files/batch-b0"
        [listed] = client.batches.list(config={"page_size": 100})
        assert listed.name == "batches/b0"
        lines = [json.loads(line) for line in fake.files["files/batch-b0"].splitlines()]
        assert types.GenerateContentResponse.model_validate(lines[1]["response"]).text == "re: a"
        client.batches.cancel(name="batches/b0")
        assert client.batches.get(name="batches/b0").state is types.JobState.JOB_STATE_CANCELLED
        client.close()
