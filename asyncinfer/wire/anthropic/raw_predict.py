"""Anthropic Messages as Vertex AI carries them: the model stands in the path, the version of the format in the body."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from ..asking import JSON_HEADERS
from ..protocol import WireRequest
from . import AnthropicCodec
from .encode import request_body

if TYPE_CHECKING:
    from ...dialect import Dialect
    from ...request import Request

_VERSION = "vertex-2023-10-16"


class RawPredictCodec(AnthropicCodec):
    """The client side of ``rawPredict`` and ``streamRawPredict``. ``extra_body`` may name another
    ``anthropic_version``; the dialect's path is the publisher's (``/publishers/anthropic/``)."""

    def encode(self, request: Request, dialect: Dialect) -> WireRequest:
        body = {"anthropic_version": _VERSION, **request_body(request, dialect)}
        model = quote(str(body.pop("model") or "").rpartition("/")[2], safe="@")
        method = "streamRawPredict" if body.get("stream") else "rawPredict"
        return WireRequest(f"{dialect.path}models/{model}:{method}", msgspec.json.encode(body), dict(JSON_HEADERS))
