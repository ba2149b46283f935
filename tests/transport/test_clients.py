"""A client of the user's own, httpx or httpx2: used as it is, never closed."""

from __future__ import annotations

import anyio
import httpx
import httpx2
import pytest

from asyncinfer.errors import ConfigError, ConnectError, TransportError
from asyncinfer.transport.httpx_transport import HttpxTransport
from tests.servers.background import eventually
from tests.servers.canned import CannedServer, Gate, answer, redirect, stream

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request):
    return request.param


async def test_it_is_used_and_stays_open(library, whole):
    with CannedServer() as server:
        async with library.AsyncClient(headers={"x-theirs": "1"}) as client:
            transport = HttpxTransport(client=client)
            for _ in range(3):
                exchange = await transport.open("POST", server.url, {"x-ours": "2"}, b"{}", connect_timeout=5)
                assert await whole(exchange) == b"{}"
                await exchange.aclose()
            await transport.aclose()
            assert not client.is_closed
            assert (await client.get(server.url)).status_code == 200
        assert server.connections == 1
    assert server.requests[0].headers["x-theirs"] == "1"
    assert server.requests[0].headers["x-ours"] == "2"
    assert server.requests[0].headers["content-length"] == "2"


async def test_streams_and_early_exits(library):
    gate = Gate()
    with CannedServer(stream(b"a", gate, b"b"), stream(b"a", "hang")) as server:
        async with library.AsyncClient() as client:
            transport = HttpxTransport(client=client)
            exchange = await transport.open("GET", server.url, {})
            assert await exchange.read() == b"a"
            gate.open()
            assert await exchange.read() == b"b"
            assert await exchange.read() == b""
            for leave in ("abort", "aclose", "cancel"):
                before = server.interrupted
                exchange = await transport.open("GET", server.url, {})
                assert await exchange.read() == b"a"
                if leave == "abort":
                    exchange.abort()
                elif leave == "aclose":
                    await exchange.aclose()
                else:
                    with anyio.move_on_after(0.02):
                        await exchange.read()
                await eventually(lambda before=before: server.interrupted == before + 1)
            await eventually(lambda: server.open_connections == 0)


async def test_its_errors_become_ours(library):
    with CannedServer(stream(b"a", "close")) as server:
        async with library.AsyncClient() as client:
            exchange = await HttpxTransport(client=client).open("GET", server.url, {})
            assert await exchange.read() == b"a"
            with pytest.raises(TransportError, match="before its answer was complete"):
                await exchange.read()
    async with library.AsyncClient() as client:
        with pytest.raises(ConnectError, match="is the server running"):
            await HttpxTransport(client=client).open("GET", server.url, {})


async def test_a_closed_client_says_so(library):
    client = library.AsyncClient()
    await client.aclose()
    with pytest.raises(TransportError, match="has been closed") as caught:
        await HttpxTransport(client=client).open("GET", "http://127.0.0.1:9", {})
    assert not caught.value.retryable


async def test_a_default_timeout_does_not_count_and_a_chosen_one_does(library):
    from asyncinfer.transport.httpx_transport import client_timeout

    def bounds(timeout):
        return timeout.connect, timeout.read, timeout.write, timeout.pool

    kind = library.Timeout
    assert bounds(client_timeout(library, library.AsyncClient().timeout, 30.0)) == (30.0, None, None, None)
    assert bounds(client_timeout(library, kind(60.0), 30.0)) == (30.0, 60.0, 60.0, 60.0)
    assert bounds(client_timeout(library, kind(60.0, connect=2.0), 30.0)) == (2.0, 60.0, 60.0, 60.0)
    assert bounds(client_timeout(library, kind(None), None)) == (None, None, None, None)


async def test_its_own_read_timeout_is_explained(library):
    with CannedServer(["hang"]) as server:
        async with library.AsyncClient(timeout=0.1) as client:
            with pytest.raises(TransportError, match="timeout of the client that was handed over"):
                await HttpxTransport(client=client).open("GET", server.url, {})


