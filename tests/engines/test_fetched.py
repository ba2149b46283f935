"""Images that a conversation names by URL, for models that only take bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asyncinfer import Conversation, ModelParams
from asyncinfer.engines.fetched import names_urls, with_data
from asyncinfer.errors import ConfigError, TransportError
from tests.servers.canned import CannedServer, answer

from .scripted import ScriptedEngine

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"


def request(*urls):
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    conversation = Conversation.from_dict(
        {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}]}
    )
    engine = ScriptedEngine(ModelParams(model_name="m"))
    return replace(engine.plan(None, None, None, None, None).template, conversation=conversation)


async def test_bytes_come_in_and_the_conversation_stays_as_it_was():
    with CannedServer(answer(PNG)) as server:
        asked = request(f"{server.url}/cat.png?key=1", f"{server.url}/cat.png?key=1")
        whole = await with_data(asked)
        assert len(server.requests) == 1
    first, second, text = whole.conversation.messages[0].content
    assert first.data == second.data == PNG
    assert first.media_type == "image/png"
    assert text.content == "?"
    assert names_urls(asked)
    assert not names_urls(whole)


async def test_a_data_url_needs_no_server():
    asked = request("data:image/png;base64,iVBORw0KGgo=")
    assert not names_urls(asked)
    assert await with_data(asked) is asked


@pytest.mark.parametrize("status", [404, 401])
async def test_a_missing_image_is_the_callers_fault_and_its_signature_stays_secret(status):
    with CannedServer(answer(b"no", status=status)) as server:
        with pytest.raises(ConfigError, match=f"cat.png cannot be fetched .status {status}") as caught:
            await with_data(request(f"{server.url}/cat.png?sig=secret"))
    assert "secret" not in str(caught.value)
    assert caught.value.path == "messages[0].content"


async def test_a_failing_server_may_be_asked_again():
    with CannedServer(answer(b"no", status=503)) as server:
        with pytest.raises(TransportError) as caught:
            await with_data(request(f"{server.url}/cat.png"))
    assert caught.value.retryable


@pytest.mark.parametrize("body", [b"<html>", b""])
async def test_what_is_no_image_is_refused(body):
    with CannedServer(answer(body)) as server:
        with pytest.raises(ConfigError, match=r"no image|empty"):
            await with_data(request(f"{server.url}/cat.png"))
