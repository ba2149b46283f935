"""A model that keeps every promise, small enough to be read: what broken engines are made from, one flaw at a time.

Its tokens are three bytes of UTF-8, so they cut characters and stop strings in every place. It greets by repeating,
counts for ever, and draws words under a seed.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio

from asyncinfer import (
    BadRequestError,
    ContextLengthError,
    Engine,
    Event,
    Finish,
    FinishReason,
    Request,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from asyncinfer.engines.local.text import StopStrings, Utf8Pieces
from asyncinfer.testing import Expectations

WORDS = ("apple", "blue", "bread", "cat", "chair", "cloud", "dog", "green", "house", "light")
TOO_LONG = "far too long " * 1000
UNICODE = "žluťoučký 🐎 中文"


def say(prompt: str, temperature: float = 0.0, seed: int | None = None) -> str:
    """What a model of this room answers."""
    if temperature:
        drawn = random.Random(seed)
        return " ".join(drawn.choice(WORDS) for _ in range(300))
    if prompt.startswith("Count"):
        return " ".join(map(str, range(1, 1000)))
    return f"You said: {prompt}"


def tokens_of(text: str) -> list[bytes]:
    raw = text.encode()
    return [raw[at : at + 3] for at in range(0, len(raw), 3)]


def count(text: str) -> int:
    return len(tokens_of(text))


class Answer:
    """One choice in the making: the hooks that flaws override are the engine's."""

    def __init__(self, engine: Honest, request: Request, index: int, text: str) -> None:
        asked = request.generation
        self.engine, self.index, self.asked = engine, index, asked
        self.tokens = tokens_of(text)
        self.limit = engine.limit(asked.max_new_tokens or 10**6)
        self.characters: Any = engine.characters()
        self.stops: Any = engine.stops(asked.stop_strings or ())
        self.made = 0
        self.done = False

    def step(self) -> list[Event]:
        token = self.tokens[self.made]
        self.made += 1
        self.engine.made += 1
        text = self.stops.feed(self.characters.feed(token))
        if self.stops.matched is not None:
            return self.finish(text, FinishReason.STOP)
        if self.made == len(self.tokens):
            return self.finish(text + self.stops.feed(self.characters.close()) + self.stops.close(), FinishReason.STOP)
        if self.made >= self.limit:
            return self.finish(text + self.stops.close(), self.engine.at_limit)
        return self.delta(text)

    def delta(self, text: str) -> list[Event]:
        logprobs = [{"token": text, "logprob": -0.5, "top_logprobs": [{}]}] if self.asked.logprobs else None
        return [TextDelta(text, index=self.index, logprobs=logprobs)] if text else []

    def finish(self, text: str, reason: FinishReason) -> list[Event]:
        self.done = True
        return [*self.delta(text), Finish(reason, index=self.index, matched=self.stops.matched)]


class Honest(Engine):
    """Keeps every promise. ``running`` and ``made`` are its probes."""

    name = "honest"
    slots = 8
    pause = 0.0005
    at_limit = FinishReason.LENGTH
    characters = Utf8Pieces
    stops = StopStrings

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.running = 0
        self.made = 0
        self.lock = threading.Lock()

    @classmethod
    def get_supported_params(cls) -> set[str]:
        return {
            *("max_new_tokens", "min_new_tokens", "temperature", "seed", "stop_strings", "n", "logprobs"),
            *("top_logprobs", "guided_decoding", "tool_choice"),
        }

    def limit(self, most: int) -> int:
        return most

    def text(self, request: Request, index: int) -> str:
        """What choice ``index`` says."""
        asked = request.generation
        if asked.guided_decoding is not None:
            return self.shaped(asked.guided_decoding)
        return say(str(request.conversation.messages[-1].content), asked.temperature, asked.seed) + "!" * index

    def shaped(self, shape: Any) -> str:
        if shape.choice is not None:
            return str(shape.choice[0])
        return "abc-12" if shape.regex is not None else '{"ok": true}'

    def check(self, request: Request) -> None:
        """Refuse what cannot be answered."""
        shape = request.generation.guided_decoding
        if shape is not None and shape.regex is not None:
            try:
                re.compile(shape.regex)
            except re.error as error:
                raise BadRequestError(f"no regular expression: {error}") from None
        if len(request.conversation.messages[0].text) > 5000:
            raise ContextLengthError("the prompt is too long")

    def usage(self, request: Request, output: int) -> Usage:
        return Usage(
            input_tokens=sum(count(message.text) for message in request.conversation.messages), output_tokens=output
        )

    async def wait(self) -> None:
        """One step of decoding."""
        await anyio.sleep(self.pause)

    def calls(self, request: Request) -> bool:
        asked = request.generation
        return bool(request.tools) and asked.tool_choice == "required"

    def call(self) -> list[Event]:
        head = ToolCallDelta(0, id="call-1", name="get_weather", arguments='{"ci')
        return [head, ToolCallDelta(0, arguments='ty": "Oslo"}'), Finish(FinishReason.TOOL_CALLS)]

    async def produce(self, request: Request) -> AsyncGenerator[Event]:
        self.check(request)
        with self.lock:
            self.running += 1
        try:
            yield Start(id="a", model="honest-1")
            async with aclosing(self.decode(request)) as events:  # an inner generator is closed by nobody else
                async for event in events:
                    yield event
        finally:
            with self.lock:
                self.running -= 1

    async def decode(self, request: Request) -> AsyncGenerator[Event]:
        if self.calls(request):
            for event in self.call():
                await self.wait()
                yield event
            yield UsageUpdate(self.usage(request, 5))
            return
        choices = range(request.generation.n)
        answers = [Answer(self, request, index, self.text(request, index)) for index in choices]
        while left := [answer for answer in answers if not answer.done]:
            await self.wait()
            for answer in left:
                for event in answer.step():
                    yield event
        yield UsageUpdate(self.usage(request, sum(answer.made for answer in answers)))


EXPECT = Expectations(
    prompts=("Hello there, how do you do?", "What is 3 + 4?", "Žluťoučký kůň", "x"),
    answers={"x": "You said: x"},
    long_prompt="Count on",
    long_tokens=100,
    unicode=(UNICODE, f"You said: {UNICODE}"),
    too_long=TOO_LONG,
    count_tokens=count,
    count_prompt=lambda conversation: sum(count(message.text) for message in conversation.messages),
    streams=24,
    patience=20.0,
    free_within=0.5,
)
"""What holds for `Honest`."""
