"""One piece of a message: text, an image, a document, a sound.

Rule: validating a piece never opens a file or a connection, whatever it names: a row that arrives over the network
could name any file. Whoever trusts a conversation reads its `IMAGE_PATH` items explicitly and puts the bytes in.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from pydantic import ConfigDict, field_serializer, model_validator

from .documents import Document, Verbatim
from .media import media_type_of_name, sniff_media_type

if TYPE_CHECKING:
    from typing import Self


class Type(StrEnum):
    """What a piece holds. The names say where the data is: a path or URL in ``content``, or bytes in ``binary``."""

    TEXT = "text"
    IMAGE_PATH = "image_path"
    IMAGE_URL = "image_url"
    IMAGE_BINARY = "image_binary"
    DOCUMENT_PATH = "document_path"
    DOCUMENT_URL = "document_url"
    DOCUMENT_BINARY = "document_binary"
    DOCUMENT_ID = "document_id"
    AUDIO_PATH = "audio_path"
    AUDIO_BINARY = "audio_binary"
    VIDEO_URL = "video_url"


_BINARY = frozenset({Type.IMAGE_BINARY, Type.DOCUMENT_BINARY, Type.AUDIO_BINARY})
_IMAGES = frozenset({Type.IMAGE_PATH, Type.IMAGE_URL, Type.IMAGE_BINARY})


class ContentItem(Document):
    """One piece of a message's content. Immutable.

    Rows may hold it in two styles, and get back the one they had: ``{"type": "image_url", "content": "https://..."}``
    with ``binary`` as base64, or the OpenAI parts ``{"type": "image_url", "image_url": {"url": ..., "detail": ...}}``,
    ``{"type": "text", "text": ...}``, ``input_audio``, ``file``, ``video_url`` and ``refusal``. Either way `type`,
    `content` and `binary` say the same.

    Attributes:
        type: what it is.
        content: the text, path or URL (a ``data:`` URL too); the provider's id for a `Type.DOCUMENT_ID`.
        binary: the bytes, for the binary types; for paths and URLs, the bytes if somebody loaded them already.
    """

    model_config = ConfigDict(frozen=True)

    type: Type
    content: str | None = None
    binary: bytes | None = None

    @classmethod
    def _read(cls, data: dict[str, Any]) -> tuple[dict[str, Any], Verbatim | None]:
        verbatim: Verbatim = {}
        kind = data.get("type")
        part = _PARTS.get(kind) if isinstance(kind, str) else None
        if part is not None and "content" not in data and "binary" not in data and data.get(str(kind)) is not None:
            derived = part(data[str(kind)])
            if "type" in derived:
                verbatim["type"] = kind
            data = {**data, **derived}
        binary = data.get("binary")
        if isinstance(binary, str):
            decoded = _decode(binary, "binary")
            if b64encode(decoded).decode() != binary:  # line breaks, URL-safe alphabet: write back what was there
                verbatim["binary"] = binary
            data = {**data, "binary": decoded}
        return data, verbatim or None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type in _BINARY:
            if not self.binary:
                raise ValueError(f"an item of type {self.type.value!r} needs non-empty 'binary'")
        elif self.type is Type.TEXT:
            if self.content is None:
                raise ValueError("an item of type 'text' needs 'content' (or 'text', in the OpenAI style)")
            if self.binary is not None:
                raise ValueError("an item of type 'text' has no 'binary'")
        elif not self.content:
            raise ValueError(f"an item of type {self.type.value!r} needs non-empty 'content'")
        return self

    @field_serializer("binary", when_used="json-unless-none")
    def _write_binary(self, value: bytes) -> str:
        return b64encode(value).decode()

    def is_text(self) -> bool:
        """Whether this is text."""
        return self.type is Type.TEXT

    def is_image(self) -> bool:
        """Whether this is an image, wherever its data is."""
        return self.type in _IMAGES

    @property
    def data(self) -> bytes | None:
        """The bytes, where they are at hand: ``binary``, or what a ``data:`` URL holds; else None.

        Raises:
            ValueError: the ``data:`` URL is not valid base64.
        """
        if self.binary is not None or self.type is Type.TEXT or not self.content:
            return self.binary
        return _data_url(self.content)[1] if self.content[:5].lower() == "data:" else None

    @property
    def media_type(self) -> str | None:
        """The real media type (``"image/jpeg"``): by the data's first bytes, else what the URL or name claims."""
        if self.type is Type.TEXT:
            return "text/plain"
        data = self.data
        known = sniff_media_type(data) if data else None
        if known is not None or not self.content:
            return known
        return _data_url(self.content)[0] if self.content[:5].lower() == "data:" else media_type_of_name(self.content)

    @property
    def detail(self) -> str | None:
        """OpenAI's ``detail`` of an image (``"low"``, ``"high"``, ``"auto"``), where the row gave one."""
        extra = self.__pydantic_extra__ or {}
        part = extra.get("image_url")
        found = part.get("detail") if isinstance(part, dict) else extra.get("detail")
        return found if isinstance(found, str) else None

    @property
    def filename(self) -> str | None:
        """The name of a document: the row's, or the end of its path or URL."""
        part = (self.__pydantic_extra__ or {}).get("file")
        if isinstance(part, dict) and isinstance(part.get("filename"), str):
            return str(part["filename"])
        named = self.type in {Type.DOCUMENT_PATH, Type.DOCUMENT_URL}
        if named and self.content and self.content[:5].lower() != "data:":
            return self.content.split("?", 1)[0].rsplit("/", 1)[-1] or None
        return None

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Like pydantic's; a changed piece is written in the plain style, not as the part it was read from."""
        copied = super().model_copy(update=update, deep=deep)
        private = copied.__pydantic_private__
        if update and {"type", "content", "binary"} & set(update) and private is not None:
            extra = copied.__pydantic_extra__ or {}
            for part in _PARTS:
                extra.pop(part, None)
            fields = tuple(name for name in ("type", "content", "binary") if getattr(copied, name) is not None)
            private["_keys"] = fields + tuple(key for key in private.get("_keys", ()) if key in extra)
            private["_verbatim"] = None
        return copied

    def __repr__(self) -> str:
        return repr(self.content) if self.type is Type.TEXT else f"<{self.type.name}>"

    __str__ = __repr__


