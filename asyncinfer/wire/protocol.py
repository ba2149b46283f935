"""The seam between codecs and the engines that drive them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from ..dialect import Dialect
    from ..errors import AsyncInferError
    from ..events import Event
    from ..limits import RateHeaders
    from ..request import Request


class WireRequest(msgspec.Struct):
    """One HTTP request as a codec makes it: no host, no credentials.

    ``path`` is relative to the provider's base URL (``"/chat/completions"``).
    """

    path: str
    body: bytes
    headers: dict[str, str]
    method: str = "POST"


class Decoder(Protocol):
    """Turns the chunks of one response body into events, however the bytes are cut.

    Attributes:
        done: the format's terminal marker was seen: nothing of the answer can follow, and the body's end need not be
            waited for.
    """

    done: bool

    @property
    def complete(self) -> bool:
        """Whether the answer is whole as it is: if the connection breaks now, `close` gives its last events."""
        ...

    def feed(self, chunk: bytes) -> list[Event]:
        """Events that ``chunk`` completes, in order (an empty list is usual). Raises `AsyncInferError` for an error
        that the provider sends inside the stream, `ProtocolError` for bytes that are not the format; events that came
        before the error are handed out first, and the error is raised by the next call."""
        ...

    def close(self) -> list[Event]:
        """The body ended. Events that only the end completes; raises `StreamTruncated` if the format's terminal
        marker was not seen. Idempotent: call until it gives no events, an error may follow them."""
        ...


class Codec(Protocol):
    """One wire format, client side."""

    def encode(self, request: Request, dialect: Dialect) -> WireRequest:
        """The bytes that ask for an answer. Raises `ConfigError` for what the format cannot say."""
        ...

    def decoder(self, request: Request, dialect: Dialect, content_type: str) -> Decoder:
        """A fresh decoder for one response body; ``content_type`` decides between stream and single document."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> AsyncInferError:
        """The typed error, with its retry verdict, for a response with ``status >= 400``."""
        ...

    def rate_headers(self, headers: Mapping[str, str], now: float, dialect: Dialect | None = None) -> RateHeaders:
        """The rate-limit headers of a response; ``now`` is the wall clock in seconds since the epoch. ``dialect`` knows
        the windows that header names do not tell."""
        ...

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        """The provider's id of the request, for its support desk."""
        ...

    def unsupported(self, request: Request, dialect: Dialect) -> list[str]:
        """Names of parameters, set to something other than their default, that `encode` cannot send."""
        ...
