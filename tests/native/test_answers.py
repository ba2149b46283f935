"""The Transformers engine on the embedded model, through the public face, on asyncio and on trio."""

from __future__ import annotations

import re
import threading

import anyio
import anyio.lowlevel
import pytest

from asyncinfer import (
    FinishReason,
    GuidedDecodingParams,
    Prompt,
)
from asyncinfer.errors import (
    BadRequestError,
    ConfigError,
    ContextLengthError,
    EngineError,
    UnsupportedParameterError,
)
from tests.embedded import (  # noqa: F401 -- the tests among them run here
    COUNT,
    COUNTED,
    LONG,
    params,
    test_a_dropped_engine_stops_its_threads,
    test_a_schema_as_values_or_as_text_shapes_an_answer_that_wants_to_be_another,
    test_a_tool_is_called_and_its_result_is_read,
    test_a_tool_that_must_be_called,
    test_an_early_exit_reports_the_prompt_it_paid_for,
    test_an_engine_that_was_cancelled_while_loading_can_be_used_later,
    test_an_image_is_refused_not_dropped,
    test_close_ends_running_and_waiting_calls_joins_the_threads_and_opens_again,
    test_least_tokens,
    test_logprobs_of_every_token,
    test_one_engine_in_several_loops_of_several_threads,
    test_only_the_best_at_any_temperature,
    test_sampled_answers_are_kept_apart_and_repeat_together,
    test_stop_tokens_end_the_answer_and_are_not_shown,
    test_the_events_of_an_answer,
    test_the_prompt_and_special_tokens_are_shown_where_asked_for,
    test_the_stop_string_that_matched_is_named,
)

pytestmark = [pytest.mark.native, pytest.mark.anyio]


@pytest.fixture
def how():
    """One way to find calls in the text: the engine's own."""
    return {}


async def test_rows_of_a_batch_end_each_in_its_own_way(engine):
    """One long row must not make the others look cut."""
    short = engine.generate("What is 3 + 4?", generation=params(max_new_tokens=100))
    results = []

    async def run(call):
        results.append(await call)

    async with anyio.create_task_group() as group:
        group.start_soon(run, engine.generate(COUNT, generation=params(max_new_tokens=5)))
        group.start_soon(run, short)
    found = {completion.text: (completion.finish_reason, completion.usage.output_tokens) for completion in results}
    assert found == {"1 2 3": (FinishReason.LENGTH, 5), "3 + 4 = 7.": (FinishReason.STOP, 9)}


async def test_use_sampling_decides_what_a_temperature_means(engine):
    never = params(use_sampling=False, temperature=5.0)
    assert (await engine.generate(COUNT, generation=never)).text == COUNTED
    only = params(use_sampling=True, max_new_tokens=40, logit_bias={2: -100})
    texts = {(await engine.generate("Repeat after me: x", generation=only)).text for _ in range(3)}
    assert len(texts) > 1


# -- guided ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [r"^[0-9]{3}-(a|b)!$", r"(?:yes|no)\.", r"\d\d\s\w{2,4}", r"\[é\]\"\\"])
async def test_a_regular_expression(engine, pattern):
    guided = params(guided_decoding=GuidedDecodingParams(regex=pattern), temperature=1.5, seed=1, max_new_tokens=60)
    completion = await engine.generate(COUNT, generation=guided)
    assert completion.finish_reason is FinishReason.STOP
    assert re.fullmatch(pattern, completion.text), completion.text


async def test_choices_and_grammars(engine):
    words = ['it\'s "fine"', "bad\n", "é"]
    guided = params(guided_decoding=GuidedDecodingParams(choice=words))
    assert (await engine.generate(COUNT, generation=guided)).text in words
    for grammar in ('root ::= "a" [b-d] "e"', 'start: "a" MIDDLE "e"\nMIDDLE: /[b-d]/'):
        guided = params(guided_decoding=GuidedDecodingParams(grammar=grammar))
        assert re.fullmatch("a[b-d]e", (await engine.generate(COUNT, generation=guided)).text)


