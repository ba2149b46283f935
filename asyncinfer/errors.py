"""Every error that leaves the package, as one tree.

The verdict (may it be tried again? after how long?) travels with the error, so no caller and no retry loop ever
looks at the words of a message::

    AsyncInferError
    ├── ConfigError (also a ValueError)      bad parameter, YAML key, environment variable, input row
    │   └── UnsupportedParameterError        a parameter that this engine cannot honour, in strict mode
    ├── EngineError                          the engine itself: not installed, failed to load, died, closed
    │   ├── MissingDependencyError           an extra is not installed; the message has the command
    │   └── EngineClosedError
    ├── APIError                             the provider answered with an error
    │   ├── BadRequestError                  400, 404 of a path, 405, 413, 415, 422 ...
    │   │   └── ContextLengthError           the prompt does not fit the model's context
    │   ├── AuthenticationError              401
    │   ├── PermissionDeniedError            403
    │   ├── NotFoundError                    404: no such model or endpoint
    │   ├── QuotaExceededError               402, or a 429 that waiting will not cure
    │   ├── RateLimitError                   429
    │   ├── OverloadedError                  503 slow_down, 529: the provider sheds load
    │   └── ServerError                      every other 5xx, 408, 409, 425
    ├── TransportError                       no answer: DNS, connect, TLS, reset
    │   └── ConnectError
    ├── DeadlineError (also a TimeoutError)  one of the four clocks; `.clock` names it
    │   ├── ConnectTimeout
    │   ├── FirstTokenTimeout
    │   ├── TokenTimeout                     (also a StreamInterrupted)
    │   └── TotalTimeout
    ├── StreamInterrupted                    the answer broke off after its first token; `.partial` has what arrived
    │   ├── StreamTruncated                  it ended without the format's terminal marker
    │   └── TokenTimeout                     (also a DeadlineError) silence between two tokens
    ├── StreamConsumedError                  a stream that was read to its end is iterated again
    ├── ProtocolError                        bytes that are not the format they claim to be
    │   └── EventTooLargeError               one event outgrew the configured bound
    ├── StructuredOutputError                the answer does not validate against the requested schema
    ├── ToolLoopError                        the model still calls tools at the limit; `.conversation` has all of it
    └── RowsFailed                           some rows of a blocking batch failed; `.results` has all of them

Every one of them pickles, and carries ``.provider``, ``.status``, ``.request_id``, ``.retryable``, ``.retry_after``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .limits import RateHeaders


class RetryKind(StrEnum):
    """What a failure says about trying again.

    Attributes:
        NEVER: the same request will fail again.
        THROTTLED: the provider talks about *our* rate (429, 503 ``slow_down``): slow down, then try again.
        OVERLOADED: the provider sheds load that is not ours (529, 503): go down to what is being served, try again.
        TRANSIENT: a server or network fault: try again, on the retry budget; the rate is not at fault.
    """

    NEVER = "never"
    THROTTLED = "throttled"
    OVERLOADED = "overloaded"
    TRANSIENT = "transient"


def _rebuild(cls: type[AsyncInferError], message: str, state: dict[str, Any]) -> AsyncInferError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class AsyncInferError(Exception):
    """The root of the tree.

    Args:
        message: one sentence that says what happened and, where something can be done, what to do.
        provider: name of the provider or engine, e.g. ``"openai"``.
        status: HTTP status, if there was one.
        request_id: the provider's id of the request, for its support desk.
        code: the provider's machine-readable error code or type, verbatim.
        retry: the verdict; classes have a sensible default.
        retry_after: seconds after which the provider asks to be called again.
        partial: what had arrived before the failure, a `Completion`, or None. (Errors stand below completions, so
            the type is not written.)

    ``rate`` holds the rate-limit headers of the refusal, where there were any.
    """

    default_retry: RetryKind = RetryKind.NEVER

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
        retry: RetryKind | None = None,
        retry_after: float | None = None,
        partial: Any = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.request_id = request_id
        self.code = code
        self.retry = self.default_retry if retry is None else retry
        self.retry_after = retry_after
        self.partial = partial
        self.rate: RateHeaders | None = None

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed if sent again."""
        return self.retry is not RetryKind.NEVER

    @property
    def message(self) -> str:
        """The sentence without the provider's details."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        details = [
            f"{label} {value}"
            for label, value in (
                ("provider", self.provider),
                ("status", self.status),
                ("code", self.code),
                ("request id", self.request_id),
            )
            if value is not None
        ]
        return f"{self.message} [{', '.join(details)}]" if details else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


class ConfigError(AsyncInferError, ValueError):
    """A parameter, configuration key, environment variable or input row is wrong.

    ``path`` is the full dotted path of the offending key (``generation.temperature``), where there is one.
    """

    def __init__(self, message: str, *, path: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.path = path


class UnsupportedParameterError(ConfigError):
    """The engine cannot honour a parameter, and the caller asked for strictness."""


class EngineError(AsyncInferError):
    """The engine could not be opened, or died."""


class MissingDependencyError(EngineError):
    """A package that this engine needs is not installed; the message carries the command that installs it."""


class EngineClosedError(EngineError):
    """The engine was closed while, or before, it was asked to work."""


class APIError(AsyncInferError):
    """The provider answered with an error."""


class BadRequestError(APIError):
    """The request itself is at fault; sending it again cannot help."""


class ContextLengthError(BadRequestError):
    """Prompt and requested answer do not fit the model's context."""


