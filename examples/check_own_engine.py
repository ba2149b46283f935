"""Does an engine keep the promises of every engine? The conformance suite tells; in a test of yours, or like this.

    python examples/check_own_engine.py

It prints what was checked, what does not apply to this engine and why, and how fast it is. Try to break the engine: let
it forget a Finish, or the limit, and see what the suite says.
"""

import asyncio
import sys

from own_engine import Reverse

from asyncinfer.testing import ConformanceError, check_engine


async def main() -> int:
    try:
        report = await check_engine(
            Reverse,
            prompts=("one two three", "four five", "six"),  # answered shortly
            answers={"one two three": "three two one "},  # and some of it known
            long_prompt=" ".join(str(number) for number in range(1000)),
            count_tokens=lambda text: len(text.split()),
        )
    except ConformanceError as error:
        print(error)
        return 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
