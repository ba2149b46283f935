"""What an exception of Bedrock means: its name and status to one typed error with its verdict.

The same names come as HTTP errors (``ThrottlingException``) and inside a stream (``throttlingException``). What is not
in the table is judged by its HTTP status, like any provider's answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ...errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RetryKind,
    ServerError,
)
from ..moments import retry_after
from ..status import error_from_response, redact, request_id

if TYPE_CHECKING:
    from collections.abc import Mapping

_NEVER, _THROTTLED, _OVERLOADED, _TRANSIENT = (
    RetryKind.NEVER,
    RetryKind.THROTTLED,
    RetryKind.OVERLOADED,
    RetryKind.TRANSIENT,
)
_KNOWN: dict[str, tuple[type[APIError], int, RetryKind]] = {
    "throttlingexception": (RateLimitError, 429, _THROTTLED),
    "throttling": (RateLimitError, 429, _THROTTLED),
    "toomanyrequestsexception": (RateLimitError, 429, _THROTTLED),
    "modelnotreadyexception": (OverloadedError, 429, _OVERLOADED),  # the model is being loaded: not our rate
    "serviceunavailableexception": (OverloadedError, 503, _OVERLOADED),
    "serviceunavailable": (OverloadedError, 503, _OVERLOADED),
    "internalserverexception": (ServerError, 500, _TRANSIENT),
    "internalfailure": (ServerError, 500, _TRANSIENT),
    "modeltimeoutexception": (ServerError, 408, _TRANSIENT),
    "requesttimeout": (ServerError, 408, _TRANSIENT),
    "requesttimeoutexception": (ServerError, 408, _TRANSIENT),
    "modelerrorexception": (ServerError, 424, _TRANSIENT),
    "modelstreamerrorexception": (ServerError, 424, _TRANSIENT),
    "servicequotaexceededexception": (QuotaExceededError, 400, _NEVER),
    "validationexception": (BadRequestError, 400, _NEVER),
    "conflictexception": (BadRequestError, 400, _NEVER),
    "resourcenotfoundexception": (NotFoundError, 404, _NEVER),
    "accessdeniedexception": (PermissionDeniedError, 403, _NEVER),
    "unrecognizedclientexception": (AuthenticationError, 403, _NEVER),
    "invalidclienttokenid": (AuthenticationError, 403, _NEVER),
    "invalidsignatureexception": (AuthenticationError, 403, _NEVER),
    "signaturedoesnotmatch": (AuthenticationError, 403, _NEVER),
    "incompletesignature": (AuthenticationError, 403, _NEVER),
    "incompletesignatureexception": (AuthenticationError, 403, _NEVER),
    "missingauthenticationtoken": (AuthenticationError, 403, _NEVER),
    "missingauthenticationtokenexception": (AuthenticationError, 403, _NEVER),
    "expiredtoken": (AuthenticationError, 403, _NEVER),
    "expiredtokenexception": (AuthenticationError, 403, _NEVER),
    "requestexpired": (AuthenticationError, 403, _NEVER),
}
_OF_THE_MODEL = {"modelerrorexception", "modelstreamerrorexception"}


def refusal(
    code: str,
    message: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    original_status: int | None = None,
) -> APIError:
    """The typed error of an exception of the service; ``provider`` is for the engine to fill in.

    Args:
        code: name of the exception, in either spelling.
        message: what the service says.
        status: HTTP status; None inside a stream.
        headers: response headers, names in lower case.
        original_status: the status that the model's own server gave, where Bedrock tells it.
    """
    found = _KNOWN.get(code.lower())
    headers = headers or {}
    if found is None:
        body = msgspec.json.encode({"message": message, "code": code or None})
        return error_from_response(status or 500, headers, body)
    cls, usual, verdict = found
    if code.lower() in _OF_THE_MODEL and original_status is not None:
        cls, verdict = _by_original(original_status)
    error = cls(
        redact(message) or f"Bedrock answered with {code} and no explanation.",
        status=status or usual,
        code=code,
        request_id=request_id(headers),
        retry=verdict,
    )
    if error.retryable:
        error.retry_after = retry_after(headers, None)
    return error


def _by_original(status: int) -> tuple[type[APIError], RetryKind]:
    if status == 429:
        return OverloadedError, _OVERLOADED
    if 400 <= status < 500 and status not in {408, 409, 424, 425}:
        return BadRequestError, _NEVER
    return ServerError, _TRANSIENT
