"""The models that a provider lists, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import ProtocolError
from .exchange import read_all

if TYPE_CHECKING:
    from ..providers import ChatModels
    from ..transport.protocol import Transport
    from .endpoint import Endpoint

_MAX_PAGE_BYTES = 64 << 20
_MAX_PAGES = 1000
_SECONDS = 60.0


async def list_models(transport: Transport, endpoint: Endpoint, *, chat_only: bool) -> list[str]:
    """Ids of all models that the endpoint lists, in its order.

    Pages are followed in each of the ways that providers have: ``has_more`` with ``last_id`` (Anthropic's
    ``after_id``, OpenAI's ``after``), ``nextPageToken`` (Google's ``pageToken``).

    Raises:
        ProtocolError: the answer is no list of models.
        APIError, TransportError, TotalTimeout: see there.
    """
    import anyio

    from ..errors import TotalTimeout

    first = endpoint.urls.models
    assert first is not None
    url: str | None = first
    found: list[str] = []
    try:
        with anyio.fail_after(_SECONDS):
            for _ in range(_MAX_PAGES):
                if url is None:
                    break
                page = await _get(transport, endpoint, url)
                rows, following = _read(page, first, endpoint.provider.name)
                kept = [row for row in rows if not chat_only or answers(row, endpoint.provider.chat_models)]
                found.extend(_id(row) for row in kept)
                url = following
    except TimeoutError as error:
        if isinstance(error, TotalTimeout):
            raise
        raise TotalTimeout(
            f"{first} did not list its models within {_SECONDS:g} s", seconds=_SECONDS, provider=endpoint.name
        ) from None
    return found


def answers(row: dict[str, Any], rule: ChatModels) -> bool:
    """Whether a listed model answers conversations, as far as its entry tells."""
    if rule.others and _id(row).startswith(rule.others):
        return False
    if rule.field is None or rule.field not in row:
        return True
    value = row[rule.field]
    return rule.value in value if isinstance(value, list) else bool(value == rule.value)


async def _get(transport: Transport, endpoint: Endpoint, url: str) -> Any:
    import msgspec

    sent = endpoint.headers
    if endpoint.credential is not None:
        sent = sent.plus(await endpoint.credential.headers())
    exchange = await transport.open("GET", url, sent, connect_timeout=30.0)
    try:
        body = await read_all(exchange, _MAX_PAGE_BYTES)
        if exchange.status >= 400:
            raise endpoint.blamed(endpoint.codec.error(exchange.status, exchange.headers, body))
        await exchange.aclose()
    finally:
        exchange.abort()
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"{url} did not answer with JSON", provider=endpoint.name) from error


def _read(page: Any, first: str, provider: str) -> tuple[list[dict[str, Any]], str | None]:
    """The entries of a page, and the URL of the next one."""
    rows = page if isinstance(page, list) else None
    following: tuple[str, str] | None = None
    if isinstance(page, dict):
        rows = next(
            (page[key] for key in ("data", "models", "publisherModels") if isinstance(page.get(key), list)), None
        )
        if page.get("has_more") and page.get("last_id"):
            name = "after_id" if "first_id" in page else "after"
            following = (name, str(page["last_id"]))
        elif page.get("nextPageToken"):
            following = ("pageToken", str(page["nextPageToken"]))
    if rows is None or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError(f"{first} did not answer with a list of models", provider=provider)
    if following is None:
        return rows, None
    mark = "&" if "?" in first else "?"
    return rows, f"{first}{mark}{following[0]}={quote(following[1], safe='')}"


def _id(row: dict[str, Any]) -> str:
    name = str(row.get("id") or row.get("name") or "")
    # Vertex AI names the publisher: publishers/google/models/gemini-x
    return name.rpartition("/")[2] if name.startswith("publishers/") else name.removeprefix("models/")
