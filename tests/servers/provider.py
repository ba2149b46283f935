"""A fake OpenAI-compatible provider: ``POST /v1/chat/completions`` (stream and not) and ``GET /v1/models``.

By default it answers with the last user message, so an answer tells which conversation it belongs to. Knobs, all of
them attributes that may be turned while it runs, slow it down, make it fail, make it limit rates. What it saw is in
`stats`. A raw asyncio protocol: some ten thousand small answers a second on one core.

In a process of its own (to measure a client's CPU, or to be killed)::

    python -m tests.servers.provider --port 0 --tokens 64 --delay 0.02      # prints its URL

Fast is the aim, HTTP in general is not: it reads what clients of this project send (HTTP/1.1, Content-Length).
"""

from __future__ import annotations

import argparse
import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import msgspec

from .background import Background
from .openai_bytes import PIECES, Reply, document, response, stream_writes

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_KEY = re.compile(rb"\r\nauthorization: *bearer +([^\r]+)", re.IGNORECASE)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Fail:
    """A rule about requests that go wrong: the first rule that matches and has ``times`` left decides.

    Attributes:
        status, body, headers: answer this instead. ``body`` may be bytes or JSON.
        cut_after: answer well, but drop the connection after so many tokens (0: before the head).
        times: how often; None for always.
        every: only each n-th request that the rule sees.
        match: only requests whose parsed body it accepts.
    """

    status: int = 500
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    times: int | None = None
    every: int = 1
    match: Callable[[dict[str, Any]], bool] | None = None
    seen: int = 0


@dataclass(slots=True)
class Request:
    """What a client asked: ``body`` parsed, ``head`` the raw request head, ``at`` on `time.monotonic`."""

    path: str
    head: bytes
    body: Any
    at: float
    connection: int

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


@dataclass(slots=True)
class Disconnect:
    """A client that went before its answer was complete."""

    at: float
    tokens_sent: int
    body: Any


@dataclass(slots=True)
class Stats:
    """What the provider saw. ``requests`` holds the last ``FakeProvider.keep`` of them; the counters count all."""

    requests: deque[Request]
    served: int = 0
    completed: int = 0
    rejected: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    connections: int = 0
    open_connections: int = 0
    tokens: int = 0
    disconnects: list[Disconnect] = field(default_factory=list)


