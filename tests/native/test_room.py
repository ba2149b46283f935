"""What happens when there is less memory than requests, and when the library fails or is another one."""

from __future__ import annotations

import logging
import threading

import anyio
import pytest

from asyncinfer import GenerationParams, ModelParams, NativeTextInferenceEngine, Prompt
from asyncinfer.errors import ContextLengthError, EngineClosedError, EngineError, StreamInterrupted
from asyncinfer.events import Start

pytestmark = [pytest.mark.native, pytest.mark.anyio]

COUNT = "Count from 1 to 20."
NUMBERS = " ".join(map(str, range(1, 21)))
SUM = "What is 3 + 4?"
LONG = GenerationParams(max_new_tokens=150, logit_bias={2: -100})  # 2 ends an answer: it never will by itself


def params(**fields):
    return GenerationParams(**fields)


@pytest.fixture(scope="module")
def small():
    """Room for 192 tokens: one answer of full length, or a few short ones."""
    engine = NativeTextInferenceEngine(ModelParams(model_kwargs={"cache_tokens": 192}))
    yield engine
    anyio.run(engine.aclose)


@pytest.fixture
def evicted(monkeypatch):
    """The rows that the library threw out and began anew."""
    from transformers.generation.continuous_batching.requests import RequestState

    rows = []
    again = RequestState.create_equivalent_initial_request

    def note(self):
        rows.append(self.request_id)
        return again(self)

    monkeypatch.setattr(RequestState, "create_equivalent_initial_request", note)
    return rows


async def test_more_rows_than_memory_wait_for_room(small, evicted):
    with anyio.fail_after(60):
        completions = await small.generate_many([COUNT] * 12)
    assert [completion.text for completion in completions] == [NUMBERS] * 12
    assert evicted == []


async def test_rows_of_all_sizes_take_turns(small, evicted):
    texts: dict[int, str] = {}
    limits = [3, 150, 60, 7, 256, 1, 40, None, 12, 90, 5, 64]

    async def one(number, limit):
        asked = params(max_new_tokens=limit)
        texts[number] = (await small.generate(COUNT if number % 2 else SUM, generation=asked)).text

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number, limit in enumerate(limits):
                group.start_soon(one, number, limit)
    whole = {0: "3 + 4 = 7.", 1: NUMBERS}
    assert len(texts) == len(limits)
    for number, text in texts.items():
        assert text and whole[number % 2].startswith(text)
        assert limits[number] in {1, 3, 5, 7, 12} or text == whole[number % 2] or limits[number] == 40
    assert evicted == []


async def test_rows_that_are_thrown_out_are_answered_too(small, evicted, monkeypatch):
    """Where more was let in than there is room for: the library throws out, and takes in again when others have gone,
    also when those did not end by themselves."""
    monkeypatch.setattr("asyncinfer.engines.native.line.expected", lambda _row: 0)
    with anyio.fail_after(60):
        completions = await small.generate_many([COUNT] * 12)
    assert [completion.text for completion in completions] == [NUMBERS] * 12
    assert {completion.usage.output_tokens for completion in completions} == {completions[0].usage.output_tokens}
    assert evicted  # or this test tests nothing


async def test_a_prompt_that_never_fits_says_so_and_an_answer_ends_where_the_memory_does(small):
    with pytest.raises(ContextLengthError, match="192"):
        await small.generate(Prompt(token_ids=(5,) * 192))
    filled = await small.generate(Prompt(token_ids=(5,) * 180), generation=params(logit_bias={2: -100}))
    assert filled.usage.total_tokens == 192


async def test_more_answers_than_fit_to_one_question(small):
    asked = params(n=5, max_new_tokens=60)
    completion = await small.generate(COUNT, generation=asked)
    assert [choice.message.text for choice in completion.choices] == [NUMBERS] * 5


async def test_who_leaves_the_line_is_gone_at_once(small):
    line = (await ready(small))._line
    async with small.stream(COUNT, generation=LONG) as running:
        async for _ in running:
            break
        with anyio.move_on_after(0.05) as scope:
            await small.generate(COUNT, generation=LONG)
        assert scope.cancelled_caught
        assert (await small.stream(SUM, generation=params(max_new_tokens=1)).completion()).text
        assert not any(row.cancelled for row in line.waiting)
    assert (await small.generate(SUM)).text == "3 + 4 = 7."


async def ready(engine):
    await engine.ready()
    return engine._life.worker._paged


async def test_closing_ends_those_that_wait_too(make):
    engine = make(cache_tokens=192)
    await engine.ready()
    ended = []

    async def read():
        try:
            await engine.generate(COUNT, generation=LONG)
        except (EngineClosedError, StreamInterrupted) as error:
            ended.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(read)
        while not engine._life.worker._paged._line.waiting:
            await anyio.sleep(0.005)
        with anyio.fail_after(10):
            await engine.aclose()
    assert len(ended) == 6


