"""The async shell around the scheduler: the real clock, waiting tasks, threads. The only file of this room that awaits.

A `Limiter` may be shared by engines on several event loops and threads. Its state is under one short lock. Every waiter
is woken on its own loop; there is no polling, and no task but the callers' own.

Whatever gives something back (`settle`, `refund`, a waiter's cancellation) may be called from any thread, and even from
a garbage collection that strikes while this very thread holds the lock: it is then left to the holder.
"""

# ruff: noqa: SLF001 -- Limiter and Ticket are two faces of one thing

from __future__ import annotations

import random
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from ..loops import Loop, LoopClosed, Waiter, running
from .call import HELD, WAITING, Call, LimiterState
from .core import Core
from .limiter_bells import Bell, Bells
from .settings import check, check_weight, stricter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import RetryKind
    from ..limits import Cost, Limits, RateHeaders


class Ticket(Call):
    """One call's place at a `Limiter`, through all its attempts. See `Limiter.ticket`.

    Use: ``await acquire()``; send; then exactly one of `settle` (served), `refund` (not served) or `refuse` (failed
    before its first token; True: ``acquire()`` again). All three do nothing if no slot is held.
    """

    __slots__ = ("_bell", "_limiter", "_waiter")

    def __init__(self, limiter: Limiter, cost: Cost, *, tenant: str, weight: float, max_retries: int | None) -> None:
        super().__init__(cost, tenant=tenant, weight=weight, max_retries=max_retries)
        self._limiter = limiter
        self._waiter: Waiter | None = None
        self._bell: Bell | None = None

    @property
    def bounded(self) -> bool:
        """Whether somebody said how often to try again."""
        return self.max_retries is not None or self._limiter.limits.max_retries is not None

    @property
    def first_contact(self) -> bool:
        """Whether nothing that went through this limiter has been served yet."""
        return self._limiter._core.accepts == 0

    async def acquire(self) -> None:
        """Wait until the request may be sent, and take its slot. Does not suspend if it may be sent at once.

        Cancelling it is safe at any moment: a slot granted at the same time goes to the next in line.

        Raises:
            QuotaExceededError: a daily quota is used up by the provider's own count; ``retry_after`` says for how long.
            RuntimeError: the ticket holds a slot already.
        """
        limiter = self._limiter
        if limiter._try_now(self):
            return
        try:
            if limiter._park(self, running()):
                return
            assert self._waiter is not None
            await self._waiter.wait()
        except BaseException:
            limiter._submit(limiter._withdraw, self)
            raise
        finally:
            self._waiter = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def on_headers(self, rate: RateHeaders) -> None:
        """The head of a response without an error arrived: the clock by which window, pace and buckets are fed."""
        limiter = self._limiter
        limiter._submit(limiter._core.accepted, self, rate)

    def settle(
        self, *, input_tokens: int | None = None, output_tokens: int | None = None, cached_tokens: int = 0
    ) -> None:
        """The attempt is over and was served, if only in part: done, early exit, error after the first token.

        Args:
            input_tokens: prompt tokens that were charged, the cached ones included; None if unknown.
            output_tokens: tokens that were generated; None if unknown.
            cached_tokens: the part of the prompt that does not count.
        """
        limiter = self._limiter
        limiter._submit(limiter._core.settle, self, input_tokens, output_tokens, cached_tokens)

    def refund(self, *, sent: bool = True) -> None:
        """The attempt is over and was not served: cancelled before the response's head, or never sent.

        The tokens come back. The request itself comes back only with ``sent=False``: a provider counts a request that
        has reached it, answered or not, and a limit on requests must hold even where every caller loses patience.
        """
        limiter = self._limiter
        limiter._submit(limiter._core.refund, self, sent)

    def refuse(self, kind: RetryKind, *, retry_after: float | None = None, rate: RateHeaders | None = None) -> bool:
        """The attempt failed before its first token; the slot is given back.

        Args:
            kind: what the failure says about trying again.
            retry_after: seconds that the provider asks for.
            rate: rate-limit headers of the refusal.

        Returns:
            True: call `acquire` again; it goes to the front of its tenant's queue, behind the shared gate. False:
            attempts or retry budget are spent, or the provider asks for more than a minute: raise the error.
        """
        return self._limiter._refuse(self, kind, retry_after, rate)