def _decode(text: str, name: str) -> bytes:
    plain = "".join(text.split()).translate({ord("-"): "+", ord("_"): "/"})
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise ValueError(f"{name!r} is not base64") from None


def _data_url(url: str) -> tuple[str | None, bytes]:
    """Media type and bytes of a ``data:`` URL (RFC 2397)."""
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise ValueError("the 'data:' URL has no comma, so no data")
    media_type = head.split(";", 1)[0].strip().lower() or None
    return media_type, _decode(body, "data: URL") if head.lower().endswith(";base64") else unquote_to_bytes(body)


def _url_part(part: Any) -> dict[str, Any]:
    return {"content": part["url"] if isinstance(part, dict) and "url" in part else part}


def _text_part(part: Any) -> dict[str, Any]:
    return {"content": part}


def _refusal_part(part: Any) -> dict[str, Any]:
    return {"type": Type.TEXT, "content": part}


def _audio_part(part: Any) -> dict[str, Any]:
    data = part.get("data") if isinstance(part, dict) else None
    if isinstance(data, str):
        return {"type": Type.AUDIO_BINARY, "binary": _decode(data, "input_audio.data")}
    raise ValueError("'input_audio' needs 'data', base64 text")


def _file_part(part: Any) -> dict[str, Any]:
    if isinstance(part, dict) and isinstance(part.get("file_data"), str):
        data = part["file_data"]
        binary = _data_url(data)[1] if data[:5].lower() == "data:" else _decode(data, "file.file_data")
        return {"type": Type.DOCUMENT_BINARY, "binary": binary}
    if isinstance(part, dict) and isinstance(part.get("file_id"), str):
        return {"type": Type.DOCUMENT_ID, "content": part["file_id"]}
    raise ValueError("'file' needs 'file_data' (base64 text) or 'file_id'")


_PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "text": _text_part,
    "image_url": _url_part,
    "video_url": _url_part,
    "refusal": _refusal_part,
    "input_audio": _audio_part,
    "file": _file_part,
}
