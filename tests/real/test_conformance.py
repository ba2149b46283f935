"""The conformance suite on a remote engine before a server that nobody here wrote: llama.cpp's own."""

from __future__ import annotations

from functools import partial

import anyio.to_thread
import pytest

from asyncinfer import Engine, GenerationParams, RemoteParams, open_engine
from asyncinfer.testing import EMBEDDED, check_engine

from .servers import llama_server

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_remote_engine_before_llama_server() -> None:
    with llama_server() as server:

        def make() -> Engine:
            remote = RemoteParams(api_url=server.url, api_key=server.key)
            return open_engine(f"{server.engine}:{server.model}", remote_params=remote)

        async def running() -> int:
            return int(await anyio.to_thread.run_sync(partial(server.metric, server.running)))

        report = await check_engine(
            make,
            expect=EMBEDDED,
            generation=GenerationParams(temperature=0.0),
            running=running,
            guided=frozenset({"json"}),  # the server knows no other of our fields
            long_generation=GenerationParams(max_new_tokens=400, temperature=0.0, extra_body={"ignore_eos": True}),
        )
    print(report)
    assert len(report.of("passed")) >= 20
