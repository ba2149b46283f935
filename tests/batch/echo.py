"""An engine that answers with the question and a serial number, so that every answer is told from every other.

As a script it works through a file, slowly enough to be killed: ``python -m tests.batch.echo IN OUT CALLS``; each
answer that is made adds a line to ``CALLS``.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from pathlib import Path

import anyio

import asyncinfer
from asyncinfer import Engine, Finish, FinishReason, TextDelta, Usage, UsageUpdate
from asyncinfer.limits import Limits

_serial = itertools.count(1)


class Echo(Engine):
    """``fail`` maps a question to the error it meets (or None); ``pace`` is the longest time an answer takes."""

    name = "echo"
    slots = 8

    def __init__(self, *args, fail=lambda text: None, pace: float = 0.0, calls: Path | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.fail = fail
        self.pace = pace
        self.asked: list[str] = []
        self.calls = None if calls is None else os.open(calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def limits(self):
        return Limits(max_concurrency=self.slots, max_retries=0)

    async def produce(self, request):
        text = request.conversation.messages[-1].text
        self.asked.append(text)
        if self.pace:
            await anyio.sleep(random.random() * self.pace)
        error = self.fail(text)
        if error is not None:
            raise error
        if self.calls is not None:
            os.write(self.calls, text.encode() + b"\n")
        yield TextDelta(text=f"{text} #{os.getpid()}.{next(_serial)}")
        yield UsageUpdate(usage=Usage(input_tokens=3, output_tokens=5))
        yield Finish(reason=FinishReason.STOP)


async def main(source: str, output: str, calls: str) -> None:
    engine = Echo(pace=0.02, calls=Path(calls))
    async with engine:
        summary = await asyncinfer.batch.run_file(engine, source, output)
    print(summary.total, summary.completed, summary.resumed, flush=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
