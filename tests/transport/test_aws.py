"""The table by which aiobotocore's exceptions become ours, and what its clients are made with."""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import anyio
import pytest
from botocore import UNSIGNED
from botocore import exceptions as aws

from asyncinfer.errors import (
    AuthenticationError,
    ConfigError,
    ConnectError,
    ConnectTimeout,
    MissingDependencyError,
    TransportError,
)
from asyncinfer.transport.aws import CONTROL, RUNTIME, Place, Refused, _connect, _rounded, _translate, load

URL = "https://bedrock-runtime.us-east-1.amazonaws.com"
PLACE = Place("us-east-1", connect_timeout=3.0)


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (aws.NoCredentialsError(), ConfigError, "AWS_BEARER_TOKEN_BEDROCK"),
        (aws.PartialCredentialsError(provider="env", cred_var="x"), ConfigError, "AWS_ACCESS_KEY_ID"),
        (aws.ProfileNotFound(profile="lab"), ConfigError, "lab"),
        (aws.CredentialRetrievalError(provider="p", error_msg="no"), AuthenticationError, "could not be obtained"),
        (aws.UnauthorizedSSOTokenError(), AuthenticationError, "could not be obtained"),
        (aws.TokenRetrievalError(provider="sso", error_msg="old"), AuthenticationError, "could not be obtained"),
        (aws.ParamValidationError(report="Unknown parameter"), ConfigError, "Unknown parameter"),
        (aws.ConnectTimeoutError(endpoint_url=URL), ConnectTimeout, "within 3.0 s"),
        (aws.EndpointConnectionError(endpoint_url=URL, error=OSError("refused")), ConnectError, "refused"),
        (aws.SSLError(endpoint_url=URL, error=OSError("bad certificate")), ConnectError, "bad certificate"),
        (aws.ProxyConnectionError(proxy_url="http://p", error=OSError("gone")), ConnectError, "gone"),
        (aws.ReadTimeoutError(endpoint_url=URL), TransportError, "broke"),
        (aws.ConnectionClosedError(endpoint_url=URL), TransportError, "broke"),
        (aws.HTTPClientError(error=OSError("odd")), TransportError, "odd"),
        (aiohttp.ClientPayloadError("cut"), TransportError, "cut"),
        (ConnectionResetError("reset"), TransportError, "reset"),
        (aws.NoRegionError(), ConfigError, "region"),
    ],
)
def test_the_table(raised: Exception, kind: type[Exception], words: str) -> None:
    found = _translate(raised, PLACE)
    assert type(found) is kind
    assert words in str(found)


def test_a_refusal_keeps_what_the_service_said() -> None:
    response: Any = {
        "Error": {"Code": "ModelErrorException", "Message": "no"},
        "ResponseMetadata": {"RequestId": "r", "HTTPStatusCode": 424, "HTTPHeaders": {"retry-after": "2"}},
        "originalStatusCode": 500,
    }
    found = _translate(aws.ClientError(response, "Converse"), PLACE)
    assert isinstance(found, Refused)
    assert (found.code, found.message, found.status, found.original_status) == ("ModelErrorException", "no", 424, 500)
    assert found.headers == {"retry-after": "2", "x-amzn-requestid": "r"}


def test_what_is_not_the_librarys_stays_what_it_is() -> None:
    bug = ZeroDivisionError()
    assert _translate(bug, PLACE) is bug


def test_the_library_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore.session", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'asyncinfer\[bedrock\]'"):
        load()


def test_clients_do_nothing_that_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")

    async def main() -> None:
        for service, place, url in (
            (RUNTIME, PLACE, URL),
            (CONTROL, Place("eu-west-1", bearer="key"), "https://bedrock.eu-west-1.amazonaws.com"),
        ):
            client = await _connect(place, service)
            config = client.meta.config
            assert client.meta.endpoint_url == url
            assert config.retries["mode"] == "standard"
            assert config.retries["total_max_attempts"] == 1
            assert (config.connect_timeout, config.read_timeout) == (place.connect_timeout, None)
            assert (config.signature_version is UNSIGNED) is (place.bearer is not None)
            await client.__aexit__(None, None, None)

    anyio.run(main)


def test_places_never_show_their_secrets() -> None:
    place = Place("us-east-1", bearer="sesame", headers=(("authorization", "sesame"),))
    assert "sesame" not in repr(place)
    assert place != Place("us-east-1", bearer="other")


@pytest.mark.parametrize(("given", "used"), [(None, None), (0.01, 0.1), (0.21, 0.3), (1.0, 1.0), (29.2, 30.0)])
def test_connect_timeouts_share_connections(given: float | None, used: float | None) -> None:
    found = _rounded(given)
    assert found == (None if used is None else pytest.approx(used))
