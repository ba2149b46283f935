"""Messages of a conversation as Chat Completions has them.

Rule: no file is opened here. A piece that is named by path must have its bytes in ``binary`` already (`engines.files`
reads them); bytes go out as data URIs with their real media type. Pieces that were read in OpenAI's own style go out as
they were, whatever keys they carry.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

from ...conversation import ContentItem, Message, Role, Type
from ...errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...dialect import Dialect

_NATIVE_PARTS = {"text", "image_url", "video_url", "refusal", "input_audio", "file"}
_IMAGES = {Type.IMAGE_PATH, Type.IMAGE_URL, Type.IMAGE_BINARY}
_DOCUMENTS = {Type.DOCUMENT_PATH, Type.DOCUMENT_URL, Type.DOCUMENT_BINARY, Type.DOCUMENT_ID}
_AUDIO_FORMATS = {"audio/mpeg": "mp3", "audio/wav": "wav"}


def write_messages(messages: Sequence[Message], dialect: Dialect) -> list[dict[str, Any]]:
    """The ``messages`` of a request.

    Raises:
        ConfigError: a piece cannot be sent (a path that was not read, a URL to a server that fetches none).
    """
    exchange = _last_user_turn(messages) if dialect.reasoning_turns == "tools" else -1
    written: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        turn = _write(message, dialect)
        if message.role is not Role.TOOL:
            _show(shown, written)
        elif not dialect.tool_images and isinstance(turn["content"], list):
            shown += _without_media(turn)
        if message.role is Role.ASSISTANT and dialect.reasoning is not None:
            _replay(message, turn, dialect, current=at > exchange)
        written.append(turn)
    _show(shown, written)
    return _grouped(written) if dialect.group_turns else written


def _without_media(turn: dict[str, Any]) -> list[dict[str, Any]]:
    """Leave only text in a tool's turn; what else it held, with a word on where it comes from."""
    texts = [part for part in turn["content"] if part["type"] == "text"]
    media = [part for part in turn["content"] if part["type"] != "text"]
    if not media:
        return []
    turn["content"] = texts or ""
    return [{"type": "text", "text": f"What the call {turn.get('tool_call_id', '')} has returned:"}, *media]


def _show(shown: list[dict[str, Any]], written: list[dict[str, Any]]) -> None:
    """Say as the user what tools have shown: after all of their turns, which nothing may stand between."""
    if shown:
        written.append({"role": "user", "content": list(shown)})
        shown.clear()


def _last_user_turn(messages: Sequence[Message]) -> int:
    return max((at for at, message in enumerate(messages) if message.role is Role.USER), default=-1)


def _write(message: Message, dialect: Dialect) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": _role(message, dialect), "content": _content(message, dialect)}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        turn["tool_calls"] = [_call(call, dialect) for call in message.tool_calls]
    elif turn["content"] is None:
        turn["content"] = ""  # a turn that only reasoned
    return turn


def _role(message: Message, dialect: Dialect) -> str:
    if message.role is Role.SYSTEM and dialect.developer_role:
        written = getattr(message, "_verbatim", None)  # how the row spelled it
        if written and written.get("role") == "developer":
            return "developer"
    return message.role.value


def _content(message: Message, dialect: Dialect) -> str | list[dict[str, Any]] | None:
    content = message.content
    if content is None or isinstance(content, str):
        return content
    plain = dialect.flat_text or (len(content) == 1 and not content[0].model_extra)
    if plain and all(item.type is Type.TEXT for item in content):
        return "\n".join(item.content or "" for item in content)
    return [_part(item, dialect) for item in content]


