"""Rate-limit headers as each provider writes them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.limits import Budget
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.rates import rate_headers

NOW = 1_760_000_000.0

CASES = {
    "none": ({"content-type": "application/json", "x-limit": "3"}, {}),
    "openai": (
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "6m0s",
        },
        {"requests": Budget(60, 59, 1.0), "tokens": Budget(150000, 149984, 360.0)},
    ),
    "azure without limits": (
        {"x-ratelimit-remaining-requests": "9", "x-ratelimit-remaining-tokens": "900"},
        {"requests": Budget(None, 9), "tokens": Budget(None, 900)},
    ),
    "azure's garbage": (
        {
            "x-ratelimit-limit-requests": "-1",
            "x-ratelimit-remaining-requests": "-1",
            "x-ratelimit-limit-tokens": "0",
            "x-ratelimit-remaining-tokens": "0",
        },
        {},
    ),
    "a bad remaining beside a good limit": (
        {"x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "-7", "x-ratelimit-reset-tokens": "x"},
        {"tokens": Budget(1000, None, None)},
    ),
    "anthropic": (
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2025-10-09T08:53:50Z",
            "anthropic-ratelimit-input-tokens-limit": "40000",
            "anthropic-ratelimit-input-tokens-remaining": "39000",
            "anthropic-ratelimit-input-tokens-reset": "2025-10-09T08:53:21.5Z",
            "anthropic-ratelimit-output-tokens-limit": "8000",
            "anthropic-ratelimit-output-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-limit": "48000",
            "anthropic-ratelimit-tokens-remaining": "39000",
            "anthropic-priority-input-tokens-limit": "10000",
        },
        {
            "requests": Budget(50, 49, 30.0),
            "input_tokens": Budget(40000, 39000, 1.5),
            "output_tokens": Budget(8000, 0),
            "tokens": Budget(48000, 39000),
        },
    ),
    "cerebras": (
        {
            "x-ratelimit-limit-requests-day": "14400",
            "x-ratelimit-remaining-requests-day": "14399",
            "x-ratelimit-reset-requests-day": "33011.382867",
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-tokens-minute": "59000",
            "x-ratelimit-reset-tokens-minute": "11.38",
        },
        {"requests": Budget(14400, 14399, 33011.382867, 86400.0), "tokens": Budget(60000, 59000, 11.38)},
    ),
    "sambanova, the minute is tighter": (
        {
            "x-ratelimit-limit-requests": "20",
            "x-ratelimit-remaining-requests": "19",
            "x-ratelimit-reset-requests": str(int(NOW) + 30),
            "x-ratelimit-limit-requests-day": "400",
            "x-ratelimit-remaining-requests-day": "399",
        },
        {"requests": Budget(20, 19, 30.0)},
    ),
    "sambanova, the day is spent": (
        {
            "x-ratelimit-limit-requests": "20",
            "x-ratelimit-remaining-requests": "20",
            "x-ratelimit-limit-requests-day": "400",
            "x-ratelimit-remaining-requests-day": "0",
        },
        {"requests": Budget(400, 0, None, 86400.0)},
    ),
    "fireworks": (
        {"x-ratelimit-limit-tokens-prompt": "60000", "x-ratelimit-limit-tokens-generated": "6000"},
        {"input_tokens": Budget(60000), "output_tokens": Budget(6000)},
    ),
    "together": (
        {
            "x-ratelimit-limit": "600",
            "x-ratelimit-remaining": "599",
            "x-ratelimit-reset": "1",
            "x-tokenlimit-limit": "180000",
            "x-tokenlimit-remaining": "179000",
        },
        {"requests": Budget(600, 599, 1.0), "tokens": Budget(180000, 179000)},
    ),
    "openrouter's epoch in milliseconds": (
        {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW + 5) * 1000)},
        {"requests": Budget(20, 0, 5.0)},
    ),
    "mistral's older names": (
        {"ratelimitbysize-limit": "500000", "ratelimitbysize-remaining": "499000", "ratelimitbysize-reset": "12"},
        {"tokens": Budget(500000, 499000, 12.0)},
    ),
    "the ietf draft": (
        {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "50", "ratelimit-reset": "30"},
        {"requests": Budget(100, 50, 30.0)},
    ),
    "windows in names": (
        {
            "x-ratelimit-limit-tokens-month": "9",
            "x-ratelimit-limit-requests-hour": "8",
            "x-ratelimit-limit-cows-day": "7",
        },
        {"tokens": Budget(9, window=2592000.0), "requests": Budget(8, window=3600.0)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_headers(name):
    headers, budgets = CASES[name]
    got = rate_headers(headers, NOW)
    assert got.keys() == budgets.keys()
    for resource, budget in budgets.items():
        for field in ("limit", "remaining", "reset", "window"):
            wanted = getattr(budget, field)
            assert getattr(got[resource], field) == (wanted if wanted is None else pytest.approx(wanted)), (
                resource,
                field,
            )


def test_groqs_requests_are_per_day_and_only_its_row_knows():
    headers = {"x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "6000"}
    groq = codec("openai_chat").rate_headers(headers, NOW, PROVIDERS["groq"].dialect)
    assert (groq["requests"].window, groq["tokens"].window) == (86400.0, 60.0)
    assert codec("openai_chat").rate_headers(headers, NOW)["requests"].window == 60.0


@given(st.dictionaries(st.sampled_from(sorted({name for headers, _ in CASES.values() for name in headers})), st.text()))
@settings(max_examples=200, deadline=None)
def test_no_header_raises_or_is_negative(headers):
    for budget in rate_headers(headers, NOW).values():
        assert budget.limit is None or budget.limit > 0
        assert budget.remaining is None or budget.remaining >= 0
        assert budget.reset is None or budget.reset >= 0
