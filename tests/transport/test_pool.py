"""Connections are kept, shared, and belong to the loop they were made on."""

from __future__ import annotations

import gc
import threading

import anyio
import pytest

from asyncinfer.transport import lanes
from asyncinfer.transport.httpx_transport import HttpxTransport
from tests.servers.background import eventually
from tests.servers.canned import CannedServer, Gate, answer, head, stream


async def get(transport, url) -> bytes:
    exchange = await transport.open("GET", url, {})
    body = b""
    while part := await exchange.read():
        body += part
    return body


@pytest.mark.anyio
async def test_a_connection_is_used_again(transport):
    with CannedServer(answer(b"{}"), stream(b"a", b"b")) as server:
        for _ in range(5):
            await get(transport, server.url)
        assert server.connections == 1
        assert len(server.requests) == 5


@pytest.mark.anyio
async def test_as_many_connections_as_requests_at_once(transport):
    gate = Gate()
    with CannedServer(stream(gate, b"x")) as server:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(get, transport, server.url)
            await eventually(lambda: gate.reached == 20)
            gate.open()
        assert server.connections == 20
        for _ in range(20):
            await get(transport, server.url)
        assert server.connections == 20


@pytest.mark.anyio
async def test_a_body_that_was_not_read_takes_its_connection_along(transport):
    with CannedServer(stream(b"a", "hang"), answer(b"ok")) as server:
        exchange = await transport.open("GET", server.url, {})
        assert await exchange.read() == b"a"
        await exchange.aclose()
        await eventually(lambda: server.interrupted == 1)
        assert await get(transport, server.url) == b"ok"
        assert server.connections == 2


@pytest.mark.anyio
async def test_an_unread_exchange_may_be_closed(transport):
    with CannedServer(stream("hang")) as server:
        exchange = await transport.open("GET", server.url, {})
        await exchange.aclose()
        await eventually(lambda: server.open_connections == 0)


@pytest.mark.anyio
async def test_connection_close_is_obeyed(transport):
    with CannedServer([head(200, {"content-length": "2", "connection": "close"}), b"ok", "close"]) as server:
        for _ in range(3):
            assert await get(transport, server.url) == b"ok"
        assert server.connections == 3


@pytest.mark.anyio
async def test_a_connection_that_the_server_closed_while_idle_is_not_used(transport):
    with CannedServer([*answer(b"ok"), 0.01, "close"]) as server:
        for _ in range(3):
            assert await get(transport, server.url) == b"ok"
            await eventually(lambda: server.open_connections == 0)
        assert server.connections == 3


@pytest.mark.anyio
async def test_aclose_closes_what_is_idle_and_nothing_else(transport):
    gate = Gate()
    with CannedServer(answer(b"{}"), stream(b"a", gate, b"b"), answer(b"{}")) as server:
        await get(transport, server.url)
        held = await transport.open("GET", server.url, {})
        assert await held.read() == b"a"
        other = await transport.open("GET", server.url, {})
        assert await other.read() == b"{}"
        assert await other.read() == b""
        await transport.aclose()
        await eventually(lambda: server.open_connections == 1)
        gate.open()
        assert await held.read() == b"b"
        assert await held.read() == b""
        assert await get(transport, server.url) == b"{}"
        assert server.connections == 2


@pytest.mark.anyio
async def test_old_idle_connections_are_closed(transport, monkeypatch):
    gate = Gate()
    with CannedServer(stream(gate, b"x")) as server:
        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(get, transport, server.url)
            await eventually(lambda: gate.reached == 6)
            gate.open()
        assert server.open_connections == 6
        monkeypatch.setattr(lanes, "IDLE_SECONDS", 0.0)  # all of them are old now
        for _ in range(6):
            await get(transport, server.url)
        await eventually(lambda: server.open_connections <= 1)


@pytest.mark.anyio
async def test_five_hundred_streams_at_once(transport, many_files):
    gate = Gate()
    bodies = []

    async def one() -> None:
        bodies.append(await get(transport, server.url))

    with CannedServer(stream(b"first ", gate, b"second")) as server:
        async with anyio.create_task_group() as tasks:
            for _ in range(500):
                tasks.start_soon(one)
            await eventually(lambda: gate.reached == 500, 60)
            assert server.open_connections == 500
            gate.open()
        assert bodies == [b"first second"] * 500
        assert server.connections == 500


@pytest.mark.anyio
async def test_origins_do_not_share_connections(transport):
    with CannedServer() as one, CannedServer() as two:
        for _ in range(3):
            await get(transport, one.url)
            await get(transport, two.url)
        assert (one.connections, two.connections) == (1, 1)


# -- loops and threads -------------------------------------------------------------------------------------------------


def test_one_transport_serves_one_loop_after_another(transport, anyio_backend):
    with CannedServer() as server:
        for run in range(3):
            assert anyio.run(get, transport, server.url, backend=anyio_backend) == b"{}"
            gc.collect()
            assert server.connections == run + 1

        async def all_closed():
            await eventually(lambda: server.open_connections == 0)

        anyio.run(all_closed, backend=anyio_backend)
    gc.collect()
    assert len(transport._by_loop) == 0


def test_one_transport_serves_both_kinds_of_loop(transport):
    with CannedServer() as server:
        assert anyio.run(get, transport, server.url, backend="asyncio") == b"{}"
        assert anyio.run(get, transport, server.url, backend="trio") == b"{}"


def test_one_transport_serves_several_threads(transport, anyio_backend):
    results: list[bytes] = []

    async def ten() -> None:
        results.extend([await get(transport, server.url) for _ in range(10)])

    with CannedServer() as server:
        threads = [threading.Thread(target=anyio.run, args=(ten,), kwargs={"backend": anyio_backend}) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [b"{}"] * 40
        assert server.connections == 4


def test_a_dropped_transport_leaves_its_connections_to_the_loop(anyio_backend):
    async def main() -> None:
        await get(HttpxTransport(), server.url)
        gc.collect()

    with CannedServer() as server:
        anyio.run(main, backend=anyio_backend)
        gc.collect()

        async def closed() -> None:
            await eventually(lambda: server.open_connections == 0)

        anyio.run(closed, backend=anyio_backend)
