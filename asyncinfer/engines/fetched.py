"""Images and documents that a conversation names by URL, fetched for those who only take bytes.

The caller of an engine may name any address: it is the program's own user. Whoever takes conversations from a network
must refuse such items, or fetch them under rules of its own, before they get here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..conversation import ContentItem, Type
from ..errors import ConfigError, TransportError
from ..media import sniff_media_type

if TYPE_CHECKING:
    from ..request import Request
    from ..transport.protocol import Transport

MAX_BYTES = 64 << 20
"""The largest file that is fetched."""
SECONDS = 60.0
"""How long one may take."""

BY_URL = frozenset({Type.IMAGE_URL, Type.DOCUMENT_URL})


def names_urls(request: Request, kinds: frozenset[Type] = BY_URL) -> bool:
    """Whether some file is named by an http(s) URL and not yet fetched."""
    return any(
        isinstance(message.content, list) and any(_unfetched(item, kinds) for item in message.content)
        for message in request.conversation.messages
    )


async def with_data(request: Request) -> Request:
    """The same request with the bytes of every file that it names by path or URL. Raises as below, and `with_files`."""
    from .files import names_files, with_files

    if names_files(request):
        request = await with_files(request)
    return await with_fetched(request) if names_urls(request) else request


async def with_fetched(request: Request, kinds: frozenset[Type] = BY_URL) -> Request:
    """The same request with the bytes of every named file of these kinds; one that is named twice is fetched once.

    Raises:
        ConfigError: there is no such file, it is too large, or it is no image.
        TransportError: its server cannot be reached, or is failing.
    """
    from ..transport.httpx_transport import shared_transport

    transport = shared_transport()  # never the engine's own client: what that sends along is not for everybody
    known: dict[str, bytes] = {}
    messages = []
    for at, message in enumerate(request.conversation.messages):
        content = message.content
        if isinstance(content, list) and any(_unfetched(item, kinds) for item in content):
            path = f"messages[{at}].content"
            items = []
            for item in content:
                if _unfetched(item, kinds):
                    url = str(item.content)
                    if url not in known:
                        known[url] = await _fetch(transport, url, path)
                    item = _filled(item, known[url], path)  # noqa: PLW2901 -- the same piece, whole
                items.append(item)
            message = message.model_copy(update={"content": items})  # noqa: PLW2901
        messages.append(message)
    return replace(request, conversation=request.conversation.model_copy(update={"messages": messages}))


def _unfetched(item: object, kinds: frozenset[Type]) -> bool:
    return (
        isinstance(item, ContentItem)
        and item.type in kinds
        and item.binary is None
        and (item.content or "").lower().startswith(("http://", "https://"))
    )


def _filled(item: ContentItem, data: bytes, path: str) -> ContentItem:
    whole = item.model_copy(update={"binary": data})
    if whole.is_image() and not (sniff_media_type(data) or "").startswith("image/"):  # whatever its name promises
        raise ConfigError(f"{path}: what {_shown(item.content)} answers with is no image", path=path)
    return whole


async def _fetch(transport: Transport, url: str, path: str) -> bytes:
    import anyio

    try:
        with anyio.fail_after(SECONDS):
            return await _get(transport, url, path)
    except TimeoutError as error:
        raise TransportError(f"{path}: {_shown(url)} did not answer within {SECONDS:g} s") from error


async def _get(transport: Transport, url: str, path: str) -> bytes:
    from .exchange import read_all

    exchange = await transport.open("GET", url, {"accept": "*/*"}, connect_timeout=30.0, trusted=False)
    try:
        body = await read_all(exchange, MAX_BYTES)
        status = exchange.status
        await exchange.aclose()
    finally:
        exchange.abort()
    if status >= 500 or status == 429:
        raise TransportError(f"{path}: {_shown(url)} answers with status {status}")
    if status >= 400:
        raise ConfigError(f"{path}: {_shown(url)} cannot be fetched (status {status})", path=path)
    if not body or len(body) > MAX_BYTES:
        raise ConfigError(f"{path}: {_shown(url)} is empty, or larger than {MAX_BYTES >> 20} MiB", path=path)
    return body


def _shown(url: str | None) -> str:
    """A URL without its query, which may hold a signature."""
    return (url or "").split("?", 1)[0].split("#", 1)[0]
