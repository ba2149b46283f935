"""Converse as it lies in the files of a batch: the body of a call as JSON, blobs in base64, and the answer likewise."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ...errors import ProtocolError
from ..protocol import Decoder, WireRequest
from ..rates import rate_headers
from ..status import error_from_response, request_id
from ..unwrapping import unwrapped
from .decode import read_document
from .encode import answers_by_call, encode_request, unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...dialect import Dialect
    from ...errors import AsyncInferError
    from ...events import Event
    from ...limits import RateHeaders
    from ...request import Request


class ConverseRows:
    """See `wire.protocol.Codec`. Everywhere else the service's own library writes and reads the JSON."""

    def encode(self, request: Request, dialect: Dialect) -> WireRequest:
        body = encode_request(request, dialect)
        path = f"/model/{quote(body.pop('modelId'), safe='')}/converse"
        return WireRequest(path, msgspec.json.encode(body), {"content-type": "application/json"})

    def decoder(self, request: Request, dialect: Dialect, content_type: str) -> Decoder:  # noqa: ARG002
        decoder = DocumentDecoder(request.model.model_name or "")
        return unwrapped(decoder, request, dialect, called=answers_by_call(request))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> AsyncInferError:
        return error_from_response(status, headers, body)

    def rate_headers(self, headers: Mapping[str, str], now: float, dialect: Dialect | None = None) -> RateHeaders:
        return rate_headers(headers, now, dialect.rate_windows if dialect is not None else None)

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        return request_id(headers)

    def unsupported(self, request: Request, dialect: Dialect) -> list[str]:
        return unsupported(request, dialect)


class DocumentDecoder:
    """See `wire.protocol.Decoder`: one answer, which is whole when its bytes end."""

    done = False
    complete = False

    def __init__(self, model: str = "") -> None:
        self._model = model
        self._chunks: list[bytes] | None = []

    def feed(self, chunk: bytes) -> list[Event]:
        if self._chunks is not None:
            self._chunks.append(chunk)
        return []

    def close(self) -> list[Event]:
        if self._chunks is None:
            return []
        raw, self._chunks = b"".join(self._chunks), None
        try:
            document = msgspec.json.decode(raw)
            _unseal(document)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ProtocolError("the answer has a shape that Converse does not have") from error
        return read_document(document, self._model)


def _unseal(document: dict[str, Any]) -> None:
    """Turn the blobs that `read_document` reads into bytes."""
    for block in document["output"]["message"]["content"]:
        reasoning = block.get("reasoningContent")
        if reasoning is not None and reasoning.get("redactedContent") is not None:
            reasoning["redactedContent"] = b64decode(reasoning["redactedContent"], validate=True)
