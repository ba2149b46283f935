"""Gemini's own format: ``generateContent`` and ``streamGenerateContent``, at Google's developer API and on Vertex AI.

``encode``, ``contents`` and ``thinking`` make requests, ``decode`` (with ``chunks`` and ``partial``) reads answers,
``server`` writes answers. What differs between the two services is in the `Dialect`: its ``path`` is the collection
that models live in (``/models/``).

What a model sends besides text is kept where it can travel back: the signature of a call in the call's
``extra_content`` (as Google's OpenAI-compatible endpoint has it), everything else in the message's
``reasoning_details``, each entry with a ``type`` that begins with ``google.``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ..rates import rate_headers
from ..sse import MAX_EVENT_BYTES
from ..status import request_id
from ..unwrapping import unwrapped
from .decode import GeminiDecoder
from .encode import encode_request, unsupported
from .refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...dialect import Dialect
    from ...errors import AsyncInferError
    from ...limits import RateHeaders
    from ...request import Request
    from ..protocol import Decoder, WireRequest


class GeminiCodec:
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
        expected = request.asked("n") if "n" in dialect.fields else None
        decoder = GeminiDecoder(expected or 1, max_event_bytes=self.max_event_bytes)
        return unwrapped(decoder, request, dialect)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> AsyncInferError:
        return refusal(status, headers, body)

    def rate_headers(self, headers: Mapping[str, str], now: float, dialect: Dialect | None = None) -> RateHeaders:
        return rate_headers(headers, now, dialect.rate_windows if dialect is not None else None)

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)


_LAZY = {"GeminiEncoder": "server", "error_response": "server"}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["GeminiCodec", "GeminiDecoder"]
