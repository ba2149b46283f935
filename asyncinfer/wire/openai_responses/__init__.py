"""OpenAI Responses, client side: the format that OpenAI's reasoning models are at their best in.

``encode`` and ``items`` make requests, ``decode`` reads answers. Requests are stateless (``store: false``): the whole
conversation travels with each, the model's encrypted reasoning included. What must travel back and has no place of its
own in a message is kept in its ``reasoning_details``: reasoning items and calls of the provider's own tools verbatim,
and, where the order matters, ``output_message`` and ``output_call`` entries that mark where text and calls stood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..rates import rate_headers
from ..sse import MAX_EVENT_BYTES
from ..status import error_from_response, request_id
from ..unwrapping import unwrapped
from .decode import ResponsesDecoder
from .encode import encode_request, unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...dialect import Dialect
    from ...errors import AsyncInferError
    from ...limits import RateHeaders
    from ...request import Request
    from ..protocol import Decoder, WireRequest


class OpenAIResponsesCodec:
    """See `wire.protocol.Codec`.

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
        return unwrapped(ResponsesDecoder(max_event_bytes=self.max_event_bytes), request, dialect)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> AsyncInferError:
        return error_from_response(status, headers, body)

    def rate_headers(self, headers: Mapping[str, str], now: float, dialect: Dialect | None = None) -> RateHeaders:
        return rate_headers(headers, now, dialect.rate_windows if dialect is not None else None)

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)


__all__ = ["OpenAIResponsesCodec", "ResponsesDecoder"]