class Limiter:
    """One scheduler for everything that shares a key: buckets, adaptive concurrency, pace, fairness, retries.

    Args:
        limits: what is known beforehand; what is None is learned, or not limited.
        name: for humans, in `snapshot`.
        clock: monotonic seconds.
        rng: source of the jitter.

    Raises:
        ConfigError: a limit that cannot be kept.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        check(limits)
        self.limits = limits
        self.name = name
        self._clock = clock
        self._core = Core(limits, rng or random.Random(), clock())  # noqa: S311 -- jitter, not a secret
        self._lock = threading.Lock()
        self._late: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._bells = Bells(self._ring, clock)

    def ticket(self, cost: Cost, *, tenant: str = "", weight: float = 1.0, max_retries: int | None = None) -> Ticket:
        """A place for one call; nothing is taken yet.

        Args:
            cost: what the request is expected to take from the buckets.
            tenant: on whose behalf; tenants share the limiter fairly, by tokens.
            weight: the tenant's share relative to others.
            max_retries: further attempts after the first; None for the limiter's own setting.

        Raises:
            ConfigError: ``weight`` is not above 0.
        """
        if weight != 1.0:
            check_weight(weight)
        return Ticket(self, cost, tenant=tenant, weight=weight, max_retries=max_retries)

    def snapshot(self) -> LimiterState:
        """The limiter as it is now: window, in flight, waiting, buckets, counts."""
        self._lock.acquire()
        try:
            return self._core.state(self.name, self._clock())
        finally:
            self._finish()

    def tighten(self, limits: Limits) -> None:
        """Take over what is stricter in ``limits`` than what holds now.

        Raises:
            ConfigError: a limit that cannot be kept.
        """
        check(limits)
        self._lock.acquire()
        try:
            self.limits = stricter(self.limits, limits)
            self._core.tighten(self.limits, self._clock())
        finally:
            self._finish()

    # -- what tickets call -------------------------------------------------------------------------------------------

    def _try_now(self, ticket: Ticket) -> bool:
        with self._lock:
            granted = self._core.try_now(ticket, self._clock())
        if self._late:
            self._pump()
        return granted

    def _park(self, ticket: Ticket, loop: Loop) -> bool:
        """Queue ``ticket`` for a task of ``loop``. Returns whether it was granted meanwhile."""
        ticket._waiter = loop.waiter()
        self._lock.acquire()
        try:
            self._core.offer(ticket, self._clock())
            ticket._bell = bell = self._bells.of(loop)
            bell.waiters += 1
        finally:
            self._finish()
        return ticket.state is HELD

    def _refuse(self, ticket: Ticket, kind: RetryKind, retry_after: float | None, rate: RateHeaders | None) -> bool:
        self._lock.acquire()
        try:
            return self._core.refuse(ticket, kind, retry_after, rate, self._clock())
        finally:
            self._finish()

    def _submit(self, change: Callable[..., object], *args: object) -> None:
        """Have ``change(*args, now)`` made, here or by whoever holds the lock."""
        if not self._lock.acquire(blocking=False):
            self._late.append((change, args))
            self._pump()
            return
        try:
            change(*args, self._clock())
        finally:
            if self._core.waiting:
                self._finish()
            else:
                self._lock.release()
        if self._late:
            self._pump()

    def _pump(self) -> None:
        if self._lock.acquire(blocking=False):
            self._finish()

    # -- under the lock ----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Called with the lock held: make late changes, grant what can be granted, let the lock go, wake."""
        while True:
            granted: list[Call] = []
            bells: list[Bell] = []
            try:
                now = self._clock()
                while self._late:
                    change, args = self._late.popleft()
                    change(*args, now)
                if self._core.waiting:
                    granted = self._core.dispatch(now)
                    bells = self._set_bells(granted)
            finally:
                self._lock.release()
            for call in granted:
                self._deliver(call)
            for bell in bells:
                self._set(bell)
            # Whoever could not get the lock meanwhile has left the change to us.
            if not self._late or not self._lock.acquire(blocking=False):
                return

    def _set_bells(self, granted: list[Call]) -> list[Bell]:
        """The bells that must be set anew, now that the ``granted`` wait no more."""
        for call in granted:
            assert isinstance(call, Ticket)
            assert call._bell is not None
            call._bell.waiters -= 1
        return self._bells.too_late(self._core.next_wakeup)

    def _withdraw(self, ticket: Ticket, now: float) -> None:
        if ticket.state is WAITING and ticket._bell is not None:
            ticket._bell.waiters -= 1
        self._core.withdraw(ticket, now)

    def _bury(self, bell: Bell, now: float) -> None:
        """The loop of ``bell`` ended under its waiters: nobody is left to use what they would get."""
        for call in self._core.calls():
            if isinstance(call, Ticket) and call._bell is bell:
                self._withdraw(call, now)
        self._bells.forget(bell)

    # -- outside of it -----------------------------------------------------------------------------------------------

    def _deliver(self, call: Call) -> None:
        assert isinstance(call, Ticket)
        bell, waiter = call._bell, call._waiter
        if bell is None or waiter is None:
            return  # it is not parked yet: it will see for itself
        try:
            bell.on_its_loop(waiter.wake)
        except RuntimeError:  # its loop has ended: the slot goes to the next in line
            self._late.append((self._withdraw, (call,)))

    def _set(self, bell: Bell) -> None:
        try:
            self._bells.set(bell)
        except LoopClosed:
            self._late.append((self._bury, (bell,)))

    def _ring(self) -> None:
        self._lock.acquire()
        self._finish()


_shared: weakref.WeakValueDictionary[tuple[object, ...], Limiter] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


def shared_limiter(key: tuple[object, ...], limits: Limits, *, name: str = "") -> Limiter:
    """The process's limiter for ``key``: the same object as long as anybody holds it.

    Where two engines set different limits for one key, the stricter value of each holds, for both and from then on: a
    provider counts them together, so any other choice would break a limit that somebody has set. ``max_retries`` and
    ``start_concurrency`` stay those of the first (`Limiter.ticket` takes a call's own ``max_retries``).

    Raises:
        ConfigError: a limit that cannot be kept.
    """
    with _shared_lock:
        found = _shared.get(key)
        if found is None:
            found = _shared[key] = Limiter(limits, name=name)
            return found
    if limits != found.limits:
        found.tighten(limits)
    return found
