"""Requests as the pipeline would make them, in one line."""

from __future__ import annotations

from typing import Any

from asyncinfer.completion import Timeouts
from asyncinfer.conversation import Conversation, ToolDefinition
from asyncinfer.params import GenerationParams, ModelParams, RemoteParams
from asyncinfer.request import Request


def make_request(
    messages: list[dict[str, Any]] | None = None,
    *,
    model: str = "m",
    tools: list[Any] | None = None,
    stream: bool = True,
    user_id: str | None = None,
    model_fields: dict[str, Any] | None = None,
    **generation: Any,
) -> Request:
    sampling = GenerationParams(**generation)
    return Request(
        conversation=Conversation.from_dict({"messages": messages or [{"role": "user", "content": "hi"}]}),
        model=ModelParams(model_name=model, **(model_fields or {})),
        generation=sampling,
        chosen=frozenset(sampling.model_fields_set),
        remote=RemoteParams(**({"user_id": user_id} if user_id else {})),
        tools=[ToolDefinition.of(tool) for tool in tools] if tools else None,
        timeouts=Timeouts(),
        stream=stream,
    )
