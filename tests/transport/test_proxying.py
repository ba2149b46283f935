"""Through a real proxy on loopback: absolute form for http, a tunnel for https."""

from __future__ import annotations

import sys

import pytest

from asyncinfer.errors import ConfigError, ConnectError, MissingDependencyError
from asyncinfer.transport.httpx_transport import HttpxTransport
from tests.servers.background import eventually
from tests.servers.canned import CannedServer, answer, stream
from tests.servers.proxy import ForwardProxy

pytestmark = pytest.mark.anyio


async def test_http_through_a_proxy(transport, whole, monkeypatch):
    with CannedServer(answer(b"ok")) as server:
        with ForwardProxy({"api.example.test:80": ("127.0.0.1", server.port)}) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            exchange = await transport.open("POST", "http://api.example.test/v1/x?a=1", {"x-mine": "1"}, b"{}")
            assert await whole(exchange) == b"ok"
            assert proxy.asked[0].target == "http://api.example.test/v1/x?a=1"
            await transport.aclose()
    assert server.requests[0].target == "/v1/x?a=1"
    assert server.requests[0].headers["host"] == "api.example.test"
    assert server.requests[0].body == b"{}"


async def test_https_through_a_tunnel(authority, whole, monkeypatch):
    transport = HttpxTransport(ssl_context=authority.client())
    with CannedServer(stream(b"a", b"b"), ssl_context=authority.server("api.example.test")) as server:
        with ForwardProxy({"api.example.test:443": ("127.0.0.1", server.port)}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            for _ in range(3):
                headers = {"authorization": "Bearer secret"}
                exchange = await transport.open("POST", "https://api.example.test/x", headers, b"{}", connect_timeout=9)
                assert await whole(exchange) == b"ab"
            await transport.aclose()
    assert [asked.method for asked in proxy.asked] == ["CONNECT"]
    assert "authorization" not in proxy.asked[0].headers
    assert server.requests[0].headers["authorization"] == "Bearer secret"


async def test_an_abort_inside_a_tunnel(authority, monkeypatch):
    transport = HttpxTransport(ssl_context=authority.client())
    with CannedServer(stream(b"a", "hang"), ssl_context=authority.server("api.example.test")) as server:
        with ForwardProxy({"api.example.test:443": ("127.0.0.1", server.port)}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            exchange = await transport.open("GET", "https://api.example.test/x", {})
            assert await exchange.read() == b"a"
            exchange.abort()
            await eventually(lambda: server.interrupted == 1)


async def test_a_proxy_with_a_password(transport, whole, monkeypatch):
    with CannedServer(answer(b"ok")) as server:
        with ForwardProxy({"api.example.test:80": ("127.0.0.1", server.port)}, user="me:pw") as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:pw@"))
            assert await whole(await transport.open("GET", "http://api.example.test/", {})) == b"ok"
            await transport.aclose()
    assert "proxy-authorization" not in server.requests[0].headers


async def test_a_proxy_that_wants_a_password(transport, monkeypatch):
    with ForwardProxy({}, user="me:pw") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:wrong@"))
        with pytest.raises(ConnectError, match="user name and password") as caught:
            await transport.open("GET", "https://api.example.test/", {})
        assert not caught.value.retryable
        assert "wrong" not in str(caught.value)
        assert proxy.url in str(caught.value)


async def test_a_proxy_that_does_not_know_the_way(transport, monkeypatch):
    with ForwardProxy({}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(
            ConnectError, match=f"{proxy.url} does not lead to https://api.example.test: it answered 502"
        ):
            await transport.open("GET", "https://api.example.test/", {})


async def test_a_proxy_that_is_not_there(transport, monkeypatch):
    with ForwardProxy({}) as proxy:
        url = proxy.url
    monkeypatch.setenv("HTTPS_PROXY", url)
    with pytest.raises(ConnectError, match=f"{url} refuses connections"):
        await transport.open("GET", "https://api.example.test/", {})


async def test_loopback_passes_the_proxy_by(transport, whole, monkeypatch):
    with CannedServer() as server, ForwardProxy({}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert await whole(await transport.open("GET", server.url, {})) == b"{}"
        assert proxy.asked == []


@pytest.mark.parametrize("proxy", ["http://", "http://[::1", "http://host:port"])
async def test_a_broken_proxy_url_is_named(transport, monkeypatch, proxy):
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        await transport.open("GET", "https://api.example.test/", {})


async def test_a_socks_proxy_without_its_library_says_what_to_install(transport, monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(MissingDependencyError, match=r"pip install 'httpx\[socks\]'"):
        await transport.open("GET", "https://api.example.test/", {})
