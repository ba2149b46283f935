"""Messages of a conversation as the input items of Responses.

Rule: no file is opened here; bytes go out as data URIs with their real media type. A turn of the assistant goes back in
the order in which the model wrote it: each reasoning item before the call or text that it led to.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

from ...conversation import ContentItem, Message, Role, Type
from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...dialect import Dialect

_IMAGES = {Type.IMAGE_PATH, Type.IMAGE_URL, Type.IMAGE_BINARY}
_AUDIO_FORMATS = {"audio/mpeg": "mp3", "audio/wav": "wav"}
MESSAGE_MARK = "output_message"
"""Entry of ``reasoning_details``: here stood ``length`` characters of the text, in an item of some ``phase``."""
CALL_MARK = "output_call"
"""Entry of ``reasoning_details``: here stood the call ``call_id``."""


def write_input(messages: Sequence[Message], dialect: Dialect, *, stored: bool) -> tuple[str | None, list[Any]]:
    """``instructions`` (the first message, where it is a system text) and ``input``.

    Args:
        messages: the conversation's.
        dialect: which of the provider's differences apply.
        stored: the provider remembers earlier items, so that reasoning may go back by its id alone.

    Raises:
        ConfigError: a piece cannot be sent.
    """
    instructions = None
    first = messages[0] if messages else None
    if first is not None and len(messages) > 1 and first.role is Role.SYSTEM and _role(first, dialect) == "system":
        text = _plain(first)
        if text:
            instructions, messages = text, messages[1:]
    custom = {call.id for message in messages for call in message.tool_calls or () if _is_custom(call)}
    written: list[Any] = []
    for message in messages:
        if message.role is Role.ASSISTANT:
            written.extend(_turn(message, stored=stored))
        elif message.role is Role.TOOL:
            sort = "custom_tool_call_output" if message.tool_call_id in custom else "function_call_output"
            output = _content(message, dialect)
            written.append({"type": sort, "call_id": message.tool_call_id or "", "output": output})
        else:
            written.append({"type": "message", "role": _role(message, dialect), "content": _content(message, dialect)})
    return instructions, written


def _role(message: Message, dialect: Dialect) -> str:
    if message.role is Role.SYSTEM and dialect.developer_role:
        written = getattr(message, "_verbatim", None)  # how the row spelled it
        if written and written.get("role") == "developer":
            return "developer"
    return message.role.value


def _plain(message: Message) -> str | None:
    """The text of a message that is nothing else, None for others."""
    content = message.content
    if content is None or isinstance(content, str):
        return content
    if all(item.type is Type.TEXT for item in content):
        return "\n".join(item.content or "" for item in content)
    return None


def _content(message: Message, dialect: Dialect) -> str | list[dict[str, Any]]:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    return [_part(item, dialect) for item in message.content]


def _part(item: ContentItem, dialect: Dialect) -> dict[str, Any]:
    kind = item.type
    if kind is Type.TEXT:
        return {"type": "input_text", "text": item.content}
    if kind in _IMAGES:
        if not dialect.image_urls and item.data is None:
            raise ConfigError(
                "this server does not fetch images: give the image's bytes (type image_binary or image_path) instead "
                f"of its URL {_shown(item)}",
                path="messages.content",
            )
        return {"type": "input_image", "image_url": _address(item), "detail": item.detail or "auto"}
    if kind is Type.DOCUMENT_ID:
        return {"type": "input_file", "file_id": item.content}
    if kind is Type.DOCUMENT_URL and item.data is None:
        return {"type": "input_file", "file_url": item.content}
    if kind in {Type.DOCUMENT_PATH, Type.DOCUMENT_URL, Type.DOCUMENT_BINARY}:
        return {"type": "input_file", "filename": item.filename or "document.pdf", "file_data": _address(item)}
    if kind is Type.VIDEO_URL:
        raise ConfigError("the Responses format takes no videos", path="messages.content")
    data = item.data
    if data is None:
        raise _unread(item)
    sort = item.media_type or "audio/wav"
    audio = {"data": _base64(data), "format": _AUDIO_FORMATS.get(sort, sort.rpartition("/")[2])}
    return {"type": "input_audio", "input_audio": audio}


def _address(item: ContentItem) -> str:
    """A data URI where the bytes are at hand, else the URL."""
    if item.binary is not None:
        return f"data:{item.media_type or 'application/octet-stream'};base64,{_base64(item.binary)}"
    if item.type in {Type.IMAGE_PATH, Type.DOCUMENT_PATH}:
        raise _unread(item)
    return item.content or ""


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _unread(item: ContentItem) -> ConfigError:
    return ConfigError(
        f"the file {_shown(item)} of a message was not read: put its bytes into the item's binary field",
        path="messages.content",
    )


def _shown(item: ContentItem) -> str:
    return repr((item.content or "")[:200])


# -- turns of the assistant --------------------------------------------------------------------------------------------


def _turn(message: Message, *, stored: bool) -> list[dict[str, Any]]:
    """The items of one turn, in their order."""
    text = _plain(message) or message.text
    marks = [detail for detail in message.reasoning_details or () if isinstance(detail, dict)]
    lengths = [_length(mark) for mark in marks if mark.get("type") == MESSAGE_MARK]
    if sum(lengths) != len(text):  # the text is not the one that was marked: it goes as one
        lengths = [len(text), *([0] * len(lengths))]
    calls = {call.id: call for call in message.tool_calls or ()}
    items: list[dict[str, Any]] = []
    at = part = 0
    for mark in marks:
        kind = mark.get("type")
        if kind == MESSAGE_MARK:
            end = at + lengths[part]
            if end > at:
                items.append(_said(text[at:end], mark.get("phase")))
            at, part = end, part + 1
        elif kind == CALL_MARK:
            call = calls.pop(str(mark.get("call_id")), None)
            if call is not None:
                items.append(_call(call))
        elif _travels(mark, stored=stored):
            items.append(mark)
    if at < len(text):
        items.append(_said(text[at:], None))
    items.extend(_call(call) for call in message.tool_calls or () if call.id in calls)
    return items


def _length(mark: dict[str, Any]) -> int:
    length = mark.get("length")
    return length if type(length) is int and length >= 0 else 0


def _said(text: str, phase: Any) -> dict[str, Any]:
    item = {"type": "message", "role": "assistant", "content": text}
    return item if phase is None else {**item, "phase": phase}


def _travels(item: dict[str, Any], *, stored: bool) -> bool:
    """Whether an entry is an item of this format that the provider takes back. Reasoning without its encrypted form or
    its text is only an id, which means nothing to a provider that stored nothing."""
    kind = item.get("type")
    if kind == "reasoning":
        return stored or bool(item.get("encrypted_content")) or bool(item.get("content"))
    return isinstance(kind, str) and (
        kind.endswith(("_call", "_call_output")) or kind in {"mcp_list_tools", "mcp_approval_request", "compaction"}
    )


def _extra(call: Any) -> dict[str, Any]:
    extra = (call.model_extra or {}).get("extra_content")
    return extra if isinstance(extra, dict) else {}


def _is_custom(call: Any) -> bool:
    return bool(_extra(call).get("type") == "custom_tool_call")


def _call(call: Any) -> dict[str, Any]:
    item: dict[str, Any] = {"call_id": call.id, "name": call.function.name}
    if _is_custom(call):
        item = {"type": "custom_tool_call", **item, "input": call.function.arguments}
    else:
        item = {"type": "function_call", **item, "arguments": call.function.arguments or "{}"}
    namespace = _extra(call).get("namespace")
    return item if namespace is None else {**item, "namespace": namespace}