async def test_a_prompt_that_begins_like_another_is_not_read_twice(small):
    prompt = Prompt(token_ids=(*range(5, 90),))
    first = await small.generate(prompt, generation=params(max_new_tokens=2))
    again = await small.generate(prompt, generation=params(max_new_tokens=2))
    assert again.usage.cached_tokens == 64  # whole pages of 32
    assert first.usage.cached_tokens in {0, 64}  # the other loop's test may have come before
    assert again.text == first.text


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def forward(small, monkeypatch):
    """Break the model's next steps by a function of the tokens that are computed."""
    breaks = []

    def install(model):
        real = type(model).forward

        def forward(self, *args, input_ids=None, **kwargs):
            for broken in breaks:
                if broken(input_ids):
                    raise RuntimeError("broken on purpose")
            return real(self, *args, input_ids=input_ids, **kwargs)

        monkeypatch.setattr(type(model), "forward", forward)
        return breaks

    return install


async def test_a_failed_step_spares_the_rows_that_have_not_begun(small, forward):
    paged = await ready(small)
    breaks = forward(small._life.worker._loaded.model)
    once = threading.Event()
    begun = anyio.Event()
    results = {}

    async def long():
        with pytest.raises((EngineError, StreamInterrupted), match="broken on purpose"):
            async for event in small.stream(COUNT, generation=LONG).events():
                if type(event) is Start:
                    begun.set()

    async def short(number):
        results[number] = (await small.generate(SUM, generation=params(max_new_tokens=100))).text

    def broken(_ids):
        if paged._line.waiting and not once.is_set():
            once.set()
            return True
        return False

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(long)
            await begun.wait()
            for number in range(5):
                group.start_soon(short, number)
            while len(paged._line.waiting) < 5:
                await anyio.sleep(0.001)
            breaks.append(broken)
    assert once.is_set()
    assert results == dict.fromkeys(range(5), "3 + 4 = 7.")


async def test_a_row_that_breaks_every_step_is_told_and_the_others_are_served(small, forward):
    await ready(small)
    breaks = forward(small._life.worker._loaded.model)
    breaks.append(lambda ids: 777 in ids)
    bad = Prompt(token_ids=(777,) * 100)
    results = []

    async def fails():
        with pytest.raises(EngineError, match="broken on purpose"):
            await small.generate(bad)

    async def works():
        results.append((await small.generate(SUM, generation=params(max_new_tokens=100))).text)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for job in (fails, works, fails, works):
                group.start_soon(job)
                await anyio.sleep(0.01)
    assert results == ["3 + 4 = 7."] * 2


# -- other versions of the library -------------------------------------------------------------------------------------


def without_thread(monkeypatch):
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager as Manager

    first = Manager.__init__

    def init(self, *args, **kwargs):
        first(self, *args, **kwargs)
        del self._generation_thread

    monkeypatch.setattr(Manager, "__init__", init)


def picks_by_itself(monkeypatch):
    from transformers.generation.continuous_batching.model_runner import ModelRunner

    def sample(self, model, batch_data, _carry, _prev, output_ids):
        scores = model(**batch_data).logits[0]
        self._sample(scores.unsqueeze(0), output_ids)

    monkeypatch.setattr(ModelRunner, "_forward_process_and_sample", sample)


def other_settings(monkeypatch):
    import transformers.generation.configuration_utils as module

    def config(**_kwargs):
        raise TypeError("unexpected keyword argument 'page_size'")

    monkeypatch.setattr(module, "ContinuousBatchingConfig", config)


def other_arguments(monkeypatch):
    from transformers.generation.continuous_batching.continuous_api import ContinuousBatchProcessor as Processor

    def prepare(self):
        raise AttributeError("_Step has no attribute 'what_is_new'")

    monkeypatch.setattr(Processor, "prepare_next_batch", prepare)


@pytest.mark.parametrize("change", [without_thread, picks_by_itself, other_settings, other_arguments])
async def test_another_version_of_the_library_is_used_without_pages(make, monkeypatch, caplog, change):
    change(monkeypatch)
    engine = make()
    with caplog.at_level(logging.WARNING, "asyncinfer"), anyio.fail_after(60):
        completions = await engine.generate_many([COUNT, SUM] * 2)
    assert [completion.text for completion in completions] == [NUMBERS, "3 + 4 = 7."] * 2
    assert caplog.text.count("is not batched continuously with this version") == 1
    await engine.aclose()
