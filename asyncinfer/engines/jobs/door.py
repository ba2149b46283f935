"""The way to a provider's batch API: JSON both ways, files up, lines down; with patience where that is safe.

Rule: what may be done twice is tried again, as the endpoint's retry settings say. Creating a job may not: it is tried
again only where the answer says that nothing was created.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import anyio
import msgspec

from ...errors import (
    AsyncInferError,
    ConnectError,
    ConnectTimeout,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    RetryKind,
    TransportError,
)
from ..exchange import read_all
from .lines import Lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tenacity import RetryCallState

    from ...transport.protocol import Exchange, Transport, Upload
    from ..endpoint import Endpoint

T = TypeVar("T")

_MAX_PAGE_BYTES = 64 << 20
_CONNECT = 30.0
_SILENCE = 300.0
"""Seconds that a provider may be silent."""
_SLOWEST = 20_000
"""Bytes a second that an upload makes at least."""
_ATTEMPTS = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

_NOTHING_DONE = (ConnectError, ConnectTimeout, RateLimitError, OverloadedError)
"""Errors that say that a request was not acted on."""


class Answer(NamedTuple):
    """A whole response: headers (names in lower case) and body."""

    headers: Mapping[str, str]
    body: bytes


class Door:
    """Speaks to one endpoint. Every ``path`` is one below the provider's base, or a whole URL; a URL of another origin
    than the base's gets no credentials and none of the user's headers."""

    def __init__(self, transport: Transport, endpoint: Endpoint) -> None:
        self._transport = transport
        self.endpoint = endpoint

    def check(self) -> None:
        """Whether everything is set that a new job needs. Raises `ConfigError`."""

    def url(self, path: str) -> str:
        """The URL of a path."""
        return path if path.startswith(("http://", "https://")) else self.endpoint.urls.join(path)

    def beside(self, part: str, path: str) -> str:
        """The URL of a path that lies below ``part`` where the base lies below the host."""
        base = urlsplit(self.endpoint.urls.base)
        return self.endpoint.urls._replace(base=f"{base.scheme}://{base.netloc}{part}{base.path}").join(path)

    async def get(self, path: str) -> dict[str, Any]:
        """A JSON object. Raises `AsyncInferError`."""
        return await self.persist(lambda: self._json("GET", path), may_repeat)

    async def post(self, path: str, value: Any = None, *, once: bool = False) -> dict[str, Any]:
        """Send a JSON value (or nothing), get an object. ``once``: doing it twice would be a mistake."""
        body = b"" if value is None else msgspec.json.encode(value)
        return await self.upload(path, body, "application/json", once=once)

    async def upload(self, path: str, body: bytes | Upload, content_type: str, *, once: bool = False) -> dict[str, Any]:
        """Send a body, get an object."""
        headers = {"content-type": content_type} if body != b"" else {}
        return await self.persist(
            lambda: self._json("POST", path, body, headers), nothing_was_done if once else may_repeat
        )

    async def lines(self, path: str) -> Lines:
        """The lines of a file. Raises `AsyncInferError` if it cannot be had."""

        async def begin() -> Lines:
            exchange = await self._open("GET", path)
            return Lines(exchange, _SILENCE, path.partition("?")[0], self.endpoint.provider.name)

        return await self.persist(begin, may_repeat)

    async def persist(self, attempt: Callable[[], Awaitable[T]], again: Callable[[BaseException], bool]) -> T:
        """Call ``attempt`` until it succeeds, fails with an error that is not to be tried ``again``, or has failed as
        often as the endpoint's settings allow."""
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

        retries = self.endpoint.limits.max_retries

        async def once() -> T:
            return await attempt()

        return await AsyncRetrying(
            retry=retry_if_exception(again),
            wait=self.pause,
            stop=stop_after_attempt(_ATTEMPTS if retries is None else retries + 1),
            sleep=anyio.sleep,
            reraise=True,
        )(once)

    def pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt: what the provider asked for, else longer each time, with jitter."""
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after if isinstance(error, AsyncInferError) else None
        limits = self.endpoint.limits
        first = _FIRST_PAUSE if limits.backoff_first is None else limits.backoff_first
        most = _LONGEST_PAUSE if limits.backoff_most is None else limits.backoff_most
        grown = min(most, first * 2.0 ** (state.attempt_number - 1))
        return max(asked or 0.0, grown * random.uniform(0.5, 1.0))  # noqa: S311 -- jitter, no secret

    async def _json(
        self, method: str, path: str, body: bytes | Upload = b"", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        answer = await self.once(method, path, body, headers)
        return self.object_of(answer, path)

    def object_of(self, answer: Answer, path: str) -> dict[str, Any]:
        """The JSON object that is the answer's body. Raises `ProtocolError`."""
        with contextlib.suppress(msgspec.DecodeError):
            value = msgspec.json.decode(answer.body or b"{}")
            if isinstance(value, dict):
                return value
        name = self.endpoint.provider.name
        raise ProtocolError(f"{self.url(path).partition('?')[0]} did not answer with a JSON object", provider=name)

    async def once(
        self,
        method: str,
        path: str,
        body: bytes | Upload = b"",
        headers: Mapping[str, str] | None = None,
        *,
        follow: bool = True,
    ) -> Answer:
        """One attempt of one request; see `persist` for more, and `transport.protocol` for ``follow``. Raises
        `AsyncInferError`."""
        exchange = await self._open(method, path, body, headers, follow=follow)
        try:
            with quiet_for(_SILENCE, path):
                raw = await read_all(exchange, _MAX_PAGE_BYTES)
            await exchange.aclose()
        finally:
            exchange.abort()
        return Answer(exchange.headers, raw)

    async def _open(
        self,
        method: str,
        path: str,
        body: bytes | Upload = b"",
        headers: Mapping[str, str] | None = None,
        *,
        follow: bool = True,
    ) -> Exchange:
        endpoint = self.endpoint
        url = self.url(path)
        sent: Mapping[str, str]
        here, there = _origin(endpoint.urls.base), _origin(url)
        trusted = here == there
        if here[0] == "https" and there[0] != "https":
            what = "the provider names a place for a file that is not encrypted: refused"
            raise TransportError(what, provider=endpoint.provider.name, retry=RetryKind.NEVER)
        if trusted:
            now = {} if endpoint.credential is None else await endpoint.credential.headers()
            sent = endpoint.headers.plus({**(headers or {}), **now})
        else:
            sent = {"user-agent": endpoint.headers["user-agent"], **(headers or {})}
        size = len(body) if isinstance(body, bytes) else body.size
        with quiet_for(_SILENCE + size / _SLOWEST, path):
            exchange = await self._transport.open(
                method, url, sent, body, connect_timeout=_CONNECT, follow=follow, trusted=trusted
            )
        if exchange.status < 400:
            return exchange
        try:
            with quiet_for(_SILENCE, path):
                raw = await read_all(exchange, _MAX_PAGE_BYTES)
            raise endpoint.blamed(endpoint.codec.error(exchange.status, exchange.headers, raw))
        finally:
            exchange.abort()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


@contextlib.contextmanager
def quiet_for(seconds: float, what: str) -> Any:
    """Turn a silence of more than ``seconds`` into a `TransportError`."""
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise TransportError(f"no answer to {what.partition('?')[0]} within {seconds:.0f} s")


def may_repeat(error: BaseException) -> bool:
    """For requests that may be done twice."""
    return isinstance(error, AsyncInferError) and error.retryable


def nothing_was_done(error: BaseException) -> bool:
    """For requests that may not."""
    return isinstance(error, _NOTHING_DONE) and error.retryable
