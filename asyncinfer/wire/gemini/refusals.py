"""Google's errors, where they say more than the rules that all providers share can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import APIError, AuthenticationError, RetryKind
from ..status import error_from_object, error_from_response

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY_REASONS = {"API_KEY_INVALID", "API_KEY_EXPIRED", "ACCESS_TOKEN_EXPIRED", "CREDENTIALS_MISSING"}


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The typed error of a response: a refused key comes as 400, and only its details tell."""
    error = error_from_response(status, headers, body)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return error
    return _checked(error, value)


def refusal_in_stream(value: Any) -> APIError:
    """The typed error of an error object that stands in a body with status 200."""
    return _checked(error_from_object(value), value)


def _checked(error: APIError, value: Any) -> APIError:
    reason = _reason(value)
    if reason not in _KEY_REASONS or isinstance(error, AuthenticationError):
        return error
    typed = AuthenticationError(
        error.message, status=error.status, request_id=error.request_id, code=reason, retry=RetryKind.NEVER
    )
    typed.rate = error.rate
    return typed


def _reason(value: Any) -> str | None:
    """``reason`` of the ``google.rpc.ErrorInfo`` among the details, if there is one."""
    if isinstance(value, list) and value:
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("ErrorInfo"):
            reason = detail.get("reason")
            return reason if isinstance(reason, str) else None
    return None
