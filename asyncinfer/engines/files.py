"""Images, documents and sounds that a conversation names by path, read before a codec sees them.

The caller of an engine may name files: it is the program's own user. Whoever takes conversations from a network must
refuse such items before they get here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..conversation import ContentItem, Conversation, Message, Type
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..request import Request


_BY_PATH = {Type.IMAGE_PATH, Type.DOCUMENT_PATH, Type.AUDIO_PATH}


def names_files(request: Request) -> bool:
    """Whether some file is named by path and not yet read."""
    return any(
        isinstance(message.content, list) and any(_unread(item) for item in message.content)
        for message in request.conversation.messages
    )


async def with_files(request: Request) -> Request:
    """The same request with every named file read, in a worker thread.

    Raises:
        ConfigError: a file cannot be read.
    """
    from dataclasses import replace

    from anyio import to_thread

    return replace(request, conversation=await to_thread.run_sync(_read_files, request.conversation))


def _unread(item: object) -> bool:
    return isinstance(item, ContentItem) and item.type in _BY_PATH and item.binary is None


def _read_files(conversation: Conversation) -> Conversation:
    messages: list[Message] = []
    for message in conversation.messages:
        content = message.content
        if isinstance(content, list) and any(map(_unread, content)):
            items = [item.model_copy(update={"binary": _read(item)}) if _unread(item) else item for item in content]
            messages.append(message.model_copy(update={"content": items}))
        else:
            messages.append(message)
    return conversation.model_copy(update={"messages": messages})


def _read(item: ContentItem) -> bytes:
    path = Path(item.content or "").expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"cannot read the file {path}: {reason}", path="messages.content") from error
