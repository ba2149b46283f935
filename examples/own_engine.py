"""An engine of one's own in twenty lines: say how one answer is made, and the pipeline does the rest.

Slots, clocks, early exit, usage, ``generate`` and ``generate_many`` come with the base class.
"""

import asyncio
from collections.abc import AsyncIterator

from asyncinfer import Conversation, Engine, Event, Finish, FinishReason, Request, Start, TextDelta


class Reverse(Engine):
    """Answers with the words of the last message, last word first."""

    name = "reverse"

    async def produce(self, request: Request) -> AsyncIterator[Event]:
        yield Start(model="reverse-1")
        for word in reversed(str(request.conversation.messages[-1].content).split()):
            await asyncio.sleep(0)  # a real engine waits here for its next token
            yield TextDelta(f"{word} ")
        yield Finish(FinishReason.STOP)


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
