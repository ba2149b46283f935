"""The conformance suite itself: an honest engine passes every check, and each check finds the engines that break it."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest

from asyncinfer import EngineError
from asyncinfer.testing import CHECKS, Check, ConformanceError, Expectations, Report, Stalls, check_engine

from .broken import FLAWS, BlocksTheLoop, CallsACutAnEnd, CountsTooMuch, HangsWhenBusy
from .honest import EXPECT, Honest

pytestmark = pytest.mark.anyio

NAMED = {check.name: check for check in CHECKS}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


def probed(engine, expect=EXPECT, **changes):
    """The expectations, with the probes of this engine where they are asked for."""
    for name in ("running", "made"):
        if changes.get(name) == "probe":
            changes[name] = lambda name=name: getattr(engine, name)
    return replace(expect, **changes)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_an_honest_engine_passes_every_check(check):
    engine = Honest()
    result = await check(engine, probed(engine, running="probe", made="probe"))
    assert (result.check, result.outcome) == (check.name, "passed"), result.note
    await engine.aclose()


@pytest.mark.parametrize(("name", "make", "changes"), FLAWS, ids=[flaw.__name__ for _, flaw, _ in FLAWS])
async def test_each_flaw_is_found_by_its_check(name, make, changes):
    engine = make()
    with pytest.raises(ConformanceError) as caught:
        await NAMED[name](engine, probed(engine, **changes))
    assert caught.value.check == name
    assert name in str(caught.value)
    assert len(caught.value.seen) > 15
    await engine.aclose()


def test_every_check_is_proved_by_a_flaw():
    assert {name for name, _, _ in FLAWS} == set(NAMED)


async def test_the_report_of_an_honest_engine():
    report = await check_engine(Honest, expect=EXPECT)
    assert report.ok
    assert [result.check for result in report.results] == [check.name for check in CHECKS]
    assert not report.of("failed") and not report.of("not applicable")
    assert report.stalls.samples > 0 and report.stalls.p50 <= report.stalls.p99 <= report.stalls.max
    assert report.tokens_per_second > 0
    text = str(report)
    assert text.startswith(f"honest: {len(CHECKS)} passed, 0 failed, 0 not applicable")
    assert all(check.name in text for check in CHECKS)
    assert "tokens/s" in text and "event loop late by" in text


async def test_all_failures_are_named_and_each_gets_a_fresh_engine():
    made = []

    class Worse(CallsACutAnEnd, CountsTooMuch):
        def __init__(self):
            super().__init__()
            made.append(self)

    with pytest.raises(ConformanceError) as caught:
        await check_engine(Worse, expect=EXPECT)
    report = caught.value.report
    failed = {result.check for result in report.of("failed")}
    assert {"max_tokens_cut_and_say_so", "usage_is_counted"} <= failed
    assert all(name in str(caught.value) for name in failed)
    assert len(made) == 1 + len(failed)
    assert all(not engine.live and not engine.running for engine in made)
    assert len(report.results) == len(CHECKS)


async def test_what_does_not_apply_is_listed_with_its_reason():
    class Plain(Honest):
        @classmethod
        def get_supported_params(cls):
            return set()

    report = await check_engine(
        Plain, prompts=("one", "two"), long_prompt="go on", skip={"known_answers_are_given": "as told"}
    )
    reasons = {result.check: result.note for result in report.of("not applicable")}
    assert report.ok
    assert reasons["stop_strings_cut_exactly"] == "the engine does not claim stop_strings"
    assert reasons["known_answers_are_given"] == "as told"
    assert all(reasons.values())
    assert {"text_is_the_fold_of_events", "leaving_by_break_frees_the_sequence"} <= {
        r.check for r in report.of("passed")
    }


async def test_answers_that_differ_leave_out_what_compares_them():
    class Moody(Honest):
        asked = 0

        def text(self, request, index):
            self.asked += 1
            guided = request.generation.guided_decoding is not None
            return super().text(request, index) + ("" if guided else f" ({self.asked})")

    report = await check_engine(Moody, expect=EXPECT, deterministic=False, answers={}, unicode=None, count_tokens=None)
    assert report.ok
    left_out = {result.check for result in report.of("not applicable")}
    assert {"generate_is_the_fold_of_stream", "stop_strings_cut_exactly", "seeds_repeat_answers"} <= left_out


async def test_a_wedged_engine_fails_in_time_and_says_what_it_was_doing():
    with pytest.raises(ConformanceError, match=r"not done after 0\.5 s, while streaming the answer to"):
        await NAMED["many_streams_at_once_are_each_correct"](HangsWhenBusy(), EXPECT, patience=0.5)


async def test_an_engine_that_cannot_be_opened_says_so_itself():
    class Missing(Honest):
        async def start(self):
            raise EngineError("there is no such model")

    with pytest.raises(EngineError, match="no such model"):
        await check_engine(Missing, expect=EXPECT)


async def test_stalls_are_measured_and_only_judged_on_demand():
    result = await NAMED["the_event_loop_is_not_held_up"](BlocksTheLoop(), EXPECT, long_tokens=10)
    assert result.outcome == "passed" and "p99" in result.note


async def test_only_known_expectations_are_taken():
    with pytest.raises(TypeError, match="promts"):
        await check_engine(Honest, promts=("a",))


def test_every_check_says_what_it_is_about():
    assert len(NAMED) == len(CHECKS)
    for check in CHECKS:
        assert isinstance(check, Check) and str(check) == check.name and len(check.summary) > 20


def test_quantiles_of_stalls():
    stalls = Stalls.of([index / 1000 for index in range(101)])
    assert (stalls.p50, stalls.p99, stalls.max, stalls.samples) == (50.0, 99.0, 100.0, 101)


def test_an_empty_report_prints():
    assert str(Report("nothing")) == "nothing: 0 passed, 0 failed, 0 not applicable"


def test_expectations_are_immutable():
    with pytest.raises(AttributeError):
        Expectations().streams = 3


async def test_what_was_changed_in_the_conversation_is_named():
    class Notes(Honest):
        async def produce(self, request):
            request.conversation.metadata["seen"] = "by me"
            async with aclosing(super().produce(request)) as events:
                async for event in events:
                    yield event

    with pytest.raises(ConformanceError, match=r"metadata was \{\} and is \{'seen': 'by me'\}"):
        await check_engine(Notes, expect=EXPECT, checks=[NAMED["conversations_are_never_changed"]])


async def test_a_question_is_quoted_as_it_was_asked():
    class Breaks(Honest):
        async def produce(self, request):
            raise EngineError("broken")
            yield

    with pytest.raises(ConformanceError) as caught:
        await check_engine(Breaks, expect=EXPECT, checks=[NAMED["conversations_are_never_changed"]])
    assert f"the answer to {EXPECT.prompts[0]!r}" in str(caught.value)
