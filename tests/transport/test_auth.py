"""Keys become headers, bad keys are refused without being shown, and headers know what is secret."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from asyncinfer.errors import ConfigError
from asyncinfer.transport.auth import SCHEMES, SECRET_HEADERS, SignedHeaders, check_headers, is_secret, sign


@pytest.mark.parametrize(
    ("scheme", "name", "value"),
    [
        ("bearer", "authorization", "Bearer sk-1"),
        ("x-api-key", "x-api-key", "sk-1"),
        ("api-key", "api-key", "sk-1"),
        ("x-goog-api-key", "x-goog-api-key", "sk-1"),
    ],
)
@pytest.mark.parametrize("key", ["sk-1", SecretStr("sk-1")])
def test_each_scheme(scheme, name, value, key):
    headers = {"content-type": "application/json"}
    signed = sign(scheme, headers, key)
    assert signed == {"content-type": "application/json", name: value}
    assert headers == {"content-type": "application/json"}
    assert is_secret(name, signed)
    assert not is_secret("content-type", signed)


def test_no_key_and_no_scheme():
    assert sign("bearer", {"a": "b"}, None) == {"a": "b"}
    assert sign("none", {"a": "b"}, "key") == {"a": "b"}


def test_the_callers_own_header_stays():
    assert sign("bearer", {"Authorization": "Bearer mine"}, "theirs") == {"Authorization": "Bearer mine"}


def test_an_unknown_scheme_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"'barer'.*none, bearer, x-api-key, api-key, x-goog-api-key"):
        sign("barer", {}, "key")


BAD = [
    "",
    " key",
    "key\n",
    "key\r\nx-evil: 1",
    "ke\x00y",
    "ke\ny",
    "schlüssel",
    "\N{GREEK SMALL LETTER ALPHA}bc",
    "k\x7fy",
]


@pytest.mark.parametrize("key", BAD)
@pytest.mark.parametrize("wrap", [str, SecretStr])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_bad_key_is_refused_and_not_shown(scheme, wrap, key):
    with pytest.raises(ConfigError) as caught:
        sign(scheme, {}, wrap(key))
    assert caught.value.path == "api_key"
    assert "z9" not in str(caught.value)


@given(st.text(), st.sampled_from(sorted(SCHEMES)))
def test_whatever_passes_can_be_sent(key, scheme):
    with suppress(ConfigError):
        signed = sign(scheme, {}, key)
        check_headers(signed)
        assert next(iter(signed.values())).endswith(key)


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3))
def test_checked_headers_are_what_the_library_takes(headers):
    import h11
    import httpx

    try:
        check_headers(headers)
    except ConfigError:
        return
    raw = httpx.Headers(headers).raw
    # h11 strips nothing and refuses much: the strictest judge there is. Blanks around a value are its own matter.
    if all(value == value.strip() for value in headers.values()):
        names = {name.lower() for name in headers} - {"transfer-encoding", "content-length", "host"}
        h11.Request(
            method="GET",
            target="/",
            headers=[("host", "x"), *((k, v) for k, v in raw if k.decode().lower() in names)],
        )


def test_secret_headers():
    headers = SignedHeaders(
        {
            "Authorization": "Bearer x",
            "COOKIE": "a=b",
            "X-Mine": "1",
            "Helicone-Auth": "Bearer y",
            "x-custom-token": "t",
            "x-odd": "Bearer z",
            "anthropic-version": "2023-06-01",
            "accept": "*/*",
        },
        secret=["X-Mine"],
    )
    secret = {name for name in headers if is_secret(name, headers)}
    assert secret == {"Authorization", "COOKIE", "X-Mine", "Helicone-Auth", "x-custom-token", "x-odd"}
    assert {header for header, _ in SCHEMES.values()} <= SECRET_HEADERS
