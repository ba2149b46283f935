"""Engines for tests: what they do is a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anyio

from asyncinfer import Engine, Finish, FinishReason, Start, TextDelta, Usage, UsageUpdate
from asyncinfer.errors import StreamInterrupted
from asyncinfer.request import Request

PAUSE = object()
"""A step of a script: wait until the answer is aborted."""


class ScriptedSource:
    """Plays steps: events, exceptions, seconds to sleep, `PAUSE`."""

    def __init__(self, engine: ScriptedEngine, steps: Iterable[Any]) -> None:
        self.engine = engine
        self.steps = iter(steps)
        self.rate: dict[Any, Any] = {}
        self.request_id: str | None = "req-1"
        self.aborted = anyio.Event()
        self.ended = False
        engine.open_now += 1
        engine.peak = max(engine.peak, engine.open_now)

    async def pull(self) -> list[Any] | None:
        for step in self.steps:
            if step is PAUSE:
                await self.aborted.wait()
                raise StreamInterrupted("aborted")
            if isinstance(step, (int, float)):
                await anyio.sleep(step)
            elif isinstance(step, BaseException):
                raise step
            elif isinstance(step, list):
                return step
            else:
                return [step]
        return None

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self.engine.open_now -= 1

    def abort(self) -> None:
        if not self.ended:
            self.engine.aborts += 1
            self.aborted.set()
            self._end()

    async def aclose(self) -> None:
        self.engine.closes += 1
        self._end()


class ScriptedEngine(Engine):
    """Each attempt takes the next script; a callable makes one from the request."""

    name = "scripted"

    def __init__(self, *scripts: Any, slots: int | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.slots = slots
        self.scripts = list(scripts)
        self.requests: list[Request] = []
        self.open_now = 0
        self.peak = 0
        self.aborts = 0
        self.closes = 0

    async def open(self, request: Request) -> ScriptedSource:
        self.requests.append(request)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if isinstance(script, BaseException):
            raise script
        return ScriptedSource(self, script(request) if isinstance(script, Callable) else script)


def answer(*pieces: str, finish: FinishReason = FinishReason.STOP) -> list[Any]:
    """The script of a whole, ordinary answer."""
    return [
        Start(id="a-1", model="m"),
        *(TextDelta(piece) for piece in pieces),
        Finish(finish),
        UsageUpdate(Usage(input_tokens=3, output_tokens=len(pieces))),
    ]


def echo(request: Request) -> list[Any]:
    """Answers with the last message's own words."""
    text = str(request.conversation.messages[-1].content)
    return answer(*text.split(" "))
