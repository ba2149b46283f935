"""The engine under test, as the checks see it: questions put to it, and its answers, timed.

Rule: nothing here judges, except that what must be known before a check makes sense can be found missing
(`NotApplicable`).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from .. import Completion, Engine, Event, GenerationParams, GuidedDecodingParams, TextDelta
from .verdict import NotApplicable, Stalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .expectations import Expectations, Probe, Prompt

T = TypeVar("T")


@dataclass(slots=True)
class Reading:
    """One answer, read to its end.

    Attributes:
        events: in order.
        completion: what ``stream.completion()`` gave after them.
        first: seconds until the first text; None if there was none.
        total: seconds until the end.
    """

    events: list[Event]
    completion: Completion
    first: float | None
    total: float

    @property
    def pieces(self) -> list[str]:
        """The texts of choice 0 as they were shown."""
        return self.pieces_of(0)

    def pieces_of(self, index: int) -> list[str]:
        """Those of one choice."""
        return [event.text for event in self.events if type(event) is TextDelta and event.index == index]


@dataclass(slots=True)
class Measured:
    """What the checks measure for the report."""

    stalls: Stalls | None = None
    idle_stalls: Stalls | None = None
    tokens_per_second: float | None = None


@dataclass(slots=True)
class Subject:
    """An engine, what is expected of it, and the answers it has given already."""

    engine: Engine
    expect: Expectations
    measured: Measured = field(default_factory=Measured)
    doing: str = "begin"
    _known: dict[str, Completion] = field(default_factory=dict)
    _long: Reading | None = None

    # -- what can be asked -------------------------------------------------------------------------------------------

    def supports(self, name: str) -> bool:
        """Whether the engine says that it honours a parameter."""
        supported = self.expect.supported
        return name in (self.engine.get_supported_params() if supported is None else supported)

    def needs(self, *names: str) -> None:
        """The check is about these parameters."""
        missing = [name for name in names if not self.supports(name)]
        if missing:
            raise NotApplicable(f"the engine does not claim {', '.join(missing)}")

    def needs_guided(self, kind: str) -> None:
        """The check is about this kind of guided decoding."""
        self.needs("guided_decoding")
        if kind not in self.expect.guided:
            raise NotApplicable(f"guided_decoding by {kind} is not expected")

    def needs_same_answers(self) -> None:
        """The check compares two answers to one question."""
        if not self.expect.deterministic:
            raise NotApplicable("the answer to a question is not expected to be the same twice")

    def params(self, base: GenerationParams | None = None, **more: Any) -> GenerationParams:
        """The parameters of every call (or ``base``), and ``more``."""
        base = base or self.expect.generation or GenerationParams(temperature=0.0)
        return GenerationParams(**{**{name: getattr(base, name) for name in base.model_fields_set}, **more})

    def guided(self, **shape: Any) -> GenerationParams:
        """Parameters that prescribe the answer's shape."""
        return self.params(guided_decoding=GuidedDecodingParams(**shape), **self.room)

    @property
    def room(self) -> dict[str, Any]:
        """Enough tokens for an answer of a prescribed shape."""
        return {"max_new_tokens": 200} if self.supports("max_new_tokens") else {}

    def long_params(self, tokens: int | None = None, **more: Any) -> GenerationParams:
        """Parameters under which the long prompt is answered with ``tokens`` tokens."""
        expect = self.expect
        if expect.long_generation is not None:
            if tokens is not None:
                more = {"max_new_tokens": tokens, **more}
                if "min_new_tokens" in expect.long_generation.model_fields_set:
                    more["min_new_tokens"] = tokens
            return self.params(expect.long_generation, **more)
        tokens = tokens or expect.long_tokens
        if self.supports("max_new_tokens"):
            more["max_new_tokens"] = tokens
        if self.supports("logit_bias") and expect.end_token is not None:
            more["logit_bias"] = {expect.end_token: -100}
        elif self.supports("min_new_tokens"):
            more["min_new_tokens"] = tokens
        return self.params(**more)

    # -- asking ------------------------------------------------------------------------------------------------------

    async def read(self, prompt: Prompt, generation: GenerationParams | None = None, **call: Any) -> Reading:
        """An answer, event by event."""
        self.doing = f"streaming the answer to {_asked(prompt)}"
        events: list[Event] = []
        first: float | None = None
        began = perf_counter()
        async with self.engine.stream(prompt, generation=generation or self.params(), **call) as stream:
            async for event in stream.events():
                if first is None and type(event) is TextDelta:
                    first = perf_counter() - began
                events.append(event)
            total = perf_counter() - began
            return Reading(events, await stream.completion(), first, total)

    async def generate(self, prompt: Prompt, generation: GenerationParams | None = None, **call: Any) -> Completion:
        """An answer, whole."""
        self.doing = f"generating the answer to {_asked(prompt)}"
        return await self.engine.generate(prompt, generation=generation or self.params(), **call)

    async def known(self, prompt: str) -> Completion:
        """The answer to one of the prompts, asked alone and once."""
        if prompt not in self._known:
            self._known[prompt] = await self.generate(prompt)
        return self._known[prompt]

    async def long(self) -> Reading:
        """The long answer, read alone and once."""
        if self._long is None:
            self._long = await self.read(self.expect.long_prompt, self.long_params())
        return self._long

    async def probe(self, look: Probe) -> int:
        """The number that a probe shows."""
        found = look()
        return await found if inspect.isawaitable(found) else found


async def together(jobs: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """The results of all jobs, run at once, in order. The first exception ends the others and is raised bare."""
    results: dict[int, T] = {}
    errors: list[Exception] = []

    async def run(number: int, job: Callable[[], Awaitable[T]]) -> None:
        try:
            results[number] = await job()
        except Exception as error:  # noqa: BLE001 -- raised below, outside the group
            errors.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for number, job in enumerate(jobs):
            group.start_soon(run, number, job)
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(jobs))]


def _asked(prompt: Prompt) -> str:
    """A question as messages quote it: its last words, where it is a conversation."""
    text = prompt if isinstance(prompt, str) else str(prompt.messages[-1].content if prompt.messages else "")
    return repr(text[:60])
