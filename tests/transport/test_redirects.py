"""Redirects are followed; credentials stay at home."""

from __future__ import annotations

import logging

import pytest

from asyncinfer.errors import TransportError
from asyncinfer.transport.address import parse
from asyncinfer.transport.auth import SignedHeaders, sign
from asyncinfer.transport.httpx_transport import HttpxTransport
from asyncinfer.transport.redirects import LIMIT, Hop, follow
from tests.servers.background import eventually
from tests.servers.canned import CannedServer, answer, head, redirect

HEADERS = SignedHeaders(
    {
        "authorization": "Bearer k",
        "x-api-key": "k",
        "api-key": "k",
        "x-goog-api-key": "k",
        "cookie": "a=b",
        "x-mine": "k",
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
    },
    secret=["x-mine"],
)
PUBLIC = {"content-type", "anthropic-version"}


@pytest.mark.anyio
@pytest.mark.parametrize("status", [307, 308])
async def test_a_post_is_repeated_as_it_is(transport, whole, status):
    with CannedServer(redirect("/v2/chat?x=1", status), answer(b"ok")) as server:
        exchange = await transport.open("POST", f"{server.url}/v1/chat", HEADERS, b'{"a": 1}')
        assert await whole(exchange) == b"ok"
        assert server.connections == 1
    second = server.requests[1]
    assert (second.method, second.target, second.body) == ("POST", "/v2/chat?x=1", b'{"a": 1}')
    assert {name: second.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.anyio
async def test_credentials_do_not_travel_to_another_origin(transport, whole, caplog):
    with CannedServer(answer(b"ok")) as there, CannedServer(redirect(f"{there.url}/x")) as here:
        with caplog.at_level(logging.WARNING, "asyncinfer.transport"):
            exchange = await transport.open("POST", f"{here.url}/x", HEADERS, b"{}")
        assert await whole(exchange) == b"ok"
    sent = there.requests[0].headers
    assert set(HEADERS) & set(sent) == PUBLIC
    assert there.requests[0].body == b"{}"
    assert sent["host"] == f"127.0.0.1:{there.port}"
    assert here.url in caplog.text
    assert there.url in caplog.text


@pytest.mark.anyio
async def test_nor_do_they_come_back(transport, whole):
    """Once stripped, stripped: a redirect back home does not restore what the detour must not have seen."""
    with CannedServer() as home, CannedServer() as away:
        home.answers = [redirect(f"{away.url}/x"), answer(b"ok")]
        away.answers = [redirect(f"{home.url}/y")]
        assert await whole(await transport.open("GET", home.url, HEADERS)) == b"ok"
    assert set(HEADERS) & set(home.requests[1].headers) == PUBLIC


@pytest.mark.anyio
async def test_credentials_of_the_url_do_not_travel_either(transport, whole):
    with CannedServer(answer(b"ok")) as there, CannedServer(redirect(there.url)) as here:
        await whole(await transport.open("GET", here.url.replace("//", "//me:secret@"), {}))
    assert "authorization" in here.requests[0].headers
    assert "authorization" not in there.requests[0].headers


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_get_is_followed(transport, whole, status):
    with CannedServer(redirect("/there", status), answer(b"ok")) as server:
        assert await whole(await transport.open("GET", server.url, sign("bearer", {}, "k"))) == b"ok"
    assert server.requests[1].target == "/there"
    assert server.requests[1].headers["authorization"] == "Bearer k"


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302])
async def test_a_redirect_that_would_drop_the_body_says_where_to_go(transport, status):
    with CannedServer(redirect("https://new.example.com/v1/chat?key=k", status)) as server:
        with pytest.raises(TransportError, match=r"https://new\.example\.com/v1/chat$") as caught:
            await transport.open("POST", server.url, {}, b"{}")
        assert not caught.value.retryable
        await eventually(lambda: server.open_connections <= 1)


