"""The servers keep their promises: what a test reads off them is true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from asyncinfer.transport.httpx_transport import HttpxTransport

from .background import eventually
from .canned import CannedServer, Gate, answer, chunk, head, stream
from .certificates import Authority
from .provider import Fail, FakeProvider, Reply

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def chat(text: str, **more) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def events(text: str) -> list:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def content(found: list) -> str:
    return "".join(
        choice["delta"].get("content", "") for event in found if event != "[DONE]" for choice in event["choices"]
    )


async def ask(provider, body, **options) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"{provider.url}/chat/completions", json=body, **options)


# -- the provider ------------------------------------------------------------------------------------------------------


async def test_a_document_echoes_the_last_user_message():
    with FakeProvider() as provider:
        reply = (await ask(provider, chat("how are you"))).json()
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "how are you"}
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert provider.stats.requests[0].body["messages"][0]["content"] == "how are you"


@pytest.mark.parametrize("text", ["", " ", "one", "two words", "  spaced\n\nout  text ", "ünïcode 你好"])
@pytest.mark.parametrize("coalesce", [1, 2, 100])
async def test_a_stream_is_the_same_text(text, coalesce):
    with FakeProvider(coalesce=coalesce) as provider:
        streamed = await ask(provider, chat(text, stream=True))
        whole = (await ask(provider, chat(text))).json()["choices"][0]["message"]["content"]
    found = events(streamed.text)
    assert found[-1] == "[DONE]"
    assert content(found) == text == (whole or "")


async def test_usage_when_asked():
    with FakeProvider() as provider:
        quiet = events((await ask(provider, chat("a b", stream=True))).text)
        asked = events((await ask(provider, chat("a b", stream=True, stream_options={"include_usage": True}))).text)
        provider.usage = "never"
        never = (await ask(provider, chat("a b"))).json()
    assert all("usage" not in event for event in quiet if event != "[DONE]")
    assert asked[-2]["usage"]["completion_tokens"] == 2
    assert "usage" not in never


async def test_the_number_of_tokens():
    with FakeProvider(tokens=5) as provider:
        found = events((await ask(provider, chat("a b", stream=True))).text)
        assert content(found) == "a b a b a"
        assert provider.stats.tokens == 5
        provider.tokens = 1
        assert (await ask(provider, chat("a b"))).json()["choices"][0]["message"]["content"] == "a"


async def test_scripted_replies():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    script = {
        "think": Reply("so", reasoning="let me see"),
        "call": Reply(tool_calls=[call]),
        "stop": Reply("x", finish_reason="length"),
    }
    with FakeProvider(reply=lambda body: script[body["messages"][-1]["content"]]) as provider:
        think = (await ask(provider, chat("think"))).json()["choices"][0]
        called = (await ask(provider, chat("call"))).json()["choices"][0]
        stopped = (await ask(provider, chat("stop", n=2))).json()["choices"]
        streamed = events((await ask(provider, chat("call", stream=True))).text)
    assert think["message"]["reasoning_content"] == "let me see"
    assert (called["message"]["tool_calls"], called["finish_reason"]) == ([call], "tool_calls")
    assert [(choice["index"], choice["finish_reason"]) for choice in stopped] == [(0, "length"), (1, "length")]
    assert streamed[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **call}]


async def test_rules_about_failures():
    rules = [
        Fail(503, {"error": {"message": "busy"}}, {"retry-after": "1"}, times=2),
        Fail(400, b"bad", match=lambda body: body["model"] == "wrong"),
    ]
    with FakeProvider(fail=rules) as provider:
        first = await ask(provider, chat("x"))
        second = await ask(provider, chat("x"))
        third = await ask(provider, chat("x"))
        wrong = await ask(provider, {**chat("x"), "model": "wrong"})
    assert (first.status_code, first.headers["retry-after"], first.json()) == (503, "1", {"error": {"message": "busy"}})
    assert [second.status_code, third.status_code] == [503, 200]
    assert (wrong.status_code, wrong.content) == (400, b"bad")
    assert (provider.stats.served, provider.stats.rejected, provider.stats.completed) == (4, 3, 1)


async def test_a_stream_that_is_cut():
    with FakeProvider(fail=[Fail(cut_after=2, times=1), Fail(cut_after=0, times=1)]) as provider:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(provider, chat("a b c", stream=True))
        with pytest.raises(httpx.HTTPError):
            await ask(provider, chat("a b c", stream=True))
        assert content(events((await ask(provider, chat("a b c", stream=True))).text)) == "a b c"


async def test_the_rate_limit():
    with FakeProvider(rpm=2, window=30.0) as provider:
        replies = [await ask(provider, chat("x")) for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 429, 429]
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies] == ["1", "0", "0", "0"]
        assert 0 < float(replies[2].headers["retry-after"]) <= 30
        assert replies[0].headers["x-ratelimit-limit-requests"] == "2"
        provider._window_start -= 30.0
        assert (await ask(provider, chat("x"))).status_code == 200


async def test_keys_models_and_unknown_paths():
    with FakeProvider(key="sk-1", models=("a", "b")) as provider:
        assert (await ask(provider, chat("x"))).status_code == 401
        headers = {"Authorization": "Bearer sk-1"}
        assert (await ask(provider, chat("x"), headers=headers)).status_code == 200
        async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
            models = (await client.get(f"{provider.url}/models")).json()
            assert [model["id"] for model in models["data"]] == ["a", "b"]
            assert (await client.get(f"{provider.url}/nothing")).status_code == 404


async def test_tokens_come_one_after_another_and_a_disconnect_is_noted():
    with FakeProvider(tokens=1000, per_token=0.002, first_token=0.01) as provider:
        url = f"{provider.url}/chat/completions"
        exchange = await HttpxTransport().open("POST", url, {}, json.dumps(chat("a b", stream=True)).encode())
        assert await exchange.read()
        assert provider.stats.in_flight == 1
        exchange.abort()
        await eventually(lambda: provider.stats.disconnects)
        gone = provider.stats.disconnects[0]
        assert 1 <= gone.tokens_sent < 1000
        assert gone.body["messages"][0]["content"] == "a b"
        assert (provider.stats.in_flight, provider.stats.completed) == (0, 0)


async def test_the_most_at_once_is_counted():
    with FakeProvider(tokens=2, per_token=0.02, first_token=0.1) as provider:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask, provider, chat("x", stream=True))
        assert provider.stats.max_in_flight >= 2
        assert (provider.stats.completed, provider.stats.in_flight) == (10, 0)


async def test_it_runs_as_a_process_of_its_own():
    command = [sys.executable, "-m", "tests.servers.provider", "--port", "0", "--tokens", "3"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        reply = httpx.post(f"{url}/chat/completions", json=chat("a"), trust_env=False).json()
        process.terminate()
    assert reply["choices"][0]["message"]["content"] == "a a a"


# -- the canned server -------------------------------------------------------------------------------------------------


async def test_answers_in_order_and_the_last_one_again():
    with CannedServer(answer(b"1"), lambda request: answer(request.target.encode())) as server:
        async with httpx.AsyncClient(trust_env=False) as client:
            texts = [(await client.post(f"{server.url}/{i}", json={"i": i})).text for i in range(3)]
    assert texts == ["1", "/1", "/2"]
    assert [request.json for request in server.requests] == [{"i": 0}, {"i": 1}, {"i": 2}]
    assert (server.connections, server.interrupted) == (1, 0)


async def test_a_gate_decides_when():
    gate = Gate()
    seen = []
    with CannedServer(stream(b"a", gate, b"b")) as server:
        async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", server.url) as response:
            async for part in response.aiter_raw():
                seen.append(part)
                await eventually(lambda: gate.reached == 1)
                gate.open()
    assert seen == [b"a", b"b"]


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_ways_to_end_a_connection(end):
    with CannedServer([head(200, {"transfer-encoding": "chunked"}), chunk(b"a"), 0.02, end]) as server:
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(server.url)
        await eventually(lambda: server.open_connections == 0)
    assert server.interrupted == 0  # it was the server


async def test_a_client_that_goes_is_noted():
    with CannedServer(["hang"]) as server:
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(server.url, timeout=0.05)
        await eventually(lambda: server.interrupted == 1)


async def test_over_tls():
    authority = Authority()
    with CannedServer(answer(b"ok"), ssl_context=authority.server()) as server:
        async with httpx.AsyncClient(trust_env=False, verify=authority.client()) as client:
            assert (await client.get(server.url)).text == "ok"
