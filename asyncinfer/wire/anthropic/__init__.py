"""Anthropic Messages, both directions.

``encode`` (with ``blocks``, ``schema`` and the models' rules in ``models``) makes requests, ``decode`` (with
``chunks``, ``usage``) reads answers, ``read`` reads a client's request and ``server`` writes answers. What differs
between servers is in the `Dialect`; what differs between models of one server is in ``models``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..rates import rate_headers
from ..sse import MAX_EVENT_BYTES
from ..status import request_id
from ..unwrapping import unwrapped
from .decode import AnthropicDecoder
from .encode import answers_by_call, encode_request, unsupported
from .errors import read_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...dialect import Dialect
    from ...errors import AsyncInferError
    from ...limits import RateHeaders
    from ...request import Request
    from ..protocol import Decoder, WireRequest


class AnthropicCodec:
    """The client side. See `wire.protocol.Codec`.

    Args:
        max_event_bytes: bound of one streamed event; a whole document may be four times as big.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.max_event_bytes = max_event_bytes

    def encode(self, request: Request, dialect: Dialect) -> WireRequest:
        return encode_request(request, dialect)

    def unsupported(self, request: Request, dialect: Dialect) -> list[str]:
        return unsupported(request, dialect)

    def decoder(self, request: Request, dialect: Dialect, content_type: str) -> Decoder:  # noqa: ARG002
        # The body's first byte tells streams and documents apart more reliably than `content_type`.
        decoder = AnthropicDecoder(max_event_bytes=self.max_event_bytes)
        return unwrapped(decoder, request, dialect, called=answers_by_call(request))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> AsyncInferError:
        return read_error(status, headers, body)

    def rate_headers(self, headers: Mapping[str, str], now: float, dialect: Dialect | None = None) -> RateHeaders:
        return rate_headers(headers, now, dialect.rate_windows if dialect is not None else None)

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)


_LAZY = {
    "MessagesRequest": "read",
    "parse_messages_request": "read",
    "MessagesEncoder": "server",
    "error_response": "server",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["AnthropicCodec", "AnthropicDecoder"]
