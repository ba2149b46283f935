"""Checks around event loops: an engine outlives them, works in several, and does not hold them up."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from .subject import together
from .verdict import Stalls, claim, show

if TYPE_CHECKING:
    from .subject import Subject

_TICK = 0.001
_IDLE_TICKS = 200
_DECODING = 16
"""Streams under way while stalls are measured."""


async def other_event_loops_are_served(subject: Subject) -> str:
    """The engine answers in other threads' loops, one after the other, while this loop reads a stream too."""
    prompt = subject.expect.prompts[0]
    known = await subject.known(prompt)
    backends = [name for name in subject.expect.backends if find_spec(name) is not None]

    async def ask() -> str:
        return (await subject.engine.generate(prompt, generation=subject.params())).text

    def loops() -> list[str]:
        return [anyio.run(ask, backend=backend) for backend in [*backends, *backends]]

    async def elsewhere() -> list[str]:
        return await anyio.to_thread.run_sync(loops)

    async def here() -> list[str]:
        return [(await subject.read(subject.expect.long_prompt, subject.long_params(100))).completion.text]

    texts, _ = await together([elsewhere, here])
    for backend, text in zip([*backends, *backends], texts, strict=True):
        same = text == known.text or not subject.expect.deterministic
        claim(text and same, f"in a loop of {backend} the answer is {show(text)}, not {show(known.text)}")
    again = await subject.generate(prompt)
    claim(again.text == known.text or not subject.expect.deterministic, f"back in this loop: {show(again.text)}")
    return ", ".join(backends)


async def the_event_loop_is_not_held_up(subject: Subject) -> str:
    """How late the loop runs while 16 streams are decoded; a failure only where a limit is given."""
    subject.doing = "measuring how late the loop runs"
    await subject.known(subject.expect.prompts[0])  # loaded
    idle: list[float] = []
    for _ in range(_IDLE_TICKS):
        await _tick(idle)
    late: list[float] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while True:
                await _tick(late)

        group.start_soon(watch)
        began = perf_counter()
        job = partial(subject.read, subject.expect.long_prompt, subject.long_params())
        readings = await together([job] * _DECODING)
        took = perf_counter() - began
        await anyio.sleep(2 * _TICK)
        group.cancel_scope.cancel()
    measured = subject.measured
    measured.idle_stalls, measured.stalls = Stalls.of(idle), Stalls.of(late or [took])
    measured.tokens_per_second = sum(reading.completion.usage.output_tokens for reading in readings) / took
    limit = subject.expect.max_stall_ms
    if limit is not None:
        claim(
            measured.stalls.p99 <= limit, f"the loop was late by {measured.stalls}; at most {limit:g} ms were allowed"
        )
    return str(measured.stalls)


async def _tick(late: list[float]) -> None:
    before = perf_counter()
    await anyio.sleep(_TICK)
    late.append(max(0.0, perf_counter() - before - _TICK))
