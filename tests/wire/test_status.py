"""Errors of all providers: which class, which verdict, how long to wait, and no key in any message."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RetryKind,
    ServerError,
)
from asyncinfer.wire.moments import go_duration, http_date, number, reset_seconds, retry_after
from asyncinfer.wire.status import error_from_object, error_from_response, redact, request_id

K = RetryKind


def verdict(status, body=b"", headers=None, **more):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_from_response(status, headers or {}, content, **more)


def openai(code=None, kind="invalid_request_error", message="no", **more):
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def routed(raw):
    """OpenRouter's way to hand on what the provider behind it said."""
    return {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": raw}}}


@pytest.mark.parametrize(
    ("status", "body", "cls", "kind"),
    [
        (400, openai(), BadRequestError, K.NEVER),
        (400, openai("context_length_exceeded"), ContextLengthError, K.NEVER),
        (
            400,
            {"error": {"code": 400, "message": "x", "type": "exceed_context_size_error"}},
            ContextLengthError,
            K.NEVER,
        ),
        (400, openai(400, "BadRequestError", param="input_tokens"), ContextLengthError, K.NEVER),
        (400, openai(400, "BadRequestError", param="input_text"), ContextLengthError, K.NEVER),
        (400, openai(400, "BadRequestError", param="input"), BadRequestError, K.NEVER),
        (413, {"error": {"code": "tokens_limit_reached", "message": "x", "details": "x"}}, ContextLengthError, K.NEVER),
        (413, {"type": "error", "error": {"type": "request_too_large", "message": "32 MB"}}, BadRequestError, K.NEVER),
        (400, routed('{"error":{"code":"context_length_exceeded","message":"x"}}'), ContextLengthError, K.NEVER),
        (400, routed({"error": {"code": 400, "message": "x", "param": "input_tokens"}}), ContextLengthError, K.NEVER),
        (400, routed('{"error":{"type":"exceed_context_size_error"}}'), ContextLengthError, K.NEVER),
        (400, routed('{"error":{"code":"invalid_api_key"}}'), BadRequestError, K.NEVER),
        (429, routed('{"error":{"code":"insufficient_quota"}}'), RateLimitError, K.THROTTLED),
        (400, routed('{"error":'), BadRequestError, K.NEVER),
        (400, routed("[" * 100_000), BadRequestError, K.NEVER),
        (500, openai(param="input_tokens"), ServerError, K.TRANSIENT),
        (413, openai("context_length_exceeded"), ContextLengthError, K.NEVER),
        (400, openai(message="We could not parse the JSON body of your request."), BadRequestError, K.TRANSIENT),
        (401, openai("invalid_api_key"), AuthenticationError, K.NEVER),
        (401, {"error": "Unauthorized"}, AuthenticationError, K.NEVER),
        (402, {"error": {"message": "Insufficient Balance"}}, QuotaExceededError, K.NEVER),
        (403, openai("unsupported_country_region_territory"), PermissionDeniedError, K.NEVER),
        (403, openai("insufficient_quota"), QuotaExceededError, K.NEVER),
        (404, openai("model_not_found"), NotFoundError, K.NEVER),
        (405, b"", BadRequestError, K.NEVER),
        (408, b"", ServerError, K.TRANSIENT),
        (409, b"", ServerError, K.TRANSIENT),
        (413, b"", BadRequestError, K.NEVER),
        (422, {"detail": [{"loc": ["body", "model"], "msg": "field required"}]}, BadRequestError, K.NEVER),
        (424, b"", ServerError, K.TRANSIENT),
        (425, b"", ServerError, K.TRANSIENT),
        (429, openai("rate_limit_exceeded", "tokens"), RateLimitError, K.THROTTLED),
        (429, b"", RateLimitError, K.THROTTLED),
        (429, openai("slow_down"), RateLimitError, K.THROTTLED),
        (429, openai("insufficient_quota", "insufficient_quota"), QuotaExceededError, K.NEVER),
        (429, openai("credit_balance_exhausted"), QuotaExceededError, K.NEVER),
        (429, openai("project_spend_limit_exceeded"), QuotaExceededError, K.NEVER),
        (429, openai("monthly_usage_limit_exceeded"), QuotaExceededError, K.NEVER),
        (451, b"", BadRequestError, K.NEVER),
        (498, b"", OverloadedError, K.OVERLOADED),
        (499, b"", BadRequestError, K.NEVER),
        (500, openai(None, "server_error"), ServerError, K.TRANSIENT),
        (500, openai("engine_overloaded"), OverloadedError, K.OVERLOADED),
        (501, b"", ServerError, K.NEVER),
        (502, b"<html><title>502 Bad Gateway</title></html>", ServerError, K.TRANSIENT),
        (503, b"", ServerError, K.OVERLOADED),
        (503, openai("slow_down"), OverloadedError, K.THROTTLED),
        (503, {"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}, OverloadedError, K.OVERLOADED),
        (504, b"", ServerError, K.TRANSIENT),
        (520, b"", ServerError, K.TRANSIENT),
        (524, b"", ServerError, K.TRANSIENT),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, OverloadedError, K.OVERLOADED),
    ],
)
def test_class_and_verdict(status, body, cls, kind):
    error = verdict(status, body)
    assert (type(error), error.retry, error.status) == (cls, kind, status)
    assert error.message


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (openai("c", message="m"), "m", "c"),
        ({"error": "m"}, "m", "m"),
        ({"error": "model not loaded"}, "model not loaded", None),
        ({"object": "error", "message": "m", "type": "t", "code": 400}, "m", "t"),
        ({"message": "m", "type": "t", "code": "c", "raw_status_code": 400}, "m", "c"),
        ({"detail": "m"}, "m", None),
        ({"detail": [{"loc": ["body", "n"], "msg": "m"}, "x"]}, "body.n: m; x", None),
        ([{"error": {"message": "m", "status": "INVALID_ARGUMENT", "code": 400}}], "m", "INVALID_ARGUMENT"),
        ({"code": 400, "error": "m n"}, "m n", None),
        ({"type": "error", "error": {"type": "t", "message": "m"}}, "m", "t"),
        ({"error": {"message": "m", "code": 400, "metadata": {"raw": "deeper"}}}, "m: deeper", None),
        (b"plain words", "plain words", None),
        (b'"quoted words"', "quoted words", None),
        (
            b"<html><head><TITLE>\n Gateway\n</TITLE>",
            "A web page instead of an answer, perhaps from a proxy: Gateway.",
            None,
        ),
        (b'data: {"error":{"message":"m","code":"c"}}\n\ndata: [DONE]', "m", "c"),
        (b"", "The provider answered with HTTP status 400 and no explanation.", None),
        (b"{}", "The provider answered with HTTP status 400 and no explanation.", None),
        (b'{"broken', '{"broken', None),
    ],
)
def test_messages_of_every_shape(body, message, code):
    error = verdict(400, body)
    assert (error.message, error.code) == (message, code)


