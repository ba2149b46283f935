"""A race for the first event: who is late gets company, who is first answers, who loses is cancelled."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from ..errors import AsyncInferError
from .relay import Relay, first_events, worth_another

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .call import Call

_log = logging.getLogger("asyncinfer")


class _Race:
    """What the runners share."""

    def __init__(self, calls: Sequence[Call], after: float) -> None:
        self.waiting = list(calls)
        self.after = after
        self.running = 0
        self.winner: Relay | None = None
        self.failure: AsyncInferError | None = None
        self.fatal = False
        self.failed = anyio.Event()


async def race(calls: Sequence[Call], after: float) -> Relay:
    """Start the calls in order, the next one when ``after`` seconds passed without an event or when all that run have
    failed; the first event wins.

    Raises:
        AsyncInferError: all failed; the last one's error.
    """
    state = _Race(calls, after)
    async with anyio.create_task_group() as group:
        while state.waiting and state.winner is None and not state.fatal:
            state.running += 1
            group.start_soon(_run, state, state.waiting.pop(0), group.cancel_scope)
            with anyio.move_on_after(after if state.waiting else None):
                while state.running and state.winner is None and not state.fatal:
                    await state.failed.wait()
                    state.failed = anyio.Event()
    if state.winner is not None:
        return state.winner
    assert state.failure is not None
    raise state.failure


async def _run(state: _Race, call: Call, scope: anyio.CancelScope) -> None:
    try:
        relay = Relay(call, await first_events(call))
    except AsyncInferError as error:
        error.__cause__ = error.__cause__ or state.failure
        state.failure = error
        state.running -= 1
        state.fatal = not worth_another(error)
        _log.warning("an engine cannot answer: %s", error)
        if state.fatal:
            scope.cancel()
        state.failed.set()
        return
    if state.winner is None:
        state.winner = relay
        scope.cancel()
    else:
        relay.abort()
