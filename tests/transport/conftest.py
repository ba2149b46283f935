"""Every test of this room runs on asyncio and on trio, and leaves nothing behind: warnings are errors."""

from __future__ import annotations

import gc
import resource

import pytest

from asyncinfer.transport.httpx_transport import HttpxTransport
from tests.servers.certificates import Authority


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """What was dropped unclosed says so now, in the test that dropped it."""
    yield
    gc.collect(1)  # young objects: a full collection for each test would cost more than the tests


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def transport():
    return HttpxTransport()


@pytest.fixture(scope="session")
def authority():
    return Authority()


@pytest.fixture
def many_files():
    """Room for the sockets of both ends of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def whole(exchange) -> bytes:
    """The body of an exchange, to its end."""
    parts = []
    while part := await exchange.read():
        parts.append(part)
    return b"".join(parts)


@pytest.fixture(name="whole")
def whole_fixture():
    return whole
