"""Long work off the event loop, in steps: a generator yields now and then, and can be cancelled between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")


async def drive(steps: Generator[None, None, T]) -> T:
    """Run a generator in a thread, a step at a time: cancelled between two steps, it is closed and cleans up."""
    try:
        while True:
            done, result = await anyio.to_thread.run_sync(_step, steps)
            if done:
                return cast("T", result)
    finally:
        steps.close()


def _step(steps: Generator[None, None, T]) -> tuple[bool, T | None]:
    try:
        next(steps)
    except StopIteration as end:
        return True, end.value
    return False, None
