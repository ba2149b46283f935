"""How SGLang's server turns a conversation into the tokens of a prompt: ``POST /tokenize`` with messages.

The server that runs the model has its chat template; a client that applied one of its own could differ from it by one
space and get worse answers without anybody noticing. Servers before 0.5.10 or so take only text here, and refuse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...dialect import Dialect
from ...errors import ProtocolError
from ..openai_chat.messages import write_messages
from ..protocol import WireRequest

if TYPE_CHECKING:
    from ...request import Request

PROMPTS = frozenset({"text", "input_ids", "input_embeds"})
"""Fields of a ``/generate`` body, one of which is the prompt."""

_MESSAGES = Dialect(reasoning="reasoning_content")
_PLACEHOLDER = "image"


def ask_tokens(request: Request) -> WireRequest:
    """The request that asks for the tokens of a conversation, its images as placeholders: the template only needs to
    know where they are.

    Raises:
        ConfigError: a piece of a message cannot be sent.
    """
    body: dict[str, Any] = {"model": request.model.model_name or "default", "messages": template_messages(request)}
    if request.model.chat_template_kwargs:
        body["chat_template_kwargs"] = request.model.chat_template_kwargs
    effort = request.asked("reasoning_effort")
    if effort is not None:
        body["reasoning_effort"] = effort
    headers = {"content-type": "application/json", "accept": "application/json"}
    return WireRequest("/tokenize", msgspec.json.encode(body), headers)


def read_tokens(body: bytes) -> list[int]:
    """The tokens in the server's answer. Raises `ProtocolError` for anything else."""
    try:
        tokens = msgspec.json.decode(body)["tokens"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError):
        tokens = None
    if not isinstance(tokens, list) or not tokens or not all(type(token) is int for token in tokens):
        raise ProtocolError("The server did not answer /tokenize with a list of tokens.")
    return tokens


def template_messages(request: Request) -> list[dict[str, Any]]:
    """The messages as chat templates expect them: text as text, images as parts whose data stays behind."""
    messages = write_messages(request.conversation.messages, _MESSAGES)
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            message["content"] = [_without_data(part) for part in content]
    return messages


def _without_data(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") != "image_url":
        return part
    return {"type": "image_url", "image_url": {"url": _PLACEHOLDER}}
