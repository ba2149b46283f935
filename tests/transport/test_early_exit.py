"""Leaving early: the server sees it at once, and neither task, connection nor warning stays behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings

import anyio
import pytest

from asyncinfer.errors import TransportError
from asyncinfer.loops import running
from asyncinfer.transport.httpx_transport import HttpxTransport
from tests.servers.background import eventually
from tests.servers.canned import CannedServer, Gate, head, stream

HANG = stream(b"first", "hang")


async def opened(transport, server):
    exchange = await transport.open("GET", server.url, {})
    assert await exchange.read() == b"first"
    return exchange


async def all_gone(server, interrupted: int = 1) -> None:
    await eventually(lambda: server.open_connections == 0)
    assert server.interrupted == interrupted


def seen_without_the_loop(condition) -> None:
    """The loop does not run while we wait here: what happens now, happened synchronously."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.0005)


@pytest.mark.anyio
async def test_abort_needs_nobody_to_await(transport):
    with CannedServer(HANG) as server:
        exchange = await opened(transport, server)
        exchange.abort()
        seen_without_the_loop(lambda: server.interrupted == 1)
        exchange.abort()
        with pytest.raises(TransportError, match="stopped"):
            await exchange.read()
        await exchange.aclose()
        await all_gone(server)


@pytest.mark.anyio
async def test_abort_over_tls(authority):
    transport = HttpxTransport(ssl_context=authority.client())
    with CannedServer(HANG, ssl_context=authority.server()) as server:
        exchange = await opened(transport, server)
        exchange.abort()
        seen_without_the_loop(lambda: server.interrupted == 1)
        await all_gone(server)


@pytest.mark.anyio
async def test_abort_wakes_a_reader(transport):
    with CannedServer(HANG) as server:
        exchange = await opened(transport, server)
        errors = []

        async def read() -> None:
            try:
                await exchange.read()
            except TransportError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            exchange.abort()
        assert "stopped" in str(errors[0])
        await all_gone(server)


@pytest.mark.anyio
async def test_abort_before_the_body(transport):
    with CannedServer([head(200, {"content-length": "5"}), "hang"]) as server:
        exchange = await transport.open("GET", server.url, {})
        exchange.abort()
        await all_gone(server)


@pytest.mark.anyio
async def test_abort_of_a_body_that_arrived_faster_than_it_was_read(transport):
    with CannedServer(stream(*[b"x" * 100] * 2000, "hang")) as server:
        exchange = await transport.open("GET", server.url, {})
        assert await exchange.read()
        await eventually(lambda: server.requests)
        exchange.abort()
        await all_gone(server)


@pytest.mark.anyio
async def test_abort_leaves_the_others_alone(transport):
    gate = Gate()
    with CannedServer(HANG, stream(b"first", gate, b"second")) as server:
        gone = await opened(transport, server)
        kept = await opened(transport, server)
        gone.abort()
        await eventually(lambda: server.interrupted == 1)
        gate.open()
        assert await kept.read() == b"second"
        assert await kept.read() == b""


@pytest.mark.anyio
async def test_abort_from_a_callback_scheduled_by_the_garbage_collector(transport):
    class Owner:
        def __init__(self, exchange):
            self.exchange = exchange
            self.loop = running()

        def __del__(self):
            self.loop.soon(self.exchange.abort)

    with CannedServer(HANG) as server:
        owner = Owner(await opened(transport, server))
        del owner
        gc.collect()
        await all_gone(server)


@pytest.mark.anyio
async def test_a_cancelled_read(transport):
    with CannedServer(HANG) as server:
        exchange = await opened(transport, server)
        with anyio.move_on_after(0.02) as scope:
            await exchange.read()
        assert scope.cancelled_caught
        seen_without_the_loop(lambda: server.interrupted == 1)
        await all_gone(server)
        with pytest.raises(TransportError, match="stopped"):
            await exchange.read()


@pytest.mark.anyio
async def test_a_cancelled_open_that_waits_for_the_head(transport):
    with CannedServer(["hang"]) as server:
        with anyio.move_on_after(0.05) as scope:
            await transport.open("POST", server.url, {}, b"{}", connect_timeout=5)
        assert scope.cancelled_caught
        await all_gone(server)


@pytest.mark.anyio
async def test_a_cancelled_open_that_still_uploads(transport):
    stalled = threading.Event()
    with CannedServer() as server:
        exchange = await transport.open("GET", server.url, {})
        while await exchange.read():
            pass
        # The server's thread is busy, so nobody reads: the upload fills the socket's buffers and stops there.
        server.loop.call_soon_threadsafe(stalled.wait)
        with anyio.move_on_after(0.1) as scope:
            await transport.open("POST", server.url, {}, b"x" * 50_000_000)
        stalled.set()
        assert scope.cancelled_caught
        await eventually(lambda: server.open_connections == 0)
        assert (server.connections, len(server.requests)) == (1, 1)


