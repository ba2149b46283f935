"""Messages of a conversation as Converse has them: turns of user and assistant, each a list of blocks; system apart.

Rule: no file is opened and nothing is fetched here. Converse takes bytes, or an object of S3 (``s3://bucket/key``);
it fetches no web address. Neighbours of one role become one turn, results of tools stand in the user's turn. Reasoning
goes back only where it is signed or sealed: models refuse any other.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from typing import TYPE_CHECKING, Any

from ...conversation import ContentItem, Message, Role, Type
from ...errors import ConfigError
from ..lenient import arguments_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...conversation import ToolCall

Block = dict[str, Any]

_IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENT_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
_ENDINGS = {**{ending: ending for ending in _DOCUMENT_FORMATS.values()}, "htm": "html", "text": "txt"}
_VIDEO_FORMATS = {"mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv"}
_AUDIO_FORMATS = {"audio/mpeg": "mp3", "audio/wav": "wav", "audio/flac": "flac", "audio/ogg": "ogg", "audio/aac": "aac"}
_IMAGES = {Type.IMAGE_PATH, Type.IMAGE_URL, Type.IMAGE_BINARY}
_DOCUMENTS = {Type.DOCUMENT_PATH, Type.DOCUMENT_URL, Type.DOCUMENT_BINARY}
_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_NOT_IN_NAME = re.compile(r"[^a-zA-Z0-9\-()\[\] ]+")


def write_conversation(messages: Sequence[Message]) -> tuple[list[Block], list[Block]]:
    """``system`` and ``messages`` of a request.

    Raises:
        ConfigError: a piece cannot be sent (a path that was not read, a web address, a format that Converse lacks).
    """
    writer = _Writer()
    system: list[Block] = []
    turns: list[Block] = []
    for at, message in enumerate(messages):
        blocks = writer.message(message, at)
        if message.role is Role.SYSTEM:
            system += blocks
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return system, turns


def uses_tools(turns: Sequence[Block]) -> list[str]:
    """Names of the tools that were called earlier in the conversation, each once."""
    used = [block["toolUse"]["name"] for turn in turns for block in turn["content"] if "toolUse" in block]
    return list(dict.fromkeys(used))


class _Writer:
    """One request; document names must be unique in it."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def message(self, message: Message, at: int) -> list[Block]:
        path = f"messages[{at}]"
        if message.role is Role.TOOL:
            return [self._result(message, path)]
        blocks = _reasoning(message, path) if message.role is Role.ASSISTANT else []
        blocks += self._content(message.content, path)
        blocks += [_call(call) for call in message.tool_calls or ()]
        return blocks

    def _content(self, content: str | list[ContentItem] | None, path: str) -> list[Block]:
        if content is None or isinstance(content, str):
            return [{"text": content}] if content else []
        blocks: list[Block] = []
        for n, item in enumerate(content):
            if item.type is not Type.TEXT:
                blocks.append(self._attachment(item, f"{path}.content[{n}]"))
            elif item.content:
                blocks.append({"text": item.content})
            cache = (item.model_extra or {}).get("cache_control")
            if isinstance(cache, dict) and blocks:
                point = {"type": "default", **({"ttl": cache["ttl"]} if "ttl" in cache else {})}
                blocks.append({"cachePoint": point})
        return blocks

    def _result(self, message: Message, path: str) -> Block:
        if not message.tool_call_id:
            raise ConfigError(
                f"{path}: a tool message must name the call it answers in tool_call_id", path=f"{path}.tool_call_id"
            )
        result: Block = {
            "toolUseId": _tool_id(message.tool_call_id),
            "content": self._content(message.content, path),
        }
        if message.get("is_error"):
            result["status"] = "error"
        return {"toolResult": result}

    def _attachment(self, item: ContentItem, path: str) -> Block:
        if item.type in _IMAGES:
            return {"image": {"format": _image_format(item, path), "source": _source(item, path)}}
        if item.type in _DOCUMENTS:
            form = _document_format(item, path)
            return {"document": {"format": form, "name": self._name(item), "source": _source(item, path)}}
        if item.type is Type.VIDEO_URL:
            return {"video": {"format": _video_format(item, path), "source": _source(item, path)}}
        if item.type in {Type.AUDIO_BINARY, Type.AUDIO_PATH}:
            form = _AUDIO_FORMATS.get(item.media_type or "", "")
            return {"audio": {"format": form or _unknown(item, path, "audio"), "source": _source(item, path)}}
        raise ConfigError(
            f"{path}: Bedrock keeps no uploaded files, so an item of type {item.type.value!r} means nothing to it; "
            "give the document's bytes",
            path=path,
        )

    def _name(self, item: ContentItem) -> str:
        """A name that the service takes: letters, digits, single spaces, hyphens, brackets; each only once."""
        stem = (item.filename or "document").rpartition("/")[2].rsplit(".", 1)[0]
        plain = " ".join(_NOT_IN_NAME.sub(" ", stem).split())[:180] or "document"
        name, count = plain, 1
        while name in self._names:
            count += 1
            name = f"{plain} {count}"
        self._names.add(name)
        return name


