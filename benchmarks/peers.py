"""The same two calls (one document, one stream) in every stack that `client_cost.py` compares.

Each peer is an async context manager from a base URL to a `Calls`. A call returns how many content tokens it saw, and
the caller asserts the number: a stack cannot be fast by skipping work. Retries, timeouts and pools are each stack's own
defaults. (httpx with more kept-alive connections than its 20 is slower, not faster: its pool walks over all of them.)
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

MESSAGES = [{"role": "user", "content": "Write a few words about the sea."}]
HEADERS = {"authorization": "Bearer sk-bench"}
BODY = {"model": "bench", "messages": MESSAGES}
STREAM_BODY = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
MOST = 64
"""Calls in flight."""


class Calls(NamedTuple):
    """What one stack can do; both return the number of content tokens."""

    document: Callable[[], Awaitable[int]]
    stream: Callable[[], Awaitable[int]]


@asynccontextmanager
async def asyncinfer(url: str) -> AsyncIterator[Calls]:
    from asyncinfer import Conversation, ModelParams, RemoteInferenceEngine, RemoteParams

    conversation = Conversation.from_dict({"messages": MESSAGES})

    def engine(*, use_streaming: bool) -> RemoteInferenceEngine:
        # A fixed window, since no other stack here learns one: what is measured is the cost of a call.
        remote = RemoteParams(
            api_url=f"{url}/v1",
            api_key="sk-bench",
            num_workers=MOST,
            use_adaptive_concurrency=False,
            use_streaming=use_streaming,
        )
        return RemoteInferenceEngine(ModelParams(model_name="bench"), remote_params=remote)

    async with engine(use_streaming=False) as single, engine(use_streaming=True) as streaming:

        async def document() -> int:
            return (await single.generate(conversation)).text.count("token")

        async def stream() -> int:
            seen = 0
            async for token in streaming.stream(conversation):
                seen += token.count("token")
            return seen

        yield Calls(document, stream)


@asynccontextmanager
async def aiohttp(url: str) -> AsyncIterator[Calls]:
    import aiohttp

    url = f"{url}/v1/chat/completions"
    connector = aiohttp.TCPConnector(limit=MOST)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

        async def document() -> int:
            async with session.post(url, json=BODY) as response:
                answer = await response.json()
                return answer["choices"][0]["message"]["content"].count("token")

        async def stream() -> int:
            seen = 0
            async with session.post(url, json=STREAM_BODY) as response:
                async for line in response.content:
                    seen += tokens_of(line.strip())
            return seen

        yield Calls(document, stream)


@asynccontextmanager
async def httpx(url: str) -> AsyncIterator[Calls]:
    import httpx

    async with httpx.AsyncClient(headers=HEADERS, timeout=600) as client:
        yield httpx_calls(client, f"{url}/v1/chat/completions")


@asynccontextmanager
async def httpx2(url: str) -> AsyncIterator[Calls]:
    import httpx2

    async with httpx2.AsyncClient(headers=HEADERS, timeout=600) as client:
        yield httpx_calls(client, f"{url}/v1/chat/completions")


def httpx_calls(client, url: str) -> Calls:
    async def document() -> int:
        answer = (await client.post(url, json=BODY)).json()
        return answer["choices"][0]["message"]["content"].count("token")

    async def stream() -> int:
        seen = 0
        async with client.stream("POST", url, json=STREAM_BODY) as response:
            async for line in response.aiter_lines():
                seen += tokens_of(line)
        return seen

    return Calls(document, stream)


def tokens_of(line: str | bytes) -> int:
    """What a raw client has to do with one line of SSE."""
    if not line or line[6:] in ("[DONE]", b"[DONE]"):
        return 0
    choices = json.loads(line[6:])["choices"]
    return choices[0]["delta"].get("content", "").count("token") if choices else 0


@asynccontextmanager
async def openai(url: str) -> AsyncIterator[Calls]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-bench") as client:

        async def document() -> int:
            answer = await client.chat.completions.create(**BODY)
            return answer.choices[0].message.content.count("token")

        async def stream() -> int:
            seen = 0
            async for chunk in await client.chat.completions.create(**STREAM_BODY):
                if chunk.choices and chunk.choices[0].delta.content:
                    seen += chunk.choices[0].delta.content.count("token")
            return seen

        yield Calls(document, stream)


@asynccontextmanager
async def litellm(url: str) -> AsyncIterator[Calls]:
    import litellm

    litellm.suppress_debug_info = True
    where = {"api_base": f"{url}/v1", "api_key": "sk-bench", "model": "openai/bench", "messages": MESSAGES}

    async def document() -> int:
        answer = await litellm.acompletion(**where)
        return answer.choices[0].message.content.count("token")

    async def stream() -> int:
        seen = 0
        async for chunk in await litellm.acompletion(**where, stream=True, stream_options={"include_usage": True}):
            if chunk.choices and chunk.choices[0].delta.content:
                seen += chunk.choices[0].delta.content.count("token")
        return seen

    yield Calls(document, stream)


PEERS: dict[str, Callable[[str], AbstractAsyncContextManager[Calls]]] = {
    "asyncinfer": asyncinfer,
    "raw aiohttp": aiohttp,
    "raw httpx": httpx,
    "raw httpx2": httpx2,
    "openai": openai,
    "litellm": litellm,
}
MODULES = {name: name.removeprefix("raw ") for name in PEERS}
"""The distribution that a peer needs."""
