"""An engine of one's own in twenty lines: say how one answer is made, and the pipeline does the rest.

Slots, clocks, early exit, ``generate`` and ``generate_many`` come with the base class. Whether the engine keeps its
promises is what check_own_engine.py finds out.
"""

import asyncio
from collections.abc import AsyncIterator

import anyio

from asyncinfer import (
    Conversation,
    Engine,
    Event,
    Finish,
    FinishReason,
    Request,
    Start,
    TextDelta,
    Usage,
    UsageUpdate,
)


class Reverse(Engine):
    """Answers with the words of the last message, last word first."""

    name = "reverse"

    @classmethod
    def get_supported_params(cls) -> set[str]:
        return {"max_new_tokens"}  # the caller is warned of every other one, by name

    async def produce(self, request: Request) -> AsyncIterator[Event]:
        yield Start(model="reverse-1")
        words = request.conversation.messages[-1].text.split()
        made = words[::-1][: request.generation.max_new_tokens]
        for word in made:
            await anyio.sleep(0.0001)  # a real engine waits here for its next token
            yield TextDelta(f"{word} ")
        yield Finish(FinishReason.STOP if len(made) == len(words) else FinishReason.LENGTH)
        yield UsageUpdate(Usage(input_tokens=len(words), output_tokens=len(made)))


async def main() -> None:
    engine = Reverse()
    async for token in engine.stream("one two three"):
        print(token, end="")
    print()
    rows = (Conversation.from_dict({"messages": [{"role": "user", "content": f"row {n}"}]}) for n in range(3))
    async for result in engine.generate_many(rows):
        print(result.text if result else result.error)


if __name__ == "__main__":
    asyncio.run(main())