async def test_its_pool_limit_is_explained(library):
    with CannedServer(stream(b"a", "hang")) as server:
        limits = library.Limits(max_connections=1)
        async with library.AsyncClient(limits=limits, timeout=library.Timeout(None, pool=0.1)) as client:
            transport = HttpxTransport(client=client)
            held = await transport.open("GET", server.url, {})
            with pytest.raises(TransportError, match="max_connections"):
                await transport.open("GET", server.url, {})
            await held.aclose()


@pytest.mark.parametrize("follows", [True, False])
async def test_redirects_follow_our_rules(library, whole, follows):
    with CannedServer(answer(b"ok")) as there, CannedServer(redirect(there.url)) as here:
        client = library.AsyncClient(
            follow_redirects=follows,
            headers={"x-api-key": "theirs", "x-plain": "1"},
            auth=("me", "pw"),
            cookies={"session": "s"},
        )
        async with client:
            exchange = await HttpxTransport(client=client).open("POST", here.url, {"x-goog-api-key": "k"}, b"{}")
            assert await whole(exchange) == b"ok"
    first, second = here.requests[0].headers, there.requests[0].headers
    secret = {"authorization", "x-api-key", "x-goog-api-key", "cookie"}
    assert secret <= set(first)
    assert not secret & set(second)
    assert second["x-plain"] == "1"
    assert there.requests[0].body == b"{}"


async def test_a_transport_without_a_network(library, whole):
    """Tests of one's own app hand over a client with a mock or an ASGI app inside."""

    async def reply(request):
        return library.Response(200, content=b"mocked " + await request.aread())

    async with library.AsyncClient(transport=library.MockTransport(reply)) as client:
        transport = HttpxTransport(client=client)
        assert await whole(await transport.open("POST", "http://x/", {}, b"hello")) == b"mocked hello"
        exchange = await transport.open("POST", "http://x/", {}, b"hello")
        exchange.abort()
        await anyio.lowlevel.checkpoint()


async def test_an_event_hook_that_reads_the_answer(library, whole):
    async def read(response):
        await response.aread()

    with CannedServer(answer(b"hooked")) as server:
        async with library.AsyncClient(event_hooks={"response": [read]}) as client:
            assert await whole(await HttpxTransport(client=client).open("GET", server.url, {})) == b"hooked"


@pytest.mark.parametrize("client", [object(), "http://x"])
async def test_anything_else_is_refused(client):
    with pytest.raises(ConfigError, match=r"httpx\.AsyncClient"):
        HttpxTransport(client=client)


async def test_a_blocking_client_is_refused():
    with httpx.Client() as client, pytest.raises(ConfigError, match="not Client"):
        HttpxTransport(client=client)


class _SharedConnection:
    """A network stream of HTTP/2: other requests are on it, too."""

    def __init__(self):
        self.asked = []

    def get_extra_info(self, name):
        self.asked.append(name)


@pytest.mark.parametrize(("version", "asked"), [(b"HTTP/2", []), (b"HTTP/1.1", ["socket"])])
async def test_a_shared_connection_is_never_shut_down(library, version, asked):
    shared = _SharedConnection()

    class Body(library.AsyncByteStream):
        closed = False

        def __aiter__(self):
            return self

        async def __anext__(self):
            if self.closed:
                raise StopAsyncIteration
            return b"a"

        async def aclose(self):
            self.closed = True

    body = Body()
    extensions = {"http_version": version, "network_stream": shared}

    async def reply(request):
        return library.Response(200, stream=body, extensions=extensions)

    async with library.AsyncClient(transport=library.MockTransport(reply)) as client:
        exchange = await HttpxTransport(client=client).open("GET", "http://x/", {})
        assert await exchange.read() == b"a"
        exchange.abort()
        await eventually(lambda: body.closed)
    assert shared.asked == asked


async def test_nothing_of_the_client_s_own_goes_to_an_untrusted_place(library, whole):
    with CannedServer(answer(b"ok")) as server:
        own = {"x-api-key": "theirs", "x-plain": "1"}
        async with library.AsyncClient(headers=own, auth=("me", "pw"), cookies={"session": "s"}) as client:
            transport = HttpxTransport(client=client)
            assert await whole(await transport.open("PUT", server.url, {}, b"{}", trusted=False)) == b"ok"
    sent = server.requests[0].headers
    assert not {"authorization", "x-api-key", "cookie"} & set(sent)
    assert sent["x-plain"] == "1"
