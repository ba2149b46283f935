"""A server that costs next to nothing, so that a client's cost can be seen: OpenAI Chat Completions, canned.

It runs in a process of its own (`serving`), on one bare ``asyncio.Protocol``; every answer is rendered before the first
request. The URL says what comes back: ``http://host:port/<tokens>/<milliseconds between tokens>/v1/chat/completions``.
One token is one SSE event, one HTTP chunk and (paced) one TCP segment, as a real model sends it; with 0 ms the answer
is written at once and the client's reads coalesce. The grammar of HTTP is cut to what the clients measured here send.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import cycle, islice

WORDS = tuple(f" token{n}" for n in range(10))
"""One token each, in turn: some clients take one word said again and again for a broken model."""


def words(tokens: int) -> Iterator[str]:
    return islice(cycle(WORDS), tokens)


def chunk(delta: dict[str, object], finish: str | None = None, **more: object) -> bytes:
    """One event of about 220 bytes, framed for SSE and for HTTP."""
    document = {
        "id": "chatcmpl-8f14e45fceea167a5a36dedd4bea2543",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "bench",
        "system_fingerprint": "fp_1234567890",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        **more,
    }
    event = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}


HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
ROLE = chunk({"role": "assistant", "content": ""})
TOKENS = tuple(chunk({"content": word}) for word in WORDS)
FINISH = chunk({}, "stop")
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def end(tokens: int, *, with_usage: bool) -> bytes:
    return FINISH + (chunk({}, choices=[], usage=usage(tokens)) if with_usage else b"") + DONE


@lru_cache
def streamed(tokens: int, with_usage: bool) -> bytes:
    return HEAD + ROLE + b"".join(islice(cycle(TOKENS), tokens)) + end(tokens, with_usage=with_usage)


@lru_cache
def document(tokens: int) -> bytes:
    message = {"role": "assistant", "content": "".join(words(tokens)).strip()}
    body = {
        "id": "chatcmpl-8f14e45fceea167a5a36dedd4bea2543",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "bench",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(tokens),
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (head_end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:head_end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < head_end + 4 + length:
                return
            body = self.buffer[head_end + 4 : head_end + 4 + length]
            self.buffer = self.buffer[head_end + 4 + length :]
            self.answer(head.split(b" ", 2)[1].decode(), body.replace(b": ", b":").replace(b", ", b","))

    def answer(self, path: str, body: bytes) -> None:
        _, tokens, delay, *_ = path.split("/")
        if b'"stream":true' not in body:
            self.transport.write(document(int(tokens)))
        elif delay == "0":
            self.transport.write(streamed(int(tokens), b'"include_usage":true' in body))
        else:
            loop = asyncio.get_running_loop()
            self.transport.write(HEAD + ROLE)
            last = end(int(tokens), with_usage=b'"include_usage":true' in body)
            self.pace(loop, loop.time(), int(tokens), int(delay) / 1000, last)

    def pace(self, loop: asyncio.AbstractEventLoop, at: float, left: int, delay: float, last: bytes) -> None:
        if left == 0:
            self.transport.write(last)
            return
        self.transport.write(TOKENS[left % len(TOKENS)])
        self.timer = loop.call_at(at + delay, self.pace, loop, at + delay, left - 1, delay, last)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # ends with the process that started it
    server.close()


@contextmanager
def serving() -> Iterator[str]:
    """Start the server in a process of its own; gives ``http://127.0.0.1:port``."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(10)


if __name__ == "__main__":
    asyncio.run(serve())
