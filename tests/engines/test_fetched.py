"""Images that a conversation names by URL, for models that only take bytes."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest

from asyncinfer import BadRequestError, Conversation, ModelParams, RemoteInferenceEngine, RemoteParams
from asyncinfer.engines.fetched import names_urls, with_data
from asyncinfer.errors import ConfigError, TransportError
from tests.servers.canned import CannedServer, answer, stream

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


SAYS_OK = b'data: {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def with_a_document(files):
    items = [
        {"type": "document_url", "content": f"{files.url}/report.pdf?sig=1"},
        {"type": "image_url", "content": f"{files.url}/cat.png"},
    ]
    return Conversation.from_dict({"messages": [{"role": "user", "content": items}]})


async def test_a_document_is_fetched_where_the_format_has_no_place_for_its_address():
    """An image keeps its own. What belongs to the engine (key, headers) is not sent to the document's server."""
    pdf = b"%PDF-1.7 words"
    with CannedServer(answer(pdf)) as files, CannedServer(stream(SAYS_OK)) as model:
        asked = with_a_document(files)
        remote = RemoteParams(api_url=model.url, api_key="sk-secret-key", extra_headers={"x-tenant": "me"})
        engine = RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=remote)
        completion = await engine.generate(asked)
        document, image = model.requests[0].json["messages"][0]["content"]
        (fetched,) = files.requests
    assert completion.text == "ok"
    assert document["file"]["filename"] == "report.pdf"
    assert document["file"]["file_data"] == "data:application/pdf;base64," + b64encode(pdf).decode()
    assert image["image_url"]["url"] == f"{files.url}/cat.png"
    assert not {"authorization", "x-tenant"} & fetched.headers.keys()
    assert completion.conversation.messages[0].content[0].binary is None


async def test_a_document_is_not_fetched_for_who_can():
    with CannedServer(answer(b"%PDF-1.7")) as files, CannedServer(answer(b"{}", status=400)) as model:
        remote = RemoteParams(api_url=f"{model.url}/v1/responses")
        with pytest.raises(BadRequestError):
            await RemoteInferenceEngine(ModelParams(model_name="m"), remote_params=remote).generate(
                with_a_document(files)
            )
        document = model.requests[0].json["input"][0]["content"][0]
        assert document == {"type": "input_file", "file_url": f"{files.url}/report.pdf?sig=1"}
        assert not files.requests