class AuthenticationError(APIError):
    """The key is missing, wrong or revoked."""


class PermissionDeniedError(APIError):
    """The key is valid but may not do this."""


class NotFoundError(APIError):
    """There is no such model or endpoint."""


class QuotaExceededError(APIError):
    """Credit, spend limit or daily quota is used up: waiting a minute will not help."""


class RateLimitError(APIError):
    """Too many requests or tokens for now."""

    default_retry = RetryKind.THROTTLED


class OverloadedError(APIError):
    """The provider is short of capacity."""

    default_retry = RetryKind.OVERLOADED


class ServerError(APIError):
    """The provider failed."""

    default_retry = RetryKind.TRANSIENT


class TransportError(AsyncInferError):
    """The network failed before an answer was there."""

    default_retry = RetryKind.TRANSIENT


class ConnectError(TransportError):
    """No connection: name lookup, refused, unreachable, TLS."""


class DeadlineError(AsyncInferError, TimeoutError):
    """One of the four clocks ran out; ``clock`` is its name and ``seconds`` its setting."""

    clock = "total"

    def __init__(self, message: str, *, seconds: float | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.seconds = seconds


class ConnectTimeout(DeadlineError):
    """No connection within ``Timeouts.connect`` seconds."""

    clock = "connect"
    default_retry = RetryKind.TRANSIENT


class FirstTokenTimeout(DeadlineError):
    """No first token within ``Timeouts.first_token`` seconds of sending the request."""

    clock = "first_token"
    default_retry = RetryKind.TRANSIENT


class TotalTimeout(DeadlineError):
    """The whole call took longer than ``Timeouts.total`` seconds."""

    clock = "total"


class StreamInterrupted(AsyncInferError):
    """The answer broke off after it had begun; ``partial`` holds what arrived. Never retried silently."""


class StreamTruncated(StreamInterrupted):
    """The connection ended without the terminal marker of the format: the answer is not complete."""

    default_retry = RetryKind.TRANSIENT


class TokenTimeout(DeadlineError, StreamInterrupted):
    """Silence longer than ``Timeouts.between_tokens`` seconds between two tokens."""

    clock = "between_tokens"


class StreamConsumedError(AsyncInferError):
    """The stream was read to its end already; it cannot be iterated again."""


class ProtocolError(AsyncInferError):
    """The other side sent bytes that are not the format they claim to be."""


class EventTooLargeError(ProtocolError):
    """One event (or one non-streamed answer) outgrew the configured number of bytes."""


class StructuredOutputError(AsyncInferError):
    """The answer is cut, or does not have the shape (model, schema, expression, choice) that was asked for. ``partial``
    is the completion as it came: nothing that was paid for is lost."""


class ToolLoopError(AsyncInferError):
    """The model still calls tools after as many rounds as were allowed.

    ``conversation`` is everything that was said, tool results included: nothing that was paid for is lost.
    """

    def __init__(self, message: str, *, conversation: Any, **details: Any) -> None:
        super().__init__(message, **details)
        self.conversation = conversation


class RowsFailed(AsyncInferError):
    """Some rows of a batch failed. Raised when all of them have ended; ``results`` loses none.

    Attributes:
        results: a `Completion` or `Failure` for each row, in input order.
    """

    def __init__(self, results: list[Any]) -> None:
        failures = [result.error for result in results if not result]
        first = f"; the first: {failures[0]}" if failures else ""
        super().__init__(f"{len(failures)} of {len(results)} rows failed{first} (`.results` has every row)")
        self.results = results
