"""How an answer and a failure are written down. Rule: what was paid for is kept; what is secret is not."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from .rows import messages_of

if TYPE_CHECKING:
    from .. import AsyncInferError, Completion, Message, Usage

_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$")
_SHORTEST_SECRET = 8


def answer_record(completion: Completion) -> dict[str, Any]:
    """The journal's record of an answer: the new message, and what goes into the row's metadata."""
    record: dict[str, Any] = {
        "message": _message(completion.message),
        "metadata": {"usage": _usage(completion.usage), "finish_reason": _word(completion.finish_reason)},
    }
    if len(completion.choices) > 1:
        record["metadata"]["choices"] = [
            {"message": _message(choice.message), "finish_reason": _word(choice.finish_reason)}
            for choice in completion.choices
        ]
    return record


def _message(message: Message) -> Any:
    return message.to_dict()


def _word(value: Any) -> str | None:
    return None if value is None else str(value)


def _usage(usage: Usage) -> dict[str, Any]:
    """Oumi's names and order; counts beyond the three only where there are any."""
    record: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    more = (
        ("cached_tokens", usage.cached_tokens),
        ("cache_creation_tokens", usage.cache_write_tokens),
        ("reasoning_tokens", usage.reasoning_tokens),
    )
    record |= {name: count for name, count in more if count}
    if usage.source != "exact":
        record["source"] = usage.source
    return record


def failure_record(error: AsyncInferError, line: int, secrets: Secrets) -> dict[str, Any]:
    """The journal's record of a failed row. A part of an answer that had arrived is kept."""
    record: dict[str, Any] = {
        "line": line,
        "error_type": type(error).__name__,
        "message": secrets.redact(error.message),
        "status": error.status,
        "retryable": error.retryable,
    }
    more = {"provider": error.provider, "code": error.code, "request_id": error.request_id}
    record |= {name: secrets.redact(str(value)) for name, value in more.items() if value is not None}
    if error.partial is not None:
        record["partial"] = {"text": error.partial.text, "usage": _usage(error.partial.usage)}
    return record


def answered_row(row: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The output's row: the input's, untouched, plus the new message and the metadata of its answer."""
    answered = dict(row)
    answered["messages"] = [*messages_of(row), record["message"]]
    answered["metadata"] = {**(row.get("metadata") or {}), **record["metadata"]}
    return answered


class Secrets:
    """Finds credentials in a provider's words: some providers repeat the key they refuse.

    Known secrets are the engine's own key and every environment variable named like one (``..._KEY``, ``..._TOKEN``).
    """

    def __init__(self, *params: Any) -> None:
        found = {value for name, value in os.environ.items() if _SECRET_NAME.search(name.upper())}
        for remote in params:
            key = getattr(remote, "api_key", None)
            if key is not None:
                found.add(key.get_secret_value() if hasattr(key, "get_secret_value") else str(key))
        known = sorted((re.escape(text) for text in found if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(known)) if known else None

    def redact(self, text: str) -> str:
        """``text`` with every known secret replaced by asterisks."""
        return text if self._pattern is None else self._pattern.sub("***", text)
