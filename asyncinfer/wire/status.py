"""What a provider's error means: status, headers and body to one typed error with its verdict.

The verdict is read from machine-readable things only (status, ``code``, ``type``, ``x-should-retry``, Google's
``details``), never from the English of a message, but for one documented case: OpenAI answers now and then 400 "could
not parse the JSON body" to a body that is good, and the same bytes pass a moment later.

Which statuses are worth another try: 408, 409, 424, 425, 498, 500, 502, 503, 504, 520 to 524, 529, and 429 unless its
code speaks of a quota, credit or spend limit. Only 429 and ``slow_down`` speak of *our* rate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RetryKind,
    ServerError,
)
from .moments import go_duration, number, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_MESSAGE = 2000
_REQUEST_ID_HEADERS = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "x-ms-request-id",
    "x-generation-id",
    "x-litellm-call-id",
    "x-goog-request-id",
    "x-correlation-id",
    "cf-ray",
)
_QUOTA_CODES = {
    "insufficient_quota",
    "insufficient_balance",
    "insufficient_credits",
    "credit_balance_exhausted",
    "credits_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "payment_required",
    "quota_exceeded",
}
_QUOTA_ENDINGS = ("_spend_limit_exceeded", "_usage_limit_exceeded", "_quota_exceeded")
_CONTEXT_CODES = {
    "context_length_exceeded",
    "exceed_context_size_error",  # llama.cpp
    "model_context_window_exceeded",
    "tokens_limit_reached",  # GitHub Models, with 413
}
_CONTEXT_PARAMS = {"input_tokens", "input_text"}  # vLLM has no code for it, but names what was too long
_OVERLOAD_CODES = {"overloaded", "overloaded_error", "engine_overloaded", "server_overloaded", "unavailable"}
_RATE_CODES = {"rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests", "resource_exhausted"}
_CODE_STATUS = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "unauthenticated": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "not_found": 404,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "badrequesterror": 400,
    "request_too_large": 413,
    "timeout": 504,
    "timeout_error": 504,
}
# Keys as providers mint them, and bearer tokens: some services quote the key they refuse.
_SECRET = re.compile(
    r"\b(?:sk|pk|rk|gsk|nvapi|hf|xai|fw|csk|tgp|key|ak|r8|fpk|psk)[-_][A-Za-z0-9_\-*.]{6,}"
    r"|\bAIza[A-Za-z0-9_\-]{10,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?"
    r"|(?i:\bbearer\s+)[A-Za-z0-9_\-.=+/~]{6,}"
)
_JSON_BODY_HICCUP = "could not parse the json body"


class _Said(NamedTuple):
    """What an error body says, whatever its shape."""

    message: str = ""
    code: str | None = None
    kind: str | None = None
    status: int | None = None
    retry_after: float | None = None
    daily: bool = False
    param: str | None = None

    def words(self) -> set[str]:
        return {word.lower() for word in (self.code, self.kind) if word}

    def too_long(self) -> bool:
        """Whether the prompt (with what may be answered) is more than the model takes."""
        return bool(self.words() & _CONTEXT_CODES) or self.param in _CONTEXT_PARAMS


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's id of a request, from whichever header it uses (names in lower case)."""
    for name in _REQUEST_ID_HEADERS:
        value = headers.get(name)
        if value:
            return value
    return None


def redact(text: str) -> str:
    """``text`` with everything that looks like a key or token replaced by ``[secret]``."""
    return _SECRET.sub("[secret]", text)