def test_googles_details():
    def gemini(*details):
        return [{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": list(details)}}]

    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38s"}
    minute = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerMinute"}]}
    day = {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "RequestsPerDayPerProject"}],
    }
    error = verdict(429, gemini(retry, minute))
    assert (type(error), error.retry_after, error.code) == (RateLimitError, 38.0, "RESOURCE_EXHAUSTED")
    assert type(verdict(429, gemini(retry, day))) is QuotaExceededError
    split = {"@type": "x/RetryInfo", "retryDelay": {"seconds": "2", "nanos": 500000000}}
    assert verdict(429, gemini(split, "odd", {"@type": "x/QuotaFailure", "violations": 3})).retry_after == 2.5


def test_the_provider_may_overrule():
    assert verdict(500, headers={"x-should-retry": "false"}).retry is K.NEVER
    assert verdict(400, headers={"x-should-retry": "true"}).retry is K.TRANSIENT
    assert verdict(429, headers={"x-should-retry": "true"}).retry is K.THROTTLED


def test_the_request_id_from_any_header():
    assert verdict(500, headers={"x-request-id": "a", "cf-ray": "b"}).request_id == "a"
    for name in ("request-id", "x-amzn-requestid", "apim-request-id", "x-generation-id", "cf-ray"):
        assert request_id({name: "a"}) == "a"
    assert request_id({"x-request-id": ""}) is None


KEYS = [
    "sk-abcdefghijklmnop",
    "sk-proj-abc_DEF-123456789",
    "sk-ant-api03-abcdefgh",
    "gsk_abcdefghijklmnop",
    "nvapi-abcdefgh123",
    "hf_abcdefghijklmnop",
    "xai-abcdefghijkl",
    "AIzaSyA1234567890abcdef",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
]


@pytest.mark.parametrize("key", KEYS)
def test_no_key_in_a_message(key):
    for body in (
        openai(message=f"Incorrect API key provided: {key}. See"),
        {"error": f"bad {key}"},
        f"<p>{key}".encode(),
    ):
        error = verdict(401, body)
        assert key not in str(error)
        assert key[4:10] not in error.message
    assert "abc123def456" not in redact("header Authorization: Bearer abc123def456")
    assert redact("the risk-averse desk-top asks") == "the risk-averse desk-top asks"


