"""What can go wrong on the way, in words that help; one table for each library; nothing foreign, nothing secret."""

from __future__ import annotations

import errno
import pickle
import socket
import ssl
import traceback

import httpx
import httpx2
import pytest

from asyncinfer import errors
from asyncinfer.errors import ConfigError, ConnectError, ConnectTimeout, TransportError
from asyncinfer.transport.address import parse
from asyncinfer.transport.failures import Place, translate
from asyncinfer.transport.httpx_transport import HttpxTransport
from tests.servers.background import eventually
from tests.servers.canned import CannedServer
from tests.servers.proxy import ForwardProxy


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nobody_listens(transport, host):
    url = f"http://{host}:{free_port()}"
    secret = "Qz9"
    with pytest.raises(ConnectError, match=rf"{url} refuses connections: is the server running at {url}\?") as caught:
        await transport.open("POST", f"{url}/v1/x?key={secret}", {"authorization": f"Bearer {secret}"}, b"{}")
    assert caught.value.retryable
    assert secret not in "".join(traceback.format_exception(caught.value))


@pytest.mark.anyio
async def test_a_name_that_does_not_resolve(transport, monkeypatch):
    def nowhere(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(ConnectError, match=r"the name of https://api\.nowhere\.test does not resolve"):
        await transport.open("GET", "https://api.nowhere.test/v1", {})


@pytest.mark.anyio
async def test_a_certificate_nobody_vouches_for(transport, authority):
    with CannedServer(ssl_context=authority.server()) as server:
        with pytest.raises(ConnectError, match=r"not trusted.*SSL_CERT_FILE") as caught:
            await transport.open("GET", server.url, {})
        assert not caught.value.retryable
        assert server.requests == []


@pytest.mark.anyio
async def test_a_certificate_for_another_host(authority):
    transport = HttpxTransport(ssl_context=authority.client())
    with CannedServer(ssl_context=authority.server("other.example.com")) as server:
        with pytest.raises(ConnectError, match="not trusted"):
            await transport.open("GET", server.url, {})


@pytest.mark.anyio
async def test_an_authority_of_ones_own(authority, transport, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path)))
    with CannedServer(ssl_context=authority.server()) as server:
        for _ in range(2):
            assert await whole(await transport.open("GET", server.url, {}, connect_timeout=10)) == b"{}"
        assert server.connections == 1


@pytest.mark.anyio
async def test_https_where_http_is_spoken(transport):
    with CannedServer() as server:
        with pytest.raises(ConnectError, match="does not speak TLS") as caught:
            await transport.open("GET", server.url.replace("http:", "https:"), {})
        assert not caught.value.retryable


@pytest.mark.anyio
async def test_no_connection_in_time(transport, monkeypatch):
    """A listener whose queue is full takes no further connection and refuses none."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            assert filler.connect_ex(("127.0.0.1", port)) in {0, errno.EINPROGRESS}
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(ConnectTimeout, match=rf"no connection to {url} within 0\.1 s") as caught:
            await transport.open("GET", url, {}, connect_timeout=0.1)
        for filler in fillers:
            filler.close()
    assert caught.value.seconds == 0.1
    assert caught.value.clock == "connect"
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.anyio
async def test_no_handshake_in_time(transport):
    """TCP connects; TLS never answers. The bound holds for both together."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(ConnectTimeout):
            await transport.open("GET", f"https://127.0.0.1:{sock.getsockname()[1]}", {}, connect_timeout=0.1)


@pytest.mark.anyio
async def test_a_proxy_that_does_not_answer_in_time(transport, monkeypatch):
    with ForwardProxy(silent=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(ConnectTimeout, match="through the proxy"):
            await transport.open("GET", "https://api.example.test", {}, connect_timeout=0.1)
        await eventually(lambda: proxy.asked)


@pytest.mark.anyio
async def test_the_bound_on_connecting_does_not_bound_the_answer(transport, whole):
    with CannedServer([0.3, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", 0.3, b"ok"]) as server:
        for _ in range(2):  # on a new connection, and on one that is used again
            assert await whole(await transport.open("GET", server.url, {}, connect_timeout=0.2)) == b"ok"
        assert server.connections == 1


# -- the table ---------------------------------------------------------------------------------------------------------

PLACE = Place(parse("https://me:pw@api.example.com/v1?key=k"), None, 5.0)


def library_errors(module):
    names = {name for name in dir(module) if isinstance(getattr(module, name), type)}
    found = [getattr(module, name) for name in sorted(names) if issubclass(getattr(module, name), Exception)]
    return [kind for kind in found if kind.__module__.startswith(module.__name__)]


def made(kind, text):
    try:
        return kind(text)
    except TypeError:
        pass
    try:
        return kind(text, request=None, response=None)
    except TypeError:
        return kind()


@pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_every_exception_of_a_library_becomes_ours(module):
    kinds = library_errors(module)
    assert len(kinds) > 20
    for kind in kinds:
        error = translate(made(kind, "https://me:pw@api.example.com?key=k sk-secret"), module, PLACE)
        assert type(error).__module__ == errors.__name__
        for secret in ("sk-secret", "pw", "key=k"):
            assert secret not in str(error), kind
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize(
    ("name", "ours", "retryable"),
    [
        ("ConnectTimeout", ConnectTimeout, True),
        ("ReadTimeout", TransportError, True),
        ("WriteTimeout", TransportError, True),
        ("PoolTimeout", TransportError, True),
        ("ConnectError", ConnectError, True),
        ("ReadError", TransportError, True),
        ("WriteError", TransportError, True),
        ("CloseError", TransportError, True),
        ("ProxyError", ConnectError, True),
        ("LocalProtocolError", TransportError, False),
        ("UnsupportedProtocol", ConfigError, False),
        ("InvalidURL", ConfigError, False),
        ("DecodingError", TransportError, True),
    ],
)
def test_the_table(module, name, ours, retryable):
    error = translate(getattr(module, name)("said"), module, PLACE)
    assert type(error) is ours
    assert error.retryable is retryable


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (socket.gaierror(-2, "x"), "does not resolve"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "refuses connections"),
        (OSError(errno.ENETUNREACH, "x"), "no route"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (ssl.SSLEOFError(8, "EOF"), "TLS handshake with"),
        (ExceptionGroup("all", [ValueError(), ConnectionRefusedError(errno.ECONNREFUSED, "x")]), "refuses connections"),
    ],
)
def test_the_reason_is_found_however_deep(cause, words):
    middle = OSError("All connection attempts failed")
    middle.__cause__ = cause
    outer = httpx.ConnectError("All connection attempts failed")
    outer.__cause__ = middle
    error = translate(outer, httpx, PLACE)
    assert isinstance(error, ConnectError)
    assert words in str(error)


def test_what_is_in_no_table_does_not_leak_either():
    error = translate(KeyError("sk-secret"), httpx, PLACE)
    assert str(error) == "KeyError in the HTTP client, talking to https://api.example.com"
    assert not error.retryable


def test_ours_stay_as_they_are():
    ours = TransportError("x")
    assert translate(ours, httpx, PLACE) is ours