def _reasoning(message: Message, path: str) -> list[Block]:
    blocks: list[Block] = []
    for detail in message.reasoning_details or ():
        if not isinstance(detail, dict):
            continue
        shown, sealed = detail.get("reasoningText"), detail.get("redactedContent")
        if isinstance(shown, dict) and shown.get("signature"):
            blocks.append({"reasoningContent": {"reasoningText": dict(shown)}})
        elif isinstance(sealed, str):
            try:
                blocks.append({"reasoningContent": {"redactedContent": b64decode(sealed, validate=True)}})
            except ValueError:
                where = f"{path}.reasoning_details"
                raise ConfigError(f"{where}: redactedContent is not base64; send it as it came", path=where) from None
    return blocks


def _call(call: ToolCall) -> Block:
    arguments = arguments_object(call.function.arguments)
    return {"toolUse": {"toolUseId": _tool_id(call.id), "name": call.function.name, "input": arguments}}


def _tool_id(given: str) -> str:
    """The id as the service allows one; the same for a call and its result, whichever provider made it."""
    if _ID.fullmatch(given):
        return given
    return f"{_NOT_IN_ID.sub('_', given)[:40]}-{hashlib.sha256(given.encode()).hexdigest()[:16]}"


# -- data --------------------------------------------------------------------------------------------------------------


def _source(item: ContentItem, path: str) -> Block:
    data = item.data
    if data is not None:
        return {"bytes": data}
    address = item.content or ""
    if address.startswith("s3://"):
        owner = (item.model_extra or {}).get("bucket_owner")
        return {"s3Location": {"uri": address, **({"bucketOwner": owner} if owner else {})}}
    if item.type in {Type.IMAGE_PATH, Type.DOCUMENT_PATH, Type.AUDIO_PATH}:
        raise ConfigError(
            f"{path}: the file {address[:200]!r} was not read: put its bytes into the item's binary field", path=path
        )
    raise ConfigError(
        f"{path}: Bedrock fetches no web addresses: give the bytes, or an s3:// address, in place of {address[:200]!r}",
        path=path,
    )


def _image_format(item: ContentItem, path: str) -> str:
    return _IMAGE_FORMATS.get(item.media_type or "") or _unknown(item, path, "image")


def _document_format(item: ContentItem, path: str) -> str:
    ending = (item.filename or "").lower().rpartition(".")[2]
    # The name knows better than the first bytes: docx and xlsx are zip files, csv and Markdown are text.
    found = _ENDINGS.get(ending) or _DOCUMENT_FORMATS.get(item.media_type or "")
    return found or _unknown(item, path, "document")


def _video_format(item: ContentItem, path: str) -> str:
    address = item.content or ""
    if address[:5].lower() == "data:":
        ending = address[5:].partition(";")[0].rpartition("/")[2].lower()
    else:
        ending = address.partition("?")[0].rpartition(".")[2].lower()
    ending = {"quicktime": "mov", "x-matroska": "mkv", "x-flv": "flv", "x-ms-wmv": "wmv"}.get(ending, ending)
    if ending in {"3gp", "3gpp"}:
        return "three_gp"
    return ending if ending in _VIDEO_FORMATS else _unknown(item, path, "video")


def _unknown(item: ContentItem, path: str, kind: str) -> str:
    raise ConfigError(
        f"{path}: Bedrock has no format for this {kind} ({item.media_type or 'of unknown type'})", path=path
    )
