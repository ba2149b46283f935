"""Messages of a conversation as turns of content blocks.

Rule: no file is opened here; a piece that is named by path must have its bytes in ``binary`` already. The format knows
two speakers, who take turns: neighbours of one speaker become one turn, tool results are the user's and come first in
theirs, reasoning comes first in the assistant's, exactly as it was received (its signature covers it).

Keys that the format has and `ContentItem` has not (``cache_control``, ``citations``, ``title``, ``context``) pass
through where a piece, a message or a tool carries them.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

from ...conversation import ContentItem, Message, Role, Type
from ...errors import ConfigError
from ..lenient import arguments_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...dialect import Dialect

Block = dict[str, Any]

THINKING = frozenset({"thinking", "redacted_thinking"})
_IMAGES = {Type.IMAGE_PATH, Type.IMAGE_URL, Type.IMAGE_BINARY}
_DOCUMENTS = {Type.DOCUMENT_PATH, Type.DOCUMENT_URL, Type.DOCUMENT_BINARY, Type.DOCUMENT_ID}
_PASSED = ("cache_control", "citations", "title", "context")
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


class Turns:
    """The ``system`` text and the ``messages`` of a request, being collected.

    Args:
        dialect: how the server differs.
        system_turns: whether a system message may stand between the turns; else all of them go to the top.
        unsigned: whether thinking without a signature is taken back (Claude refuses it, other models make none).
    """

    def __init__(self, dialect: Dialect, *, system_turns: bool, unsigned: bool) -> None:
        self.system: list[Block] = []
        self.messages: list[dict[str, Any]] = []
        self._dialect = dialect
        self._system_turns = system_turns
        self._unsigned = unsigned
        self._waiting: list[Block] = []  # a system message goes right behind the user's turn

    def add(self, message: Message) -> None:
        """Take in the next message."""
        if message.role is Role.SYSTEM:
            blocks = _content(message, self._dialect)
            if self._system_turns and self.messages:
                self._waiting += blocks
            else:
                self.system += blocks
        elif message.role is Role.ASSISTANT:
            self._flush()
            self._put("assistant", _assistant(message, self._dialect, unsigned=self._unsigned))
        elif message.role is Role.TOOL:
            self._put("user", [_tool_result(message, self._dialect)])
        else:
            self._put("user", _content(message, self._dialect))

    def end(self) -> None:
        """No message follows."""
        self._flush()
        for turn in self.messages:
            blocks = turn["content"]
            if turn["role"] == "user":
                blocks.sort(key=lambda block: block["type"] != "tool_result")
            if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
                turn["content"] = blocks[0]["text"]
            elif not blocks:
                turn["content"] = ""

    def _put(self, role: str, blocks: list[Block]) -> None:
        if self.messages and self.messages[-1]["role"] == role:
            self.messages[-1]["content"] += blocks
        elif blocks or role == "user":  # an assistant's turn without content never took place
            self.messages.append({"role": role, "content": blocks})

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages.append({"role": "system", "content": self._waiting})
        else:
            self.system += self._waiting
        self._waiting = []


def write_turns(messages: Sequence[Message], dialect: Dialect, *, system_turns: bool, unsigned: bool = False) -> Turns:
    """The turns of a conversation.

    Raises:
        ConfigError: a piece cannot be sent (a path that was not read, audio); a tool result names no call.
    """
    turns = Turns(dialect, system_turns=system_turns, unsigned=unsigned)
    for message in messages:
        turns.add(message)
    turns.end()
    return turns


def _content(message: Message, dialect: Dialect) -> list[Block]:
    content = message.content
    if isinstance(content, str):
        blocks: list[Block] = [{"type": "text", "text": content}] if content else []
    else:  # an empty text is refused by the API, and says nothing
        blocks = [_block(item, dialect) for item in content or () if item.type is not Type.TEXT or item.content]
    cached = (message.model_extra or {}).get("cache_control")
    if cached is not None and blocks:
        blocks[-1]["cache_control"] = cached
    return blocks


def _block(item: ContentItem, dialect: Dialect) -> Block:
    kind = item.type
    if kind is Type.TEXT:
        block: Block = {"type": "text", "text": item.content}
    elif kind in _IMAGES:
        block = {"type": "image", "source": _image_source(item, dialect)}
    elif kind in _DOCUMENTS:
        block = {"type": "document", "source": _document_source(item)}
        if item.filename:
            block["title"] = item.filename
    else:
        raise ConfigError(
            f"this format carries text, images and documents, not {kind.value}: take the piece out, or choose a "
            "provider that hears or sees it",
            path="messages.content",
        )
    if item.model_extra:
        block.update({key: item.model_extra[key] for key in _PASSED if key in item.model_extra})
    return block


def _image_source(item: ContentItem, dialect: Dialect) -> Block:
    data = item.data
    if data is not None:
        return {"type": "base64", "media_type": item.media_type or "image/png", "data": _base64(data)}
    if item.type is Type.IMAGE_PATH:
        raise _unread(item)
    if not dialect.image_urls:
        raise ConfigError(
            "this server does not fetch images: give the image's bytes (type image_binary or image_path) instead of "
            f"its URL {_shown(item)}",
            path="messages.content",
        )
    return {"type": "url", "url": item.content}


def _document_source(item: ContentItem) -> Block:
    if item.type is Type.DOCUMENT_ID:
        return {"type": "file", "file_id": item.content}
    data = item.data
    if data is None:
        if item.type is Type.DOCUMENT_PATH:
            raise _unread(item)
        return {"type": "url", "url": item.content}
    sort = item.media_type
    if sort is None or sort.startswith("text/"):
        try:
            return {"type": "text", "media_type": "text/plain", "data": data.decode()}
        except UnicodeDecodeError:
            pass
    return {"type": "base64", "media_type": sort or "application/pdf", "data": _base64(data)}


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _unread(item: ContentItem) -> ConfigError:
    return ConfigError(
        f"the file {_shown(item)} of a message was not read: put its bytes into the item's binary field",
        path="messages.content",
    )


def _shown(item: ContentItem) -> str:
    return repr((item.content or "")[:200])


# -- the assistant and its tools ---------------------------------------------------------------------------------------


def _assistant(message: Message, dialect: Dialect, *, unsigned: bool) -> list[Block]:
    whole = _as_received(message)
    if whole is not None:
        return whole
    blocks = [
        dict(detail)
        for detail in message.reasoning_details or ()
        if isinstance(detail, dict) and (detail.get("signature") or detail.get("data") or unsigned)
        if detail.get("type") in THINKING
    ]
    if not blocks and unsigned and message.reasoning_content:
        blocks.append({"type": "thinking", "thinking": message.reasoning_content, "signature": ""})
    blocks += _content(message, dialect)
    blocks += [_tool_use(call) for call in message.tool_calls or ()]
    return blocks


def _as_received(message: Message) -> list[Block] | None:
    """The whole turn in its own order, where `AnthropicDecoder` kept it (it is not thinking, text, calls) and nobody
    has changed text or calls since."""
    details = message.reasoning_details
    if not details or not all(isinstance(detail, dict) for detail in details):
        return None
    kinds = {detail.get("type") for detail in details}
    if kinds <= THINKING or not kinds & {"text", "tool_use"}:
        return None
    text = "".join(str(detail.get("text", "")) for detail in details if detail["type"] == "text")
    calls = [detail.get("id") for detail in details if detail["type"] == "tool_use"]
    if text != message.text or calls != [call.id for call in message.tool_calls or ()]:
        return None
    return [dict(detail) for detail in details if detail.get("type") != "text" or detail.get("text")]


def _tool_use(call: Any) -> Block:
    value = arguments_object(call.function.arguments)
    block = {"type": "tool_use", "id": _id(call.id), "name": call.function.name, "input": value}
    if call.model_extra and "cache_control" in call.model_extra:
        block["cache_control"] = call.model_extra["cache_control"]
    return block


def _tool_result(message: Message, dialect: Dialect) -> Block:
    if not message.tool_call_id:
        raise ConfigError(
            "a tool message does not say which call it answers: set its tool_call_id", path="messages.tool_call_id"
        )
    result: Block = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id)}
    extra = message.model_extra or {}
    cached = extra.get("cache_control")
    content = _content(message, dialect)
    if cached is not None:
        if content:
            content[-1].pop("cache_control", None)
        result["cache_control"] = cached
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        result["content"] = content[0]["text"]
    elif content:
        result["content"] = content
    if extra.get("is_error") is not None:
        result["is_error"] = bool(extra["is_error"])
    return result


def _id(text: str) -> str:
    """Ids of other providers may hold letters that this API refuses; both sides of a pair change alike."""
    return _NOT_IN_ID.sub("_", text)
