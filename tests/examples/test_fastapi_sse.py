"""The web app on a real uvicorn, with a real client, before a fake provider over HTTP and on the embedded model."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest
import uvicorn

from asyncinfer import ModelParams, RemoteInferenceEngine, RemoteParams
from examples.fastapi_sse import create_app
from tests.servers.background import eventually
from tests.servers.provider import Fail, FakeProvider

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@contextmanager
def serving(provider: FakeProvider) -> Iterator[str]:
    """The app on a uvicorn in a thread of its own; gives its URL."""
    remote = RemoteParams(api_url=provider.url, api_key="sk-test", max_retries=0)
    engine = RemoteInferenceEngine(ModelParams(model_name="fake-1"), remote_params=remote)
    server = uvicorn.Server(uvicorn.Config(create_app(engine), log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def question(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}]}


async def events(response: httpx.Response):
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def test_tokens_arrive_while_the_model_is_still_at_work():
    with FakeProvider(tokens=6, per_token=0.05) as provider, serving(provider) as url:
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("POST", f"{url}/chat", json=question("one two")) as response,
        ):
            assert response.headers["content-type"].startswith("text/event-stream")
            seen = []
            async for name, data in events(response):
                if not seen:
                    assert provider.stats.completed == 0
                seen.append((name, data))
    assert [name for name, _ in seen] == ["token"] * 6 + ["done"]
    assert "".join(data["text"] for name, data in seen if name == "token") == "one two one two one two"
    assert seen[-1][1] == {"finish_reason": "stop", "output_tokens": 6}


@pytest.mark.parametrize("per_token", [0.02, 30.0], ids=["while tokens flow", "while the model is silent"])
async def test_a_disconnect_stops_the_work_upstream(per_token):
    with FakeProvider(tokens=5000, per_token=per_token) as provider, serving(provider) as url:
        async with httpx.AsyncClient(timeout=30) as client:
            async with client.stream("POST", f"{url}/chat", json=question("go on")) as response:
                async for name, _ in events(response):
                    assert name == "token"
                    break
            await eventually(lambda: provider.stats.disconnects, timeout=5)
            assert provider.stats.disconnects[0].tokens_sent < 500
            assert provider.stats.in_flight == 0

            provider.per_token = 0.0  # and the app is as well as before
            answer = await client.post(f"{url}/chat", json=question("again"))
            assert answer.text.count("event: token") == 5000


async def test_many_readers_share_the_engine():
    with FakeProvider(tokens=5, per_token=0.02) as provider, serving(provider) as url:
        texts: dict[int, str] = {}
        async with httpx.AsyncClient(timeout=30) as client, anyio.create_task_group() as group:

            async def read(number: int) -> None:
                answer = await client.post(f"{url}/chat", json=question(f"reader-{number}"))
                texts[number] = "".join(re.findall(r'"text": "(.*?)"', answer.text))

            for number in range(50):
                group.start_soon(read, number)
    assert all(f"reader-{number}" in texts[number] for number in range(50))
    assert provider.stats.max_in_flight > 1


async def test_an_error_is_an_event():
    with FakeProvider(fail=[Fail(status=401)]) as provider, serving(provider) as url:
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"{url}/chat", json=question("hi"))
    assert "event: error" in answer.text
    assert "AuthenticationError" in answer.text


async def test_a_body_that_is_no_conversation_is_refused():
    with FakeProvider() as provider, serving(provider) as url:
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"{url}/chat", json={"messages": "hi"})
    assert answer.status_code == 422
    assert "messages" in answer.json()["detail"]


async def test_the_command_of_the_docstring_on_the_embedded_model():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "uvicorn", "examples.fastapi_sse:app", "--port", "0"]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stderr:
                if found := re.search(r"running on (http://\S+)", line):
                    break
            async with httpx.AsyncClient(timeout=60) as client:
                answer = await client.post(f"{found[1]}/chat", json=question("What is the capital of France?"))
        finally:
            process.terminate()
            rest = process.stderr.read()
    text = "".join(json.loads(data)["text"] for data in re.findall(r"event: token\ndata: (.*)", answer.text))
    assert text == "The capital of France is Paris."
    assert "event: done" in answer.text
    assert "Traceback" not in rest