def test_a_long_message_is_cut_and_errors_pickle():
    error = verdict(500, b"x" * 100_000, {"x-request-id": "r", "retry-after": "3"})
    assert len(error.message) == 2000
    again = pickle.loads(pickle.dumps(error))
    assert (again.status, again.request_id, again.retry_after, again.retry) == (500, "r", 3.0, K.TRANSIENT)


@given(
    st.integers(400, 599),
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "error",
                        "message",
                        "code",
                        "type",
                        "detail",
                        "details",
                        "metadata",
                        "raw",
                        "status",
                        "errors",
                        "loc",
                        "param",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)
@settings(max_examples=300, deadline=None)
def test_any_body_gives_a_typed_error(status, body):
    error = verdict(status, body)
    assert isinstance(error, APIError)
    assert error.message
    str(error)


def test_errors_inside_a_stream_without_a_status():
    def kind(value, **more):
        error = error_from_object(value, **more)
        return type(error), error.retry

    assert kind({"error": {"message": "x", "type": "rate_limit_error"}}) == (RateLimitError, K.THROTTLED)
    assert kind({"error": {"message": "x", "type": "overloaded_error"}}) == (OverloadedError, K.OVERLOADED)
    assert kind({"error": {"message": "x", "code": "context_length_exceeded"}}) == (ContextLengthError, K.NEVER)
    assert kind({"error": {"message": "x", "param": "input_tokens"}}) == (ContextLengthError, K.NEVER)
    assert kind({"error": {"message": "x", "type": "invalid_request_error"}}) == (BadRequestError, K.NEVER)
    assert kind({"error": {"message": "x", "code": 404}}) == (NotFoundError, K.NEVER)
    assert kind({"error": {"message": "x"}}) == (ServerError, K.TRANSIENT)
    assert kind({"error": {}}, status=503) == (ServerError, K.OVERLOADED)
    assert kind({"type": "insufficient_quota", "message": "x"}) == (QuotaExceededError, K.NEVER)
    assert kind("words") == (ServerError, K.TRANSIENT)
    assert error_from_object({"error": {"message": "x", "code": 502}}).status == 502
    assert error_from_object({"error": {"message": "x"}}).status is None


# -- how long to wait --------------------------------------------------------------------------------------------------

NOW = 1_760_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "junk", "retry-after": "9"}, 9.0),
        ({"retry-after": "Thu, 09 Oct 2025 08:53:50 GMT"}, 30.0),
        ({"retry-after": "Thu, 09 Oct 2025 08:53:00 GMT"}, 0.0),
        ({"retry-after": "12s"}, 12.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "-1"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers, NOW) == seconds


def test_a_date_is_measured_against_the_servers_own_clock():
    headers = {"retry-after": "Thu, 09 Oct 2025 08:53:50 GMT", "date": "Thu, 09 Oct 2025 08:53:40 GMT"}
    assert retry_after(headers) == 10.0
    assert retry_after({"retry-after": headers["retry-after"]}) is None
    assert http_date("Thursday, 09-Oct-25 08:53:40 GMT") == http_date("Thu Oct  9 08:53:40 2025") == NOW + 20


@given(st.text(max_size=30))
@settings(max_examples=300, deadline=None)
def test_no_header_raises(text):
    for value in (retry_after({"retry-after": text, "retry-after-ms": text}, NOW), reset_seconds(text, NOW)):
        assert value is None or 0 <= value < float("inf")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h1m1s", 3661.0),
        ("2m59.56s", 179.56),
        ("1.5s", 1.5),
        ("1d", 86400.0),
        ("500us", 0.0005),
        ("7µs", 7e-6),
        ("38s", 38.0),
        ("", None),
        ("5", None),
        ("5x", None),
        ("s", None),
    ],
)
def test_go_durations(text, seconds):
    assert go_duration(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        (str(int(NOW + 30)), 30.0),
        (str(int((NOW + 30) * 1000)), 30.0),
        ("2025-10-09T08:53:50Z", 30.0),
        ("2025-10-09T10:53:50+02:00", 30.0),
        ("2025-10-09T08:53:00Z", 0.0),
        ("1s", 1.0),
        ("-1", None),
        ("never", None),
        ("2025-99-99T00:00:00Z", None),
    ],
)
def test_resets(text, seconds):
    assert reset_seconds(text, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_numbers():
    assert number("100, 100;w=60") == 100
    assert number("1_000") is None
    assert number(True) is None
    assert number("1e400") is None
    assert number(10**400) is None
