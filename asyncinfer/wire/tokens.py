"""How many prompt tokens a request will be charged, guessed before it is sent.

The guess is for reserving budget, so it errs upwards: UTF-8 bytes / 3, 4 for each message, and flat amounts for what is
not text. The real usage corrects it when the answer is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from ..request import Request

_PER_MESSAGE = 4
_PER_ATTACHMENT = 1600  # a large image at most providers; a page of a document
_PER_SMALL_IMAGE = 85  # with detail "low"


def estimate_tokens(request: Request) -> int:
    """Prompt tokens of a request, a few microseconds' guess on the high side."""
    size = 0
    tokens = 3
    for message in request.conversation.messages:
        tokens += _PER_MESSAGE
        content = message.content
        if isinstance(content, str):
            size += _bytes(content)
        elif content is not None:
            for item in content:
                if item.is_text():
                    size += _bytes(item.content or "")
                else:
                    tokens += _PER_SMALL_IMAGE if item.detail == "low" else _PER_ATTACHMENT
        if message.tool_calls:
            for call in message.tool_calls:
                size += _bytes(call.function.name) + _bytes(call.function.arguments) + 16
        if message.reasoning_content:
            size += _bytes(message.reasoning_content)
    if request.tools:
        size += len(msgspec.json.encode([tool.to_dict() for tool in request.tools]))
    guided: Any = request.asked("guided_decoding")
    if guided is not None and isinstance(guided.json, (dict, str)):
        size += len(guided.json) if isinstance(guided.json, str) else len(msgspec.json.encode(guided.json))
    return tokens - (-size // 3)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
