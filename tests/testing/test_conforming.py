"""Engines that are no local ones, through the whole suite: over HTTP, several as one, and the example of one's own."""

from __future__ import annotations

import pytest

from asyncinfer import (
    AuthenticationError,
    Engine,
    FallbackEngine,
    ModelParams,
    RemoteInferenceEngine,
    RemoteParams,
)
from asyncinfer.testing import CHECKS, check_engine
from examples.own_engine import Reverse

from .honest import EXPECT, Honest
from .scripted_provider import model_server

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.mark.parametrize("streaming", [True, False], ids=["streams", "documents"])
async def test_a_remote_engine(streaming):
    """Also where the provider is asked for whole documents: then there is nothing to see before the last token."""
    with model_server() as provider:

        def make() -> Engine:
            remote = RemoteParams(api_url=provider.url, api_key="sk-test", use_streaming=streaming)
            return RemoteInferenceEngine(ModelParams(model_name="fake-1"), remote_params=remote)

        skip = {"logprobs_fit_the_answer": "the fake provider has none"}
        if not streaming:
            skip["the_first_token_is_seen_before_the_last_is_made"] = "a document comes in one piece"
        report = await check_engine(
            make,
            expect=EXPECT,
            running=lambda: provider.stats.in_flight,
            made=lambda: provider.stats.tokens,
            count_tokens=lambda text: len(text.split()),
            count_prompt=lambda conversation: sum(len(message.text.split()) for message in conversation.messages),
            skip=skip,
        )
    left_out = {result.check for result in report.of("not applicable")} - set(skip)
    shapes = {name for name in left_out if name.startswith(("a_choice", "a_regular", "a_broken"))}
    leaving = {name for name in left_out if name.startswith("leaving")}
    assert bool(leaving) is not streaming
    assert left_out - shapes - leaving <= {"unsupported_parameters_are_refused_by_name"}
    assert provider.stats.in_flight == 0


class Down(Honest):
    """An engine that lets nobody in."""

    name = "down"

    def check(self, request):
        raise AuthenticationError("the key is wrong")


@pytest.mark.parametrize(
    ("first", "hedge_after"),
    [(Honest, None), (Down, None), (Honest, 0.0005)],
    ids=["the first answers", "the first is down", "hedged"],
)
async def test_several_engines_as_one(first, hedge_after):
    def make() -> Engine:
        return FallbackEngine([first(), Honest()], hedge_after=hedge_after)

    report = await check_engine(make, expect=EXPECT, supported=frozenset(Honest.get_supported_params()))
    assert len(report.of("passed")) == len(CHECKS)


async def test_the_engine_of_the_example():
    words = " ".join(map(str, range(600)))
    report = await check_engine(
        Reverse,
        prompts=("one two three", "four five", "six"),
        answers={"six": "six "},
        long_prompt=words,
        count_tokens=lambda text: len(text.split()),
    )
    assert len(report.of("passed")) >= 15
    assert all(result.note for result in report.of("not applicable"))