class FakeProvider(Background):
    """See the module.

    Args:
        tokens: pieces of each answer: the reply's words, repeated or cut to so many; None for the words as they are.
        first_token, per_token: seconds before the first piece, and before each further one.
        coalesce: pieces in one network write.
        reply: makes the answer from the parsed request; a `Reply` or its text. Default: the last user message.
        fail: rules for requests that go wrong, see `Fail`.
        rpm, window: so many requests in each ``window`` seconds, then 429 with ``retry-after``; None for no limit.
        rate_headers: send ``x-ratelimit-*-requests`` (needs ``rpm``).
        usage: ``"asked"`` as OpenAI does, ``"always"`` in the last chunk, ``"never"``.
        done: send ``data: [DONE]``.
        key: the only API key it takes, or None for any.
        keep: how many requests it remembers.
    """

    def __init__(
        self,
        *,
        tokens: int | None = None,
        first_token: float = 0.0,
        per_token: float = 0.0,
        coalesce: int = 1,
        reply: Callable[[dict[str, Any]], Reply | str] | None = None,
        fail: list[Fail] | None = None,
        rpm: int | None = None,
        window: float = 60.0,
        rate_headers: bool = True,
        usage: str = "asked",
        done: bool = True,
        key: str | None = None,
        models: tuple[str, ...] = ("fake-1", "fake-2"),
        keep: int = 10_000,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(ssl_context)
        self.tokens = tokens
        self.first_token = first_token
        self.per_token = per_token
        self.coalesce = coalesce
        self.reply = reply or last_user_message
        self.fail = list(fail or [])
        self.rpm = rpm
        self.window = window
        self.rate_headers = rate_headers
        self.usage = usage
        self.done = done
        self.key = key
        self.models = models
        self.keep = keep
        self.stats = Stats(deque(maxlen=keep))
        self._window_start = 0.0
        self._window_used = 0

    @property
    def url(self) -> str:
        """The base URL, with ``/v1``."""
        return f"{self.origin}/v1"

    def protocol(self) -> asyncio.Protocol:
        return _Connection(self)

    def pieces(self, text: str) -> list[str]:
        """The answer's text as it is streamed."""
        words = PIECES.findall(text) or [text]
        if self.tokens is None:
            return words
        spaced = [word if word[:1].isspace() else f" {word}" for word in words]
        return [words[0], *islice(cycle([*spaced[1:], spaced[0]]), self.tokens - 1)][: self.tokens]

    def verdict(self, body: dict[str, Any]) -> Fail | None:
        """The failure rule for this request, if any."""
        for rule in self.fail:
            if rule.times == 0 or (rule.match is not None and not rule.match(body)):
                continue
            rule.seen += 1
            if rule.seen % rule.every:
                continue
            if rule.times is not None:
                rule.times -= 1
            return rule
        return None

    def admit(self, now: float) -> tuple[bool, dict[str, str]]:
        """Whether the rate limit lets a request pass, and the headers that say so."""
        if self.rpm is None:
            return True, {}
        if now - self._window_start >= self.window:
            self._window_start, self._window_used = now, 0
        reset = self._window_start + self.window - now
        admitted = self._window_used < self.rpm
        self._window_used += admitted
        headers = {}
        if self.rate_headers:
            headers = {
                "x-ratelimit-limit-requests": str(self.rpm),
                "x-ratelimit-remaining-requests": str(self.rpm - self._window_used),
                "x-ratelimit-reset-requests": f"{reset * 1000:.0f}ms" if reset < 1 else f"{reset:.3f}s",
            }
        if not admitted:
            headers["retry-after"] = f"{reset:.3f}"
        return admitted, headers


def last_user_message(body: dict[str, Any]) -> str:
    """The text of the last user message of a request."""
    for message in reversed(body.get("messages", [])):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content)
    return ""


class _Answer:
    """One answer on its way: network writes, each with the number of tokens in it, played one after another."""

    __slots__ = ("body", "cut_after", "sent", "timer", "writes")

    def __init__(self, body: Any, writes: deque[tuple[bytes, int]], cut_after: int | None) -> None:
        self.body = body
        self.writes = writes
        self.cut_after = cut_after
        self.sent = 0
        self.timer: asyncio.TimerHandle | None = None


