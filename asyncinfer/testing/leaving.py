"""Checks of early exits: whoever leaves an answer, in whatever way, stops the work, and the next is served.

Whether a sequence came free is seen through the caller's probes, where there are some; else it is judged from outside:
with every slot of the engine taken by answers that were left, another one must not have to wait for their ends.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import anyio

from .. import AsyncInferError, StreamInterrupted
from .subject import together
from .verdict import ConformanceError, NotApplicable, claim, show

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .subject import Subject

    Exit = Callable[[], Awaitable[None]]

_MOST = 32
"""Streams at most that are begun and left at once."""

_STEPS = 4
"""Tokens that a left stream may still make: the step that is under way, and those before somebody looked."""

_TELLING = 0.05
"""Seconds that an answer must take for its absence to be noticed from outside."""

_SHARE = 3
"""An answer that had to wait for another one takes about as long as that one; a third of it leaves room for noise."""


class Boom(Exception):
    """An exception of the caller's own."""


async def leaving_by_break_frees_the_sequence(subject: Subject) -> str:
    """Leaving the loop stops the work, inside ``async with`` and without; ``.partial`` has what was seen."""

    async def dropped() -> None:
        async for _ in subject.engine.stream(subject.expect.long_prompt, generation=subject.long_params()):
            break

    async def left() -> None:
        shown = ""
        async with subject.engine.stream(subject.expect.long_prompt, generation=subject.long_params()) as stream:
            async for token in stream:
                shown += token
                break
        try:
            completion = await stream.completion()
        except StreamInterrupted as error:
            partial_text = error.partial.text if error.partial is not None else ""
            claim(partial_text.startswith(shown), f"shown was {show(shown)}, .partial has {show(partial_text)}")
        else:
            raise ConformanceError(f"an answer that was left looks finished: {show(completion.text)}")
        claim(stream.usage is not None, "an answer that was left has no usage")

    await _freed(subject, "break", dropped)
    return await _freed(subject, "leaving the block", left)


async def leaving_by_exception_frees_the_sequence(subject: Subject) -> str:
    """The caller's own exception comes out as it is, and stops the work."""

    async def thrown() -> None:
        try:
            async with subject.engine.stream(subject.expect.long_prompt, generation=subject.long_params()) as stream:
                async for _ in stream:
                    raise Boom
        except Boom:
            return
        raise ConformanceError("the caller's exception was swallowed")

    return await _freed(subject, "an exception", thrown)


async def leaving_by_cancellation_frees_the_sequence(subject: Subject) -> str:
    """Cancelling stops the work: before the first token, and after it."""

    async def cancelled(delay: float) -> None:
        with anyio.move_on_after(delay) as scope:
            await subject.generate(subject.expect.long_prompt, subject.long_params())
        claim(scope.cancelled_caught or delay, "a cancelled call came back with an answer")

    async def amid() -> None:
        with anyio.CancelScope() as scope:
            async for _ in subject.engine.stream(subject.expect.long_prompt, generation=subject.long_params()):
                scope.cancel()
            raise ConformanceError("a cancelled stream went on to its end")

    first = (await subject.long()).first or 0.0
    for delay in (0.0, first / 2, first + 0.01):
        await _freed(subject, f"cancelling after {1e3 * delay:.1f} ms", partial(cancelled, delay))
    return await _freed(subject, "cancelling a stream", amid)


async def _freed(subject: Subject, how: str, leave: Exit) -> str:
    """Fill the engine with answers, leave them all, and see that nothing of them stays."""
    subject.doing = f"leaving answers by {how}"
    expect, engine = subject.expect, subject.engine
    count = min(engine.slots or 4, _MOST)
    alone = await subject.long()
    await subject.known(expect.prompts[0])
    if len(alone.pieces) < 2:
        raise NotApplicable("the long answer comes in one piece: it cannot be left half-way")
    for attempt in range(3):  # from outside only a clock tells, and a busy machine may slow it
        await together([leave] * count)
        before = await subject.probe(expect.made) if expect.made is not None else 0
        if expect.running is not None:
            await _idle(subject, how)
        if expect.made is not None:
            await _silent(subject, how, before, count)
        began = perf_counter()
        await _served(subject, how)
        waited = perf_counter() - began
        if expect.running is not None:
            return "seen by the probe"
        if engine.slots is None or alone.total < _TELLING:
            return "judged by the next answer alone"
        if waited < alone.total / _SHARE:
            return f"next answer after {1e3 * waited:.0f} ms, beside {1e3 * alone.total:.0f} of the ones that were left"
        subject.doing = f"leaving answers by {how}, attempt {attempt + 2}"
    raise ConformanceError(
        f"after {how} the next answer took {1e3 * waited:.0f} ms: it waited for {count} that were left "
        f"(each takes {1e3 * alone.total:.0f} ms)"
    )


async def _idle(subject: Subject, how: str) -> None:
    assert subject.expect.running is not None
    end = perf_counter() + subject.expect.free_within
    while running := await subject.probe(subject.expect.running):
        if perf_counter() > end:
            raise ConformanceError(
                f"{subject.expect.free_within:g} s after {how}, {running} sequences are still decoded"
            )
        await anyio.sleep(0.001)


async def _silent(subject: Subject, how: str, before: int, count: int) -> None:
    assert subject.expect.made is not None
    await anyio.sleep(0.02)
    made = await subject.probe(subject.expect.made) - before
    claim(made <= _STEPS * count, f"after {how}, {made} more tokens were made for {count} answers that nobody reads")


async def _served(subject: Subject, how: str) -> None:
    prompt = subject.expect.prompts[0]
    completion = await subject.generate(prompt)
    if subject.expect.deterministic:  # what was left behind in the engine must not colour it
        known = (await subject.known(prompt)).text
        claim(completion.text == known, f"after {how}, the next answer is {show(completion.text)}, not {show(known)}")
    claim(completion.text or completion.message.reasoning_content, f"after {how}, the next answer is empty")


async def closing_ends_what_runs_and_opens_again(subject: Subject) -> None:
    """``aclose`` ends every answer with a typed error, twice does no harm, and the engine works again afterwards."""
    ends: list[object] = []
    begun = [anyio.Event() for _ in range(3)]

    async def read(number: int) -> None:
        try:
            async for _ in subject.engine.stream(subject.expect.long_prompt, generation=subject.long_params()):
                begun[number].set()
                await anyio.lowlevel.checkpoint()
            ends.append("a whole answer")
        except AsyncInferError as error:
            ends.append(error)
        except Exception as error:  # noqa: BLE001 -- the finding
            ends.append(f"an error that is not asyncinfer's: {error!r}")
        finally:
            begun[number].set()

    subject.doing = "closing the engine while answers run"
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(read, number)
        for event in begun:
            await event.wait()
        await subject.engine.aclose()
    # An answer may have been complete just before; that all of them were is what closing after the end looks like.
    strange = [end for end in ends if not isinstance(end, AsyncInferError) and end != "a whole answer"]
    claim(not strange, f"closing ended an answer with {show(strange[:1])}")
    if (await subject.long()).total > _TELLING:
        claim(any(isinstance(end, AsyncInferError) for end in ends), "closing the engine ended no answer")
    await subject.engine.aclose()
    if subject.expect.running is not None:
        await _idle(subject, "closing the engine")
    await _served(subject, "closing the engine")
