"""The format's error bodies: `wire.status` reads them all, but for one detail of this format.

``error.details.error_code`` says more exactly what the type says roughly (which spend limit was reached); it counts as
the code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..status import error_from_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...errors import APIError


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The typed error, with its verdict, for a response with ``status >= 400``."""
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return error_from_response(status, headers, body)
    inner = value.get("error") if isinstance(value, dict) else None
    details = inner.get("details") if isinstance(inner, dict) else None
    if isinstance(inner, dict) and isinstance(details, dict) and isinstance(details.get("error_code"), str):
        inner.setdefault("code", details["error_code"])
        body = msgspec.json.encode(value)
    error = error_from_response(status, headers, body)
    if error.request_id is None and isinstance(value, dict) and isinstance(value.get("request_id"), str):
        error.request_id = value["request_id"]
    return error
