"""Model lists: every provider's shape, page by page, filtered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncinfer import ModelParams, NotFoundError, ProtocolError, RemoteInferenceEngine, RemoteParams
from asyncinfer.engines.listing import answers
from asyncinfer.providers import PROVIDERS
from tests.servers.canned import CannedServer, answer

pytestmark = pytest.mark.anyio


async def listed(*pages: Any) -> tuple[list[str], list[str]]:
    """The ids found, and the request targets that were asked."""
    bodies = [page if isinstance(page, bytes) else json.dumps(page).encode() for page in pages]
    with CannedServer(*(answer(body) for body in bodies)) as server:
        remote = RemoteParams(api_url=f"{server.origin}/v1")
        async with RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=remote) as engine:
            found = await engine.list_models()
        return found, [request.target for request in server.requests]


async def test_one_page_in_each_shape() -> None:
    assert (await listed({"object": "list", "data": [{"id": "a"}, {"id": "b"}]}))[0] == ["a", "b"]
    assert (await listed([{"id": "a"}]))[0] == ["a"]
    assert (await listed({"models": [{"name": "models/g"}]}))[0] == ["g"]
    assert (await listed({"data": []}))[0] == []


async def test_pages_are_followed() -> None:
    found, asked = await listed(
        {"data": [{"id": "a"}], "has_more": True, "first_id": "a", "last_id": "a"},
        {"data": [{"id": "b"}], "has_more": False, "first_id": "b", "last_id": "b"},
    )
    assert (found, asked) == (["a", "b"], ["/v1/models", "/v1/models?after_id=a"])
    found, asked = await listed(
        {"models": [{"name": "models/a"}], "nextPageToken": "x/y"}, {"models": [{"name": "models/b"}]}
    )
    assert (found, asked[1]) == (["a", "b"], "/v1/models?pageToken=x%2Fy")


@pytest.mark.parametrize("page", [b"<html>", {"error": 1}, ["a"], {"data": "x"}])
async def test_what_is_no_list(page: Any) -> None:
    with pytest.raises(ProtocolError):
        await listed(page)


async def test_a_refusal_is_typed() -> None:
    with CannedServer(answer(b'{"error": {"message": "no"}}', status=404)) as server:
        engine = RemoteInferenceEngine(
            ModelParams(model_name="m"), remote_params=RemoteParams(api_url=f"{server.origin}/v1")
        )
        with pytest.raises(NotFoundError):
            await engine.list_models()
        await engine.aclose()


@pytest.mark.parametrize(
    ("provider", "row", "chats"),
    [
        ("openai", {"id": "gpt-4o"}, True),
        ("openai", {"id": "text-embedding-3-small"}, False),
        ("together", {"id": "x", "type": "chat"}, True),
        ("together", {"id": "x", "type": "image"}, False),
        ("fireworks", {"id": "x", "supports_chat": True}, True),
        ("fireworks", {"id": "x", "supports_chat": False}, False),
        ("remote", {"id": "anything"}, True),
    ],
)
def test_chat_only(provider: str, row: dict[str, Any], chats: bool) -> None:
    assert answers(row, PROVIDERS[provider].chat_models) is chats
