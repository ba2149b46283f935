"""A stream in ten lines. Nothing is configured, so the embedded model answers: no key, no network."""

import asyncio

from asyncinfer import open_engine


async def main() -> None:
    async with open_engine() as engine:  # or open_engine("openai:gpt-4o-mini"), or a class with its parameters
        async for token in engine.stream("What is the capital of France?"):
            print(token, end="", flush=True)
    print()


asyncio.run(main())
