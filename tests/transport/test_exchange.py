"""A request goes out, status, headers and chunks come back, and a body that was cut never looks complete."""

from __future__ import annotations

import zlib

import pytest

from asyncinfer.errors import ConfigError, RetryKind, TransportError
from asyncinfer.transport import protocol
from asyncinfer.transport.exchange import HttpxExchange
from asyncinfer.transport.httpx_transport import HttpxTransport, shared_transport
from tests.servers.canned import CannedServer, Gate, answer, chunk, head, stream

pytestmark = pytest.mark.anyio


async def test_request_and_answer(transport, whole):
    with CannedServer(answer(b'{"ok": true}', 201, {"x-request-id": "r-1"})) as server:
        exchange = await transport.open(
            "POST", f"{server.url}/v1/chat?x=1", {"Content-Type": "application/json", "X-Mine": "1"}, b'{"a": 1}'
        )
        assert exchange.status == 201
        assert exchange.headers["x-request-id"] == "r-1"
        assert await whole(exchange) == b'{"ok": true}'
        await exchange.aclose()
    request = server.requests[0]
    assert (request.method, request.target, request.json) == ("POST", "/v1/chat?x=1", {"a": 1})
    assert request.headers["content-length"] == "8"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["x-mine"] == "1"
    assert request.headers["user-agent"].startswith("asyncinfer/")


async def test_it_satisfies_the_seam(transport):
    def takes(lane: protocol.Transport, exchange: type[protocol.Exchange]) -> None: ...

    takes(transport, HttpxExchange)
    assert shared_transport() is shared_transport()
    assert isinstance(shared_transport(), HttpxTransport)


async def test_chunks_arrive_when_they_are_sent(transport):
    gate = Gate()
    with CannedServer(stream(b"data: 1\n\n", gate, b"data: 2\n\n")) as server:
        exchange = await transport.open("GET", server.url, {})
        assert await exchange.read() == b"data: 1\n\n"
        gate.open()
        assert await exchange.read() == b"data: 2\n\n"
        assert await exchange.read() == b""
        assert await exchange.read() == b""
        await exchange.aclose()
        await exchange.aclose()
        exchange.abort()
    assert server.interrupted == 0


async def test_the_head_comes_before_the_body(transport):
    gate = Gate()
    with CannedServer([head(200, {"content-length": "2"}), gate, b"ok"]) as server:
        exchange = await transport.open("GET", server.url, {})
        assert exchange.status == 200
        gate.open()
        assert await exchange.read() == b"ok"
        assert await exchange.read() == b""


async def test_repeated_headers_are_joined(transport, whole):
    pairs = [("X-A", "1"), ("x-a", "2"), ("Content-Length", "0")]
    with CannedServer([head(200, pairs)]) as server:
        exchange = await transport.open("GET", server.url, {})
        assert exchange.headers["x-a"] == "1, 2"
        assert set(exchange.headers) == {"x-a", "content-length"}
        assert await whole(exchange) == b""


