"""Waiting for a job: looks at growing distances, through faults that pass."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING

import anyio

from ...errors import AsyncInferError, TotalTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

    from .status import BatchStatus

_log = logging.getLogger("asyncinfer.batch")
_GROWTH = 1.5


async def wait_for(
    look: Callable[[], Awaitable[BatchStatus]],
    interval: float,
    longest: float,
    timeout: float | None,
    on_progress: Callable[[BatchStatus], object] | None,
    provider: str,
) -> BatchStatus:
    """See `BatchJob.wait`."""
    from tenacity import AsyncRetrying, retry_if_exception, retry_if_result, wait_exponential, wait_random

    async def attempt() -> BatchStatus:
        status = await look()
        if on_progress is not None:
            told = on_progress(status)
            if inspect.isawaitable(told):
                await told
        return status

    def passing(error: BaseException) -> bool:
        return isinstance(error, AsyncInferError) and error.retryable

    def note(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if error is not None:
            _log.warning("cannot see how far the batch is, looking again: %s", error)

    poll = AsyncRetrying(
        retry=retry_if_exception(passing) | retry_if_result(lambda status: not status.ended),
        wait=wait_exponential(multiplier=interval, exp_base=_GROWTH, max=longest) + wait_random(0, interval / 10),
        before_sleep=note,
        sleep=anyio.sleep,
        reraise=True,
    )
    with anyio.move_on_after(timeout):
        return await poll(attempt)
    raise TotalTimeout(f"the batch has not ended within {timeout:g} s", seconds=timeout, provider=provider)