@pytest.mark.anyio
async def test_an_open_that_is_cancelled_before_it_begins(transport):
    with CannedServer() as server:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await transport.open("GET", server.url, {})
        await eventually(lambda: server.open_connections == 0)
        exchange = await transport.open("GET", server.url, {})
        assert await exchange.read() == b"{}"
        assert await exchange.read() == b""


@pytest.mark.anyio
async def test_opens_cancelled_at_every_step_leave_nothing(transport):
    """A cancellation in each of the first event-loop turns of a request: name, connect, send, wait, read, end."""
    with CannedServer(stream(b"a", b"b")) as server:
        for turns in range(40):
            async with anyio.create_task_group() as tasks:

                async def one() -> None:
                    exchange = await transport.open("POST", server.url, {}, b"{}", connect_timeout=5)
                    while await exchange.read():
                        pass
                    await exchange.aclose()

                tasks.start_soon(one)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        await transport.aclose()
        await eventually(lambda: server.open_connections == 0)


@pytest.mark.anyio
async def test_a_reader_that_nobody_will_ever_resume(transport):
    """The coroutine is closed, as happens to one that its loop forgot: nothing may be awaited then."""
    with CannedServer(HANG) as server:
        exchange = await transport.open("GET", server.url, {})
        reading = exchange.read()
        exchange._body = _Stuck()
        reading.send(None)
        reading.close()
        await all_gone(server)


class _Stuck:
    """A body that waits for ever."""

    def __aiter__(self):
        return self

    def __await__(self):
        yield None

    def __anext__(self):
        return self

    async def aclose(self) -> None:
        pass


@pytest.mark.anyio
async def test_no_task_is_left(transport, anyio_backend):
    if anyio_backend == "trio":
        import trio

        def count() -> int:
            return trio.lowlevel.current_statistics().tasks_living
    else:

        def count() -> int:
            return len(asyncio.all_tasks())

    with CannedServer(HANG) as server:
        await anyio.lowlevel.checkpoint()
        before = count()
        for _ in range(5):
            exchange = await opened(transport, server)
            exchange.abort()
        await eventually(lambda: count() == before)
        await all_gone(server, 5)


# -- the end of the loop -----------------------------------------------------------------------------------------------


def test_an_exchange_that_is_held_when_the_loop_ends(transport, anyio_backend):
    kept = []

    async def main() -> None:
        kept.append(await opened(transport, server))

    with CannedServer(HANG) as server:
        anyio.run(main, backend=anyio_backend)
        seen_without_the_loop(lambda: server.open_connections == 0)
        assert server.interrupted == 1
        kept[0].abort()
        kept.clear()
        gc.collect()


def test_the_end_of_a_loop_waits_for_every_closer(anyio_backend):
    closed = []

    async def slow(name: str) -> None:
        await anyio.sleep(0.01)  # trio ends its runs in a cancelled scope, where this would not return
        closed.append(name)

    async def main() -> None:
        for name in ("first", "second"):
            running().at_end(lambda name=name: slow(name))

    anyio.run(main, backend=anyio_backend)
    assert closed == ["first", "second"]


def test_an_exchange_that_is_aborted_as_the_last_thing(transport, anyio_backend):
    async def main() -> None:
        (await opened(transport, server)).abort()

    with CannedServer(HANG) as server:
        anyio.run(main, backend=anyio_backend)
        seen_without_the_loop(lambda: server.open_connections == 0)


def test_a_task_that_reads_when_the_loop_ends(transport):
    async def forever() -> None:
        exchange = await opened(transport, server)
        await exchange.read()

    async def main() -> None:
        task = asyncio.create_task(forever())
        await eventually(lambda: server.requests)
        await asyncio.sleep(0.02)
        assert not task.done()

    with CannedServer(HANG) as server:
        asyncio.run(main())
        seen_without_the_loop(lambda: server.open_connections == 0)


def test_a_crash_of_the_main_task(transport, anyio_backend):
    async def main() -> None:
        exchange = await opened(transport, server)
        raise ZeroDivisionError(id(exchange))

    with CannedServer(HANG) as server:
        with pytest.raises(ZeroDivisionError):
            anyio.run(main, backend=anyio_backend)
        seen_without_the_loop(lambda: server.open_connections == 0)


def test_abort_after_a_loop_that_was_closed_without_its_last_rites(transport):
    with CannedServer(HANG) as server, warnings.catch_warnings():
        # asyncio's own: it has no public way to close a transport of a closed loop.
        warnings.filterwarnings("ignore", "unclosed transport", ResourceWarning)
        warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
        loop = asyncio.new_event_loop()
        exchange = loop.run_until_complete(opened(transport, server))
        loop.close()
        exchange.abort()
        seen_without_the_loop(lambda: server.interrupted == 1)
        del exchange, loop
        gc.collect()
