"""Messages as chat templates know them: text as one string, images as parts, their bytes beside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ...conversation import Type
from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...conversation import ContentItem, Message, ToolCall


def read_messages(
    messages: Sequence[Message], *, images: bool, bare: bool = False
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The messages in the OpenAI shape, and the images that their ``{"type": "image"}`` parts stand for.

    Args:
        messages: with every file already read.
        images: whether the model can see.
        bare: they stand for a bare prompt, and errors name that.

    Raises:
        ConfigError: an item is of a kind that the model cannot read, or its data is missing.
    """
    pictures: list[bytes] = []
    seen = pictures if images else None
    paths = ["prompt" if bare else f"messages[{at}].content" for at in range(len(messages))]
    return [_message(message, path, seen) for message, path in zip(messages, paths, strict=True)], pictures


def for_templates(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same messages with the arguments of calls as objects: templates print them with ``tojson``."""
    return [
        {**message, "tool_calls": [{**call, "function": _opened(call["function"])} for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _opened(function: dict[str, Any]) -> dict[str, Any]:
    try:
        return {**function, "arguments": json.loads(function["arguments"] or "{}")}
    except ValueError:
        return function


def _message(message: Message, path: str, pictures: list[bytes] | None) -> dict[str, Any]:
    out: dict[str, Any] = {"role": str(message.role.value), "content": _content(message.content, path, pictures)}
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": _text(call)}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.reasoning_content:
        out["reasoning_content"] = message.reasoning_content
    return out


def _text(call: ToolCall) -> str:
    arguments: Any = call.function.arguments
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _content(content: str | list[ContentItem] | None, path: str, pictures: list[bytes] | None) -> Any:
    """A string wherever there is only text: many templates know nothing else."""
    if content is None or isinstance(content, str):
        return whole(content or "", path)
    parts = [_part(item, path, pictures) for item in content]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(item: ContentItem, path: str, pictures: list[bytes] | None) -> dict[str, Any]:
    if item.type is Type.TEXT:
        return {"type": "text", "text": whole(item.content or "", path)}
    kind = str(item.type.value)
    if not item.is_image():
        raise ConfigError(f"{path} has an item of type {kind}; local engines read text and images", path=path)
    if pictures is None:
        raise ConfigError(f"{path} has an item of type {kind}, and this model reads text only", path=path)
    try:
        data = item.data
    except ValueError as error:
        raise ConfigError(f"{path} has an image whose data: URL is broken: {error}", path=path) from error
    if not data:
        raise ConfigError(
            f"{path} names an image whose bytes are not there: name it by an http(s) URL or a path, or put the bytes "
            "into the conversation (type image_binary)",
            path=path,
        )
    pictures.append(data)
    return {"type": "image"}


def whole(text: str, path: str) -> str:
    """The text, if it can be written. Raises `ConfigError` with its path."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{path} holds half a surrogate pair at character {error.start}, which is no text", path=path
        ) from None
    return text
