"""How a remote engine is reached: endpoint, credentials, limits, clocks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from pydantic import Field, SecretStr, field_serializer, field_validator

from .base import Number, Params, Whole

_SECRET_WORDS = ("auth", "key", "token", "secret", "cookie", "password", "signature", "credential")


def is_secret_header(name: str) -> bool:
    """Whether a header of that name is likely to carry a credential."""
    return any(word in name.lower() for word in _SECRET_WORDS)


class RemoteParams(Params):
    """How a remote engine is reached.

    The key is never printed, logged, fingerprinted or written to a file. Copies and pickles do carry it, so that worker
    processes can work: treat a pickle of parameters as the secret that it is.

    Attributes:
        api_url: the full endpoint, the ``/v1`` base, or just ``http://host:port``. ``{region}`` and ``{project_id}`` in
            it are filled in.
        api_key: the key. Best written as ``${MY_KEY}`` in a file, or named by `api_key_env_varname`.
        api_key_env_varname: environment variable that holds the key.
        user_id: your end user's id, passed to providers that take one.
        project_id, region: for providers whose URL names them.
        extra_headers: further request headers.
        use_streaming: ask the provider for a stream even where a whole answer is wanted.
        max_retries: further attempts of a request, 429s included; unset: the scheduler's own bound.
        retry_backoff_base, retry_backoff_max: first and longest wait between attempts, in seconds.
        connection_timeout: longest silence, in seconds: connecting, until the first token, between tokens.
        connect_timeout, first_token_timeout, between_tokens_timeout, total_timeout: the four clocks one by one, in
            seconds; they go before `connection_timeout`.
        num_workers: most requests in flight; unset: the window adapts without a cap.
        use_adaptive_concurrency: adapt the number of requests in flight to what the provider serves.
        min_concurrency, max_concurrency, initial_concurrency: bounds and start of that adaptation.
        requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute: your rate limits;
            tokens are input plus output.
        politeness_policy: least seconds between two request starts of one worker.
        batch_completion_window: how long a provider's batch job may take.
        batch_storage, batch_role: where the files of a batch lie and the role that reads and writes them, for providers
            that have them in storage of yours; on Bedrock a place in S3 (``s3://bucket/folder``) and the ARN of a role.
    """

    section: ClassVar[str] = "remote_params"

    api_url: str | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    api_key_env_varname: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    region: str | None = None
    extra_headers: dict[str, str] = Field(default_factory=dict)
    use_streaming: bool = True

    max_retries: Whole = Field(default=3, ge=0)
    retry_backoff_base: Number = Field(default=1.0, gt=0.0)
    retry_backoff_max: Number = Field(default=30.0, gt=0.0)

    connection_timeout: Number = Field(default=20.0, ge=0.0)
    connect_timeout: Number | None = Field(default=None, gt=0.0)
    first_token_timeout: Number | None = Field(default=None, gt=0.0)
    between_tokens_timeout: Number | None = Field(default=None, gt=0.0)
    total_timeout: Number | None = Field(default=None, gt=0.0)

    num_workers: Whole = Field(default=1, ge=1)
    use_adaptive_concurrency: bool = True
    min_concurrency: Whole | None = Field(default=None, ge=1)
    max_concurrency: Whole | None = Field(default=None, ge=1)
    initial_concurrency: Whole | None = Field(default=None, ge=1)

    requests_per_minute: Number | None = Field(default=None, gt=0.0)
    tokens_per_minute: Number | None = Field(default=None, gt=0.0)
    input_tokens_per_minute: Number | None = Field(default=None, gt=0.0)
    output_tokens_per_minute: Number | None = Field(default=None, gt=0.0)
    politeness_policy: Number = Field(default=0.0, ge=0.0)
    batch_completion_window: str | None = "24h"
    batch_storage: str | None = None
    batch_role: str | None = None

    @field_validator("api_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None and not value.strip().lower().startswith(("http://", "https://")):
            raise ValueError(f"expected a URL that begins with http:// or https://, got {value!r}")
        return value.strip() if value is not None else None

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value() if value is not None else ""
        if text and not text.strip("*"):
            raise ValueError("this is a masked key, not a key; name the variable that holds it: ${MY_KEY}")
        if any(character in text for character in "\r\n\0"):
            raise ValueError("the key contains a line break; was it read from a file with its last newline?")
        return value

    @field_validator("extra_headers")
    @classmethod
    def _check_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not name or any(character in name for character in "\r\n\0: ") or not name.isascii():
                raise ValueError(f"{name!r} is not the name of a header")
            if any(character in text for character in "\r\n\0"):
                raise ValueError(f"the value of {name!r} contains a line break")
        return value

    @field_serializer("extra_headers")
    def _write_headers(self, value: dict[str, str]) -> dict[str, str]:
        return {name: text for name, text in value.items() if not is_secret_header(name)}

    def check(self) -> None:
        """Bounds in order."""
        if self.retry_backoff_max < self.retry_backoff_base:
            raise ValueError(
                f"retry_backoff_max {self.retry_backoff_max} is below retry_backoff_base {self.retry_backoff_base}"
            )
        ladder = [
            (name, value)
            for name in ("min_concurrency", "initial_concurrency", "max_concurrency")
            if (value := getattr(self, name)) is not None
        ]
        for (low, least), (high, most) in pairwise(ladder):
            if least > most:
                raise ValueError(f"{low} {least} is above {high} {most}")

    def resolve_api_key(self) -> str | None:
        """The key in clear: `api_key`, else what the variable `api_key_env_varname` holds, else None.

        Never raises: the engine, which knows its provider's own variable, says what is missing.
        """
        import os

        if self.api_key is not None and self.api_key.get_secret_value():
            return self.api_key.get_secret_value()
        return os.environ.get(self.api_key_env_varname) or None if self.api_key_env_varname else None

    def _written(self, values: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in values.items() if name != "api_key"}
        if "extra_headers" in kept:
            headers = kept["extra_headers"]
            kept["extra_headers"] = self._write_headers(headers)
        return kept