def error_from_response(status: int, headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> APIError:
    """The typed error of a response with ``status >= 400``; ``provider`` is for the engine to fill in.

    Args:
        status: HTTP status.
        headers: names in lower case.
        body: the (decompressed) body, any of the shapes in use, or HTML from a proxy, or nothing.
        now: wall clock in seconds since the epoch, for ``retry-after`` dates; else the ``date`` header serves.
    """
    said = _read(body)
    if not said.message:
        said = said._replace(message=f"The provider answered with HTTP status {status} and no explanation.")
    wait = retry_after(headers, now)
    error = _typed(status, said, said.retry_after if wait is None else wait)
    error.status = status
    error.request_id = request_id(headers)
    should = headers.get("x-should-retry", "").strip().lower()
    if should == "false":
        error.retry = RetryKind.NEVER
    elif should == "true" and error.retry is RetryKind.NEVER:
        error.retry = RetryKind.TRANSIENT
    return error


def error_from_object(value: Any, *, status: int | None = None) -> APIError:
    """The typed error of an error object inside a stream, or inside a document that came with status 200.

    Args:
        value: the decoded JSON: the whole chunk or what stands under ``error``.
        status: an HTTP status that the chunk names beside the error.
    """
    said = _said(value)
    status = status or said.status
    words = said.words()
    if status is None:
        if words & _RATE_CODES or _is_quota(words):
            status = 429
        elif words & (_OVERLOAD_CODES | {"slow_down"}):
            status = 503
        elif said.too_long():
            status = 400
        else:
            status = next((_CODE_STATUS[word] for word in sorted(words) if word in _CODE_STATUS), 500)
    if not said.message:
        said = said._replace(message="The provider reported an error without explanation.")
    error = _typed(status, said, said.retry_after)
    error.status = status if said.status == status else None
    return error


def _typed(status: int, said: _Said, wait: float | None) -> APIError:
    words = said.words()
    cls, retry = _by_status(status, words, said)
    if status < 500 and (_is_quota(words) or (said.daily and status == 429)):
        cls, retry = QuotaExceededError, RetryKind.NEVER
    return cls(
        redact(said.message)[:_MAX_MESSAGE],
        code=redact(said.code or said.kind or "") or None,
        retry=retry,
        retry_after=None if retry is RetryKind.NEVER and cls is not QuotaExceededError else wait,
    )


def _by_status(status: int, words: set[str], said: _Said) -> tuple[type[APIError], RetryKind]:
    if "slow_down" in words:
        return (RateLimitError if status == 429 else OverloadedError), RetryKind.THROTTLED
    if status == 429:
        return RateLimitError, RetryKind.THROTTLED
    if status in {498, 529} or (status >= 500 and words & _OVERLOAD_CODES):
        return OverloadedError, RetryKind.OVERLOADED
    if status == 503:
        return ServerError, RetryKind.OVERLOADED
    if status >= 500:
        return ServerError, RetryKind.NEVER if status in {501, 505, 511} else RetryKind.TRANSIENT
    if status in {408, 409, 424, 425}:
        return ServerError, RetryKind.TRANSIENT
    if said.too_long():
        return ContextLengthError, RetryKind.NEVER
    if status == 400 and _JSON_BODY_HICCUP in said.message.lower():
        return BadRequestError, RetryKind.TRANSIENT
    by_status: dict[int, type[APIError]] = {
        401: AuthenticationError,
        402: QuotaExceededError,
        403: PermissionDeniedError,
        404: NotFoundError,
    }
    return by_status.get(status, BadRequestError), RetryKind.NEVER


def _is_quota(words: set[str]) -> bool:
    return any(word in _QUOTA_CODES or word.endswith(_QUOTA_ENDINGS) for word in words)


def _read(body: bytes) -> _Said:
    """The error in a body of unknown shape."""
    text = body.strip()
    if not text:
        return _Said()
    if text[:1] in {b"{", b"[", b'"'}:
        try:
            return _said(msgspec.json.decode(text))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    if text.startswith(b"data:"):  # an error sent as an event although the status told it too
        return _read(text.removeprefix(b"data:").partition(b"\n")[0])
    plain = text[: 4 * _MAX_MESSAGE].decode("utf-8", "replace")
    if plain.startswith("<"):
        title = re.search(r"<title[^>]*>([^<]*)", plain, re.IGNORECASE)
        found = " ".join(title[1].split()) if title else ""
        return _Said(message=f"A web page instead of an answer, perhaps from a proxy: {found or 'it has no title'}.")
    return _Said(message=plain)


def _said(value: Any) -> _Said:
    """The error in a decoded body: `{"error": {...}}`, `{"error": "text"}`, flat objects, `{"detail": ...}`, arrays."""
    if isinstance(value, str):
        return _Said(message=value)
    if isinstance(value, list):
        return _said(value[0]) if value else _Said()
    if not isinstance(value, dict):
        return _Said()
    inner = value.get("error") or value.get("errors")
    if isinstance(inner, list) and inner:
        inner = inner[0]
    if isinstance(inner, dict):
        said = _flat(inner)
        return said if said.status else said._replace(status=_status(value.get("status_code") or value.get("code")))
    if isinstance(inner, str):
        flat = _flat(value)
        said = flat._replace(message=inner) if flat.message in {"", inner} else flat
        return said if said.code or said.kind else said._replace(code=inner if _looks_like_code(inner) else None)
    detail = value.get("detail")
    if detail and not value.get("message"):
        return _Said(message=_detail(detail), code=_text(value.get("code")), kind=_text(value.get("type")))
    return _flat(value)


def _flat(error: dict[str, Any]) -> _Said:
    message = error.get("message") or error.get("msg") or error.get("detail") or error.get("description") or ""
    metadata = error.get("metadata")
    status, code = _status(error.get("code")), _text(error.get("code"))
    if code is not None and code.isdigit():
        code = None
    if isinstance(metadata, dict) and metadata.get("raw"):  # OpenRouter: what the provider behind it said
        message = f"{message}: {metadata['raw']}"
        code = code or _context_code(metadata["raw"])
    wait, daily = _google_details(error.get("details"))
    return _Said(
        message=message if isinstance(message, str) else _detail(message),
        code=code or _text(error.get("status")) or _text(error.get("error_code")),
        kind=_text(error.get("type")),
        status=status or _status(error.get("status_code")) or _status(error.get("raw_status_code")),
        retry_after=wait,
        daily=daily,
        param=_text(error.get("param")),
    )


def _context_code(raw: Any) -> str | None:
    """The code in the error of a provider behind the provider, where it says that the prompt is too long. What it says
    of keys, quotas and rates is not about us."""
    said = _Said()
    if isinstance(raw, str) and raw.lstrip().startswith("{"):
        try:
            said = _said(msgspec.json.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
    elif isinstance(raw, dict):
        said = _said(raw)
    return "context_length_exceeded" if said.too_long() else None


def _google_details(details: Any) -> tuple[float | None, bool]:
    """``RetryInfo.retryDelay`` in seconds, and whether a per-day quota of ``QuotaFailure`` is used up."""
    wait, daily = None, False
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        kind = str(detail.get("@type", ""))
        if kind.endswith("RetryInfo"):
            delay = detail.get("retryDelay")
            if isinstance(delay, str):
                wait = go_duration(delay)
            elif isinstance(delay, dict):
                wait = (number(delay.get("seconds")) or 0.0) + (number(delay.get("nanos")) or 0.0) / 1e9
        elif kind.endswith("QuotaFailure"):
            violations = detail.get("violations")
            for violation in violations if isinstance(violations, list) else ():
                if isinstance(violation, dict) and "PerDay" in str(violation.get("quotaId", "")):
                    daily = True
    return wait, daily


def _detail(detail: Any) -> str:
    """FastAPI's ``detail``: a text, or a list of ``{loc, msg}``."""
    if isinstance(detail, str):
        return detail
    if isinstance(detail, list):
        return "; ".join(
            ".".join(map(str, item["loc"])) + ": " + str(item.get("msg", ""))
            if isinstance(item, dict) and isinstance(item.get("loc"), list)
            else str(item)
            for item in detail
        )
    return msgspec.json.encode(detail).decode()


def _status(value: Any) -> int | None:
    found = number(value) if isinstance(value, (int, float, str)) else None
    return int(found) if found is not None and 400 <= found <= 599 else None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _looks_like_code(text: str) -> bool:
    return text.isidentifier() and len(text) <= 64
