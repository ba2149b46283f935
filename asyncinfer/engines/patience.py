"""When to stop asking the same engine again, although its limiter would.

Rule: pure policy over an error and what was tried so far; the limiter still learns from every refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ConnectError, ConnectTimeout, FirstTokenTimeout

if TYPE_CHECKING:
    from ..errors import AsyncInferError
    from ..scheduling.limiter import Ticket

WAIT_WITH_SPARE = 2.0
"""Seconds that a provider may ask to wait for before another engine, where one stands by, is asked instead."""
_ATTEMPTS_WITH_SPARE = 2


def in_vain(error: AsyncInferError, ticket: Ticket, *, spare: bool) -> bool:
    """Whether trying again mostly costs time or money.

    Args:
        error: why the last attempt failed, before its first token.
        ticket: the call's; where the user set a number of retries, that number holds, but for what `spare` says.
        spare: another engine stands by. Then an engine that is silent, unreachable or asks for a long wait is not
            asked again at all, and one that fails otherwise only once.

    With nobody else to ask: a silent model has been at work, and may be paid for, each time. Where nobody ever
    answered, the address is wrong or the server is not running, and whoever waits should be told; where somebody has,
    it is an outage to sit out.
    """
    unreachable = isinstance(error, (ConnectError, ConnectTimeout))
    silent = isinstance(error, FirstTokenTimeout)
    if spare and (unreachable or silent or (error.retry_after or 0.0) > WAIT_WITH_SPARE):
        return True
    if ticket.bounded:
        return False
    if spare:
        return ticket.attempts >= _ATTEMPTS_WITH_SPARE
    if silent:
        return ticket.attempts >= 2
    return unreachable and ticket.first_contact and ticket.attempts >= 3
