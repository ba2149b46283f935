"""Bodies that are sent piece by piece: their length is announced, they are sent again on a redirect, they may fail."""

from __future__ import annotations

import anyio
import httpx
import httpx2
import pytest

from asyncinfer.errors import TransportError
from asyncinfer.transport.httpx_transport import HttpxTransport
from tests.servers.canned import CannedServer, answer, redirect

pytestmark = pytest.mark.anyio


class Pieces:
    def __init__(self, *pieces: bytes, size: int | None = None) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces)) if size is None else size
        self.begun = 0

    def __aiter__(self):
        self.begun += 1
        return Walk(list(self.pieces))


class Walk:
    def __init__(self, left: list[bytes]) -> None:
        self.left = left

    def __aiter__(self):
        return self

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


async def test_pieces_arrive_in_order_with_their_length(transport, whole):
    body = Pieces(b"one ", b"two ", b"x" * 300_000)
    with CannedServer(answer(b"done")) as server:
        exchange = await transport.open("POST", server.url, {"content-type": "text/plain"}, body)
        assert await whole(exchange) == b"done"
    request = server.requests[0]
    assert request.body == b"one two " + b"x" * 300_000
    assert request.headers["content-length"] == str(body.size)
    assert "transfer-encoding" not in request.headers


async def test_a_redirect_sends_them_again(transport, whole):
    body = Pieces(b"a", b"b")
    with CannedServer(redirect("/there", 308), answer(b"done")) as server:
        assert await whole(await transport.open("POST", server.url, {}, body)) == b"done"
    assert [request.body for request in server.requests] == [b"ab", b"ab"]
    assert body.begun == 2


async def test_put(transport, whole):
    with CannedServer(answer(b"done")) as server:
        await whole(await transport.open("PUT", server.url, {}, Pieces(b"ab")))
    assert (server.requests[0].method, server.requests[0].body) == ("PUT", b"ab")


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_through_a_client_of_the_user(whole, library):
    with CannedServer(answer(b"done")) as server:
        async with library.AsyncClient() as client:
            exchange = await HttpxTransport(client=client).open("POST", server.url, {}, Pieces(b"a" * 70_000, b"b"))
            assert await whole(exchange) == b"done"
    assert server.requests[0].body == b"a" * 70_000 + b"b"
    assert "transfer-encoding" not in server.requests[0].headers


async def test_a_body_shorter_than_announced_is_an_error(transport):
    with CannedServer(answer(b"done")) as server:
        with pytest.raises(TransportError):
            await transport.open("POST", server.url, {}, Pieces(b"a", size=5))
        while not server.connections or server.open_connections:
            await anyio.sleep(0.01)