async def test_a_broken_grammar_is_refused_and_harms_nobody(engine):
    for broken in ("root ::= ((", "root ::= missing", "start: missing"):
        with pytest.raises((ConfigError, BadRequestError)):
            await engine.generate(COUNT, generation=params(guided_decoding=GuidedDecodingParams(grammar=broken)))
    assert (await engine.generate(COUNT)).text == COUNTED


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_a_bare_prompt_is_completed_word_for_word(engine):
    text = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n3 + 4"
    assert (await engine.generate(Prompt(text=text))).text == " = 7."
    with pytest.raises(ConfigError, match="1023"):
        await engine.generate(Prompt(token_ids=(5, 5000)))


async def test_a_prompt_that_does_not_fit_says_so(engine):
    with pytest.raises(ContextLengthError, match="2048"):
        await engine.generate("hi there " * 2000)


async def test_a_long_prompt_is_read_in_pieces_and_fills_the_context(engine):
    filled = await engine.generate("hi there " * 300, generation=params(max_new_tokens=None, logit_bias={2: -100}))
    assert filled.finish_reason is FinishReason.LENGTH
    assert filled.usage.total_tokens == 2048


async def test_what_means_nothing_here_is_named(engine, caplog):
    engine._warned.discard("reasoning_effort")
    await engine.generate("Hello", generation=params(reasoning_effort="low"))
    assert "does not support reasoning_effort" in caplog.text
    with pytest.raises(UnsupportedParameterError):
        await engine.generate("Hello", generation=params(reasoning_effort="low", strict_params=True))


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_leaving_frees_the_sequence_within_a_step(engine):
    paged = engine._life.worker._paged
    for how in ("break", "cancel"):
        with anyio.CancelScope() as scope:
            async with engine.stream(COUNT, generation=LONG) as stream:
                async for _ in stream:
                    if how == "break":
                        break
                    scope.cancel()
        with anyio.fail_after(5):
            while paged._line.running:
                await anyio.sleep(0.01)
        scheduler = paged._batching._scheduler
        assert (await engine.generate("What is 3 + 4?")).text == "3 + 4 = 7."
        with anyio.fail_after(5):  # the library forgets a row at the beginning of the next step
            while scheduler.active_requests:
                await anyio.sleep(0.01)


async def test_one_bad_answer_harms_no_other(engine, monkeypatch):
    """A row whose sampling fails is told so; those beside it and after it are served."""
    from asyncinfer.engines.native import sampling

    good = sampling.Chooser.edit

    def edit(self, scores):
        if self.ask.logit_bias == {5: 1.0}:
            raise RuntimeError("broken on purpose")
        good(self, scores)

    monkeypatch.setattr(sampling.Chooser, "edit", edit)
    results = []
    async with anyio.create_task_group() as group:

        async def bad():
            with pytest.raises(EngineError, match="broken on purpose"):
                await engine.generate(COUNT, generation=params(logit_bias={5: 1.0}))

        async def fine():
            results.append((await engine.generate(COUNT, generation=params(logit_bias={6: 0.0}))).text)

        for job in (bad, fine, fine):
            group.start_soon(job)
    assert results == [COUNTED] * 2


async def test_a_failed_step_fails_its_streams_and_the_next_one_works(engine, monkeypatch):
    model = engine._life.worker._loaded.model
    forward = type(model).forward
    broken = threading.Event()
    broken.set()

    def fail(self, *args, **kwargs):
        if broken.is_set():
            import torch

            raise torch.OutOfMemoryError("no memory, on purpose")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", fail)
    with pytest.raises(EngineError, match="out of memory"):
        await engine.generate(COUNT)
    broken.clear()
    assert (await engine.generate(COUNT)).text == COUNTED