def _part(item: ContentItem, dialect: Dialect) -> dict[str, Any]:
    kind = item.type
    if kind in _IMAGES and not dialect.image_urls and item.data is None:
        raise ConfigError(
            "this server does not fetch images: give the image's bytes (type image_binary or image_path) instead of "
            f"its URL {_shown(item)}",
            path="messages.content",
        )
    if _NATIVE_PARTS & (item.model_extra or {}).keys():
        return item.to_dict()
    if kind is Type.TEXT:
        return {"type": "text", "text": item.content}
    if kind in _IMAGES:
        image = {"url": _address(item)}
        if item.detail is not None:
            image["detail"] = item.detail
        return {"type": "image_url", "image_url": image}
    if kind in _DOCUMENTS:
        if kind is Type.DOCUMENT_ID:
            return {"type": "file", "file": {"file_id": item.content}}
        if kind is Type.DOCUMENT_URL and item.data is None and not dialect.document_urls:
            raise ConfigError(
                "this format has no place for a document's URL: give the document's bytes (type document_binary or "
                f"document_path) instead of {_shown(item)}",
                path="messages.content",
            )
        return {"type": "file", "file": {"filename": item.filename or "document.pdf", "file_data": _address(item)}}
    if kind is Type.VIDEO_URL:
        return {"type": "video_url", "video_url": {"url": _address(item)}}
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


def _call(call: Any, dialect: Dialect) -> dict[str, Any]:
    written: dict[str, Any] = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": call.function.arguments or "{}"},
    }
    if dialect.call_extras and call.model_extra:
        written.update({key: call.model_extra[key] for key in dialect.call_extras if key in call.model_extra})
    return written


def _replay(message: Message, turn: dict[str, Any], dialect: Dialect, *, current: bool) -> None:
    """Put a turn's reasoning back where the provider wants it."""
    text, details = message.reasoning_content, message.reasoning_details
    if dialect.reasoning_turns == "tools":
        if not current or not message.tool_calls:
            return
        text = text or ""  # the key must be there
    elif not text and not details:
        return
    if dialect.reasoning == "reasoning_details":
        own = [detail for detail in details or () if _is_own(detail)]
        if own:
            turn["reasoning_details"] = merge_details(own)
        elif text:
            turn["reasoning"] = text
    elif dialect.reasoning == "content":
        if text:
            content = turn["content"]
            rest = [{"type": "text", "text": content}] if isinstance(content, str) and content else content or []
            turn["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}, *rest]
    elif text is not None and dialect.reasoning is not None:
        turn[dialect.reasoning] = text


def _is_own(detail: Any) -> bool:
    """Whether a detail is of this format (``reasoning.text``, ``reasoning.summary``, ``reasoning.encrypted``): what
    other formats left in a conversation means nothing to it."""
    kind = detail.get("type") if isinstance(detail, dict) else None
    return isinstance(kind, str) and kind.startswith("reasoning.")


def merge_details(details: list[Any]) -> list[Any]:
    """OpenRouter's ``reasoning_details`` as they must go back: neighbours that are fragments of one block (same
    ``type`` and ``index``) joined, in order; everything else verbatim."""
    merged: list[Any] = []
    for detail in details:
        last = merged[-1] if merged else None
        if (
            isinstance(detail, dict)
            and isinstance(last, dict)
            and detail.get("index") is not None
            and (detail.get("type"), detail["index"]) == (last.get("type"), last.get("index"))
        ):
            for key, value in detail.items():
                if key in {"text", "summary", "data"} and isinstance(value, str) and isinstance(last.get(key), str):
                    last[key] += value
                elif value is not None:
                    last[key] = value
        else:
            merged.append(dict(detail) if isinstance(detail, dict) else detail)
    return merged


def _grouped(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adjacent turns of one role joined, but for those that call tools or answer calls."""
    grouped: list[dict[str, Any]] = []
    for turn in turns:
        last = grouped[-1] if grouped else None
        if last is not None and last["role"] == turn["role"] and last.keys() == turn.keys() == {"role", "content"}:
            last["content"] = [*_as_parts(last["content"]), *_as_parts(turn["content"])]
        else:
            grouped.append(turn)
    return grouped


def _as_parts(content: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []
