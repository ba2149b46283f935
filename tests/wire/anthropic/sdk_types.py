"""The official client's types as validators: what we send must be what it would let a caller send."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from pydantic import BaseModel, TypeAdapter


@functools.cache
def _adapter(*, stream: bool) -> TypeAdapter[Any]:
    return TypeAdapter(MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming)


SAMPLING = {"temperature", "top_p", "top_k"}
"""Of older models: the client's types follow the newest version of the API, which has them no more."""


def validate(body: dict[str, Any]) -> None:
    """Raise where a body is not what the client's types allow, down to the last block. Keys that a type does not know
    are dropped by pydantic, so what comes out must be what went in."""
    body = {key: value for key, value in body.items() if key not in SAMPLING}
    assert _thawed(_adapter(stream=bool(body.get("stream"))).validate_python(body)) == body


def _thawed(value: Any) -> Any:
    """Iterables are validated only when they are iterated; blocks of answers may go back as the client's models."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, dict):
        return {key: _thawed(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return [_thawed(inner) for inner in value]
    return value