@pytest.mark.anyio
async def test_see_other_turns_a_post_into_a_get(transport, whole):
    with CannedServer(redirect("/result", 303), answer(b"ok")) as server:
        exchange = await transport.open("POST", server.url, {"content-type": "application/json"}, b"{}")
        assert await whole(exchange) == b"ok"
    second = server.requests[1]
    assert (second.method, second.body) == ("GET", b"")
    assert "content-type" not in second.headers


@pytest.mark.anyio
async def test_the_number_of_hops_is_bounded(transport):
    with CannedServer(redirect("/again")) as server:
        with pytest.raises(TransportError, match=f"more than {LIMIT} times") as caught:
            await transport.open("GET", server.url, {})
        assert not caught.value.retryable
    assert len(server.requests) == LIMIT + 1


@pytest.mark.anyio
@pytest.mark.parametrize("location", ["ftp://x/y", "http://", "mailto:me@x", "http://[::1"])
async def test_a_redirect_to_nowhere(transport, location):
    with CannedServer(redirect(location)) as server:
        with pytest.raises(TransportError, match="not an http") as caught:
            await transport.open("GET", server.url, {})
        assert not caught.value.retryable


@pytest.mark.anyio
async def test_a_redirect_without_location_is_an_answer(transport, whole):
    with CannedServer(answer(b"choose", 300), answer(b"?", 302), [head(304)]) as server:
        for status in (300, 302, 304):
            exchange = await transport.open("GET", server.url, {})
            assert exchange.status == status
            await whole(exchange)


@pytest.mark.anyio
async def test_a_redirect_body_that_never_ends_is_left_alone(transport, whole):
    first = [head(307, {"location": "/x", "content-length": "10"}), "hang"]
    with CannedServer(first, answer(b"ok")) as server:
        assert await whole(await transport.open("POST", server.url, {}, b"{}")) == b"ok"


@pytest.mark.anyio
async def test_https_never_leads_to_http(authority):
    transport = HttpxTransport(ssl_context=authority.client())
    with CannedServer() as plain, CannedServer(redirect(plain.url), ssl_context=authority.server()) as server:
        with pytest.raises(TransportError, match="not encrypted") as caught:
            await transport.open("POST", server.url, HEADERS, b"{}")
        assert not caught.value.retryable
        assert plain.requests == []


def test_from_http_to_https_is_another_origin():
    hop = Hop("POST", parse("http://api.example.com/v1"), HEADERS, b"{}")
    there = follow(hop, 308, "https://api.example.com/v1")
    assert there.address.origin == "https://api.example.com"
    assert set(there.headers) == PUBLIC
    assert not there.trusted


def test_a_same_origin_redirect_keeps_what_is_marked():
    hop = Hop("GET", parse("http://h/a"), HEADERS, b"")
    again = follow(follow(hop, 302, "/b"), 302, "b?c#d")
    assert again.trusted
    assert again.headers == HEADERS
    assert str(again.address.url) == "http://h/b?c"
    away = follow(again, 302, "//elsewhere/")
    assert set(away.headers) == PUBLIC


@pytest.mark.anyio
async def test_a_redirect_may_be_left_alone(transport, whole):
    with CannedServer(redirect("http://elsewhere.invalid/signed?key=1", 302)) as server:
        exchange = await transport.open("POST", f"{server.url}/files", HEADERS, b"{}", follow=False)
        assert (exchange.status, exchange.headers["location"]) == (302, "http://elsewhere.invalid/signed?key=1")
        assert await whole(exchange) == b""
        assert len(server.requests) == 1


@pytest.mark.anyio
async def test_no_secrets_to_an_untrusted_place(transport, whole):
    with CannedServer(redirect("/x"), answer(b"ok")) as server:
        exchange = await transport.open("PUT", f"{server.url}/signed?s=1", HEADERS, b"{}", trusted=False)
        assert await whole(exchange) == b"ok"
    for request in server.requests:
        assert set(HEADERS) & set(request.headers) == PUBLIC