class _Connection(asyncio.Protocol):
    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider
        self.transport: asyncio.Transport
        self.buffer = b""
        self.answer: _Answer | None = None
        self.paused = False
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.provider.transports.add(transport)
        stats = self.provider.stats
        stats.connections += 1
        stats.open_connections += 1
        self.number = stats.connections

    def connection_lost(self, exc: Exception | None) -> None:
        self.provider.transports.discard(self.transport)
        self.provider.stats.open_connections -= 1
        if self.answer is not None:
            self._gone()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.answer is not None and self.answer.timer is None:
            self._play()

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        while self.answer is None and self.buffer:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end]
            found = _LENGTH.search(head)
            stop = end + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < stop:
                return
            body, self.buffer = self.buffer[end + 4 : stop], self.buffer[stop:]
            self._serve(head, body)

    def _serve(self, head: bytes, raw: bytes) -> None:
        provider = self.provider
        stats = provider.stats
        now = time.monotonic()
        method, path = head.split(b" ", 2)[:2]
        body = _decode(raw) if raw else None
        stats.served += 1
        stats.requests.append(Request(path.decode("latin-1"), head, body, now, self.number))
        if provider.key is not None:
            sent = _KEY.search(head)
            if sent is None or sent[1] != provider.key.encode():
                self._error(401, "Incorrect API key provided", "invalid_api_key")
                return
        if method == b"GET" and path.endswith(b"/models"):
            data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in provider.models]
            self._send(200, _encode({"object": "list", "data": data}))
            return
        if method != b"POST" or not path.endswith(b"/chat/completions"):
            self._error(404, f"Unknown path {path.decode()}", "not_found")
            return
        self._complete(body, now)

    def _complete(self, body: dict[str, Any], now: float) -> None:
        provider = self.provider
        admitted, rate = provider.admit(now)
        if not admitted:
            self._error(429, "Rate limit reached for requests", "rate_limit_exceeded", rate)
            return
        rule = provider.verdict(body)
        if rule is not None and rule.cut_after is None:
            provider.stats.rejected += 1
            failure = rule.body if rule.body is not None else {"error": {"message": "as told", "type": "server_error"}}
            content = failure if isinstance(failure, bytes) else _encode(failure)
            self._send(rule.status, content, {**rate, **rule.headers})
            return
        made = provider.reply(body)
        reply = made if isinstance(made, Reply) else Reply(made)
        cut = rule.cut_after if rule is not None else None
        if cut == 0:
            self.transport.abort()
            return
        if body.get("stream"):
            writes = stream_writes(provider, body, reply, rate)
        else:
            writes = deque([(document(provider, body, reply, rate), 0)])
        self._begin(_Answer(body, writes, cut))

    def _begin(self, answer: _Answer) -> None:
        provider, stats = self.provider, self.provider.stats
        self.answer = answer
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        streamed = len(answer.writes) > 1
        whole = provider.first_token if streamed else provider.first_token + provider.per_token * (provider.tokens or 0)
        if streamed:
            self.transport.write(answer.writes.popleft()[0])  # the head: accepted
        if whole:
            answer.timer = provider.loop.call_later(whole, self._play)
        elif provider.per_token == 0 and answer.cut_after is None:
            self._burst(answer)
        else:
            self._play()

    def _burst(self, answer: _Answer) -> None:
        """Everything at once: one system call for an answer."""
        answer.sent = sum(tokens for _, tokens in answer.writes)
        self._finished(answer)  # counted first: a client that has the answer may look at the counters
        self.transport.write(b"".join(data for data, _ in answer.writes))

    def _play(self) -> None:
        answer, provider = self.answer, self.provider
        assert answer is not None
        answer.timer = None
        while not self.paused:
            data, tokens = answer.writes.popleft()
            answer.sent += tokens
            if not answer.writes and answer.cut_after is None:
                self._finished(answer)
                self.transport.write(data)
                if self.buffer:
                    self.data_received(b"")
                return
            self.transport.write(data)
            if answer.cut_after is not None and answer.sent >= answer.cut_after:
                self.answer = None
                provider.stats.in_flight -= 1
                self.transport.close()
                return
            if not answer.writes:  # the cut would come after the end
                self._finished(answer)
                return
            if provider.per_token and answer.writes[0][1]:
                answer.timer = provider.loop.call_later(provider.per_token * answer.writes[0][1], self._play)
                return

    def _finished(self, answer: _Answer) -> None:
        stats = self.provider.stats
        stats.in_flight -= 1
        stats.completed += 1
        stats.tokens += answer.sent
        self.answer = None

    def _gone(self) -> None:
        answer, stats = self.answer, self.provider.stats
        assert answer is not None
        self.answer = None
        if answer.timer is not None:
            answer.timer.cancel()
        stats.in_flight -= 1
        stats.disconnects.append(Disconnect(time.monotonic(), answer.sent, answer.body))

    def _error(self, status: int, message: str, code: str, headers: dict[str, str] | None = None) -> None:
        self.provider.stats.rejected += 1
        self._send(status, _encode({"error": {"message": message, "type": code, "code": code}}), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.transport.write(response(status, body, headers))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.provider", description="A fake provider.")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--tokens", type=int, default=None, help="pieces of each answer")
    parser.add_argument("--first-token", type=float, default=0.0, help="seconds before the first piece")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each further piece")
    parser.add_argument("--coalesce", type=int, default=1, help="pieces in one network write")
    parser.add_argument("--rpm", type=int, default=None, help="requests for each minute, then 429")
    options = parser.parse_args()
    provider = FakeProvider(
        tokens=options.tokens,
        first_token=options.first_token,
        per_token=options.delay,
        coalesce=options.coalesce,
        rpm=options.rpm,
        keep=100,
    )
    with suppress(KeyboardInterrupt):
        asyncio.run(provider.serve(options.port, lambda: print(provider.url, flush=True)))


if __name__ == "__main__":
    main()
