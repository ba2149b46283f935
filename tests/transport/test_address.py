"""URLs are parsed or refused in our own words; which proxy leads where; whom TLS trusts."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.errors import ConfigError, TransportError
from asyncinfer.transport.address import is_loopback, parse
from asyncinfer.transport.proxies import proxy_for
from asyncinfer.transport.tls import trusted


def test_parts():
    address = parse("HTTPS://User:pa%3Ass@API.Example.com:8443/v1/x?key=secret#frag")
    assert (address.scheme, address.host, address.port) == ("https", "api.example.com", 8443)
    assert address.origin == "https://api.example.com:8443"
    assert address.shown == "https://api.example.com:8443/v1/x"
    assert str(address.url) == "https://api.example.com:8443/v1/x?key=secret"
    assert address.basic == "Basic VXNlcjpwYTpzcw=="


def test_default_ports_are_one_origin():
    assert parse("http://h:80/x").origin == parse("http://h/y").origin
    assert parse("http://h").origin != parse("https://h").origin
    assert parse("http://[::1]:8000/").origin == "http://[::1]:8000"


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_config_error(text):
    for url in (text, f"http://{text}", f"http://host/{text}", f"http://host:{text}"):
        with suppress(ConfigError):
            address = parse(url)
            assert address.scheme in {"http", "https"}
            assert address.host


@given(st.text(max_size=40))
def test_any_location_is_an_address_or_a_transport_error(location):
    with suppress(TransportError):
        there = parse("http://host/a/b").join(location)
        assert there.scheme in {"http", "https"}
        assert there.host
        assert there.basic is None


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.com", "10.0.0.1", "8.8.8.8", "example.com"])
def test_not_loopback(host):
    assert not is_loopback(host)


# -- proxies -----------------------------------------------------------------------------------------------------------


def env(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_no_proxy_variables_no_proxy():
    assert proxy_for(parse("https://api.example.com")) is None


def test_a_proxy_for_each_scheme(monkeypatch):
    env(monkeypatch, HTTP_PROXY="http://p1:1", HTTPS_PROXY="p2:2")
    assert proxy_for(parse("http://a.example.com")) == "http://p1:1"
    assert proxy_for(parse("https://a.example.com")) == "http://p2:2"


def test_all_proxy_comes_last(monkeypatch):
    env(monkeypatch, ALL_PROXY="socks5://p:1", HTTPS_PROXY="http://q:2")
    assert proxy_for(parse("http://a.example.com")) == "socks5://p:1"
    assert proxy_for(parse("https://a.example.com")) == "http://q:2"


@pytest.mark.parametrize("url", ["http://localhost:8000", "http://127.0.0.1", "http://[::1]:1"])
def test_loopback_is_reached_directly(monkeypatch, url):
    env(monkeypatch, HTTP_PROXY="http://p:1", ALL_PROXY="http://p:1")
    assert proxy_for(parse(url)) is None


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("api.example.com", True),
        ("example.com", True),
        (".example.com", True),
        ("other.com, api.example.com", True),
        ("api.example.com:443", True),
        ("api.example.com:8443", False),
        ("*", True),
        ("ample.com", False),
        ("", False),
    ],
)
def test_no_proxy(monkeypatch, no_proxy, direct):
    env(monkeypatch, HTTPS_PROXY="http://p:1", NO_PROXY=no_proxy)
    assert (proxy_for(parse("https://api.example.com")) is None) is direct


@pytest.mark.parametrize(("host", "direct"), [("10.1.2.3", True), ("11.1.2.3", False), ("[fd00::5]", True)])
def test_no_proxy_for_networks(monkeypatch, host, direct):
    env(monkeypatch, HTTP_PROXY="http://p:1", NO_PROXY="10.0.0.0/8,fd00::/8,x")
    assert (proxy_for(parse(f"http://{host}")) is None) is direct


def test_a_proxy_of_an_unknown_kind_is_named_but_not_shown(monkeypatch):
    env(monkeypatch, HTTPS_PROXY="ftp://me:secret@p:1")
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        proxy_for(parse("https://api.example.com"))
    assert "secret" not in str(caught.value)


# -- trust -------------------------------------------------------------------------------------------------------------


def test_the_context_verifies_and_is_made_once():
    context = trusted()
    assert context is trusted()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_certificate_variable_that_leads_nowhere_is_named(monkeypatch, tmp_path, name):
    env(monkeypatch, **{name: str(tmp_path / "absent")})
    with pytest.raises(ConfigError, match=name):
        trusted()


def test_a_certificate_file_without_certificates_trusts_nobody(monkeypatch, tmp_path):
    path = tmp_path / "empty.pem"
    path.write_text("")
    env(monkeypatch, SSL_CERT_FILE=str(path), SSL_CERT_DIR=str(tmp_path))
    assert trusted().cert_store_stats()["x509_ca"] == 0