async def test_informational_heads_are_skipped(transport, whole):
    with CannedServer([b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", *answer(b"ok")]) as server:
        exchange = await transport.open("GET", server.url, {})
        assert exchange.status == 200
        assert await whole(exchange) == b"ok"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_error_statuses_are_answers(transport, whole, status):
    with CannedServer(answer(b'{"error": 1}', status)) as server:
        exchange = await transport.open("POST", server.url, {}, b"{}")
        assert exchange.status == status
        assert await whole(exchange) == b'{"error": 1}'


async def test_no_body(transport):
    with CannedServer([head(204)]) as server:
        exchange = await transport.open("GET", server.url, {})
        assert (exchange.status, await exchange.read()) == (204, b"")


async def test_a_body_without_length_ends_with_the_connection(transport, whole):
    with CannedServer([head(200), b"all ", b"of it", "close"]) as server:
        exchange = await transport.open("GET", server.url, {})
        assert await whole(exchange) == b"all of it"


CUT = {
    "length": [head(200, {"content-length": "10"}), b"12345", "close"],
    "between chunks": [head(200, {"transfer-encoding": "chunked"}), chunk(b"12345"), "close"],
    "inside a chunk": [head(200, {"transfer-encoding": "chunked"}), b"a\r\n12345", "close"],
    "reset": [head(200, {"content-length": "10"}), b"12345", 0.02, "reset"],
}


@pytest.mark.parametrize("steps", CUT.values(), ids=CUT.keys())
async def test_a_cut_body_is_an_error(transport, steps):
    with CannedServer(steps) as server:
        exchange = await transport.open("GET", server.url, {})
        assert await exchange.read() == b"12345"
        with pytest.raises(TransportError) as caught:
            await exchange.read()
        assert caught.value.retry is RetryKind.TRANSIENT
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        with pytest.raises(TransportError):
            await exchange.read()
        await exchange.aclose()


@pytest.mark.parametrize("steps", [["close"], ["reset"], [b"HTTP/1.1 200 O", "close"]])
async def test_no_head(transport, steps):
    with CannedServer(steps) as server:
        with pytest.raises(TransportError) as caught:
            await transport.open("POST", server.url, {}, b"{}")
        assert caught.value.retryable


async def test_what_is_not_http_is_an_error_that_trying_again_does_not_cure(transport):
    with CannedServer([b"SSH-2.0-OpenSSH_9.0\r\n\r\n", "close"]) as server:
        with pytest.raises(TransportError, match="not HTTP") as caught:
            await transport.open("GET", server.url, {})
        assert not caught.value.retryable


async def test_garbage_inside_a_body_is_an_error(transport):
    with CannedServer(
        [head(200, {"transfer-encoding": "chunked"}), chunk(b"ok"), b"zz\r\nnonsense\r\n", "hang"]
    ) as server:
        exchange = await transport.open("GET", server.url, {})
        assert await exchange.read() == b"ok"
        with pytest.raises(TransportError, match="not HTTP"):
            await exchange.read()


# -- compressed bodies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_compressed_stream_is_read_as_it_comes(transport, coding):
    packer = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
    events = [f"data: {i}\n\n".encode() for i in range(5)]
    gates = [Gate() for _ in events]
    steps = []
    for event, gate in zip(events, gates, strict=True):
        steps += [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH), gate]
    steps.append(packer.flush())
    with CannedServer(stream(*steps, headers={"content-encoding": coding})) as server:
        exchange = await transport.open("GET", server.url, {})
        for event, gate in zip(events, gates, strict=True):
            assert await exchange.read() == event
            gate.open()
        assert await exchange.read() == b""
    assert coding in server.requests[0].headers["accept-encoding"]


async def test_a_compressed_document(transport, whole):
    packer = zlib.compressobj(wbits=31)
    text = b"x" * 300_000
    body = packer.compress(text) + packer.flush()
    with CannedServer(answer(body, headers={"content-encoding": "gzip"})) as server:
        exchange = await transport.open("GET", server.url, {})
        assert await whole(exchange) == text


async def test_an_abort_inside_a_compressed_body_is_clean(transport):
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(b"hello") + packer.flush(zlib.Z_SYNC_FLUSH)
    with CannedServer(stream(first, "hang", headers={"content-encoding": "gzip"})) as server:
        exchange = await transport.open("GET", server.url, {})
        assert await exchange.read() == b"hello"
        await exchange.aclose()
        assert server.connections == 1


async def test_damaged_compression_is_an_error(transport):
    with CannedServer(stream(b"not gzip at all", headers={"content-encoding": "gzip"})) as server:
        exchange = await transport.open("GET", server.url, {})
        with pytest.raises(TransportError, match="damaged"):
            await exchange.read()


async def test_a_compression_nobody_asked_for_is_an_error(transport):
    with CannedServer(stream(b"??", headers={"content-encoding": "sdch"})) as server:
        exchange = await transport.open("GET", server.url, {})
        with pytest.raises(TransportError, match="'sdch'") as caught:
            await exchange.read()
        assert not caught.value.retryable


async def test_identity_is_no_compression(transport, whole):
    with CannedServer(stream(b"plain", headers={"content-encoding": "identity"})) as server:
        assert await whole(await transport.open("GET", server.url, {})) == b"plain"


async def test_the_caller_may_refuse_compression(transport, whole):
    with CannedServer() as server:
        await whole(await transport.open("GET", server.url, {"Accept-Encoding": "identity"}))
    assert server.requests[0].headers["accept-encoding"] == "identity"


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "/v1/chat", "ftp://host/x", "http://", "http://[::1", "http://host:port/", "http://\x00"],
)
async def test_a_bad_url_is_named(transport, url):
    with pytest.raises(ConfigError) as caught:
        await transport.open("GET", url, {})
    assert caught.value.path == "api_url"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\nb", "ä"])
async def test_a_bad_header_name_is_named(transport, name):
    with pytest.raises(ConfigError, match="header name"):
        await transport.open("GET", "http://127.0.0.1:9", {name: "x"})


@pytest.mark.parametrize("value", ["a\nb", "a\r\nx: y", "\x00", "clé"])
async def test_a_bad_header_value_is_named_but_not_shown(transport, value):
    with pytest.raises(ConfigError, match="'x-mine'") as caught:
        await transport.open("GET", "http://127.0.0.1:9", {"x-mine": value})
    assert value not in str(caught.value)


async def test_url_credentials_become_a_header_and_nothing_else(transport, whole):
    with CannedServer() as server:
        url = server.url.replace("http://", "http://me:p%40ss@")
        await whole(await transport.open("GET", url, {}))
        await whole(await transport.open("GET", url, {"Authorization": "Bearer mine"}))
    assert server.requests[0].headers["authorization"] == "Basic bWU6cEBzcw=="
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"
    assert server.requests[1].headers["authorization"] == "Bearer mine"
    with pytest.raises(TransportError) as caught:
        await transport.open("GET", url, {})
    assert "p%40ss" not in str(caught.value)
    assert "p@ss" not in str(caught.value)


async def test_a_large_upload_and_a_large_download(transport, whole):
    body = bytes(range(256)) * 20_000
    with CannedServer(lambda request: answer(request.body)) as server:
        exchange = await transport.open("POST", server.url, {}, body)
        assert await whole(exchange) == body
