"""Whose turn it is: start-time fair queuing over tenants, first come first served within one.

Pure policy, without a clock. Each tenant has a virtual time at which its next request starts; the earliest goes first,
and each start moves the tenant on by its size over its weight (Goyal, Vin and Cheng 1996). A tenant that comes back
after a pause joins at the present virtual time: it neither saves up a claim nor pays for its absence. So a single
interactive call is next in line, however long the batch beside it. When nobody waits any more, all are even.

Calls keep the number they got when they first queued; so a refused call is before everybody else of its tenant when it
comes back.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What the queue needs to know of a call.

    Attributes:
        tenant: on whose behalf.
        weight: its tenant's share, relative to others.
        need: its size, in tokens, is the second of these.
        number: order of first arrival.
        turn: identity of its present stay in the queue; 0 while it is not in it.
    """

    tenant: str
    weight: float
    need: tuple[int, int, int, int]
    number: int
    turn: int


C = TypeVar("C", bound=Queued)


class _Tenant(Generic[C]):
    __slots__ = ("calls", "gone", "listed", "name", "tag", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.tag = 0.0
        self.listed: float | None = None  # the tag under which it stands in the heap of tenants
        self.calls: list[tuple[int, int, C]] = []
        self.waiting = 0
        self.gone = 0


class FairQueue(Generic[C]):
    """The calls that wait, of all tenants; ``size`` is how many."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant[C]] = {}
        self._order: list[tuple[float, int, _Tenant[C]]] = []
        self._virtual = 0.0
        self._latest = 0.0  # the furthest that any tenant has got
        self._stamp = 0
        self.size = 0
        self._prune_at = 64

    def push(self, call: C, turn: int) -> None:
        """``call`` waits from now on; ``turn`` is a number that was never used before."""
        tenant = self._tenant(call.tenant)
        call.turn = turn
        heappush(tenant.calls, (call.number, turn, call))
        tenant.waiting += 1
        self.size += 1
        if tenant.waiting == 1:
            tenant.tag = max(tenant.tag, self._virtual)
            self._list(tenant)

    def head(self) -> C:
        """The call whose turn it is. Raises IndexError if nobody waits."""
        return self._first().calls[0][2]

    def pop(self, call: C) -> None:
        """The head, ``call``, starts: its tenant pays its size."""
        tenant = self._tenants[call.tenant]
        heappop(tenant.calls)
        self._left(call, tenant)
        self._virtual = max(self._virtual, tenant.tag)
        tenant.tag += call.need[1] / call.weight
        self._latest = max(self._latest, tenant.tag)
        if not self.size:
            self._virtual = self._latest

    def pass_by(self, call: C) -> None:
        """``call`` starts without having queued, because nobody waits: it pays all the same."""
        tenant = self._tenants.get(call.tenant) or self._tenant(call.tenant)
        self._latest += call.need[1] / call.weight
        self._virtual = tenant.tag = self._latest

    def drop(self, call: C) -> None:
        """``call`` stops waiting."""
        tenant = self._tenants[call.tenant]
        self._left(call, tenant)
        tenant.gone += 1
        if tenant.gone > 32 and tenant.gone > tenant.waiting:
            tenant.calls = [entry for entry in tenant.calls if entry[2].turn == entry[1]]
            heapify(tenant.calls)
            tenant.gone = 0

    def correct(self, call: C, size: float) -> None:
        """The request that started with ``call.need`` turned out to be ``size``."""
        tenant = self._tenants.get(call.tenant)
        if tenant is None:
            return
        tenant.tag += (size - call.need[1]) / call.weight
        if tenant.waiting and tenant.listed is not None and tenant.tag < tenant.listed:
            self._list(tenant)

    def tenants(self) -> dict[str, int]:
        """How many calls wait, for each tenant that has any."""
        return {tenant.name: tenant.waiting for tenant in self._tenants.values() if tenant.waiting}

    def calls(self) -> list[C]:
        """Every call that waits, in no particular order."""
        return [entry[2] for tenant in self._tenants.values() for entry in tenant.calls if entry[2].turn == entry[1]]

    # -- within ------------------------------------------------------------------------------------------------------

    def _tenant(self, name: str) -> _Tenant[C]:
        tenant = self._tenants.get(name)
        if tenant is None:
            if len(self._tenants) >= self._prune_at:
                self._prune()
            tenant = self._tenants[name] = _Tenant(name)
        return tenant

    def _prune(self) -> None:
        """Forget idle tenants that owe nothing: they would rejoin at the present virtual time anyway."""
        self._tenants = {
            name: tenant for name, tenant in self._tenants.items() if tenant.waiting or tenant.tag > self._virtual
        }
        self._prune_at = max(64, 2 * len(self._tenants))

    def _left(self, call: C, tenant: _Tenant[C]) -> None:
        call.turn = 0
        tenant.waiting -= 1
        self.size -= 1
        if not tenant.waiting:
            tenant.listed = None
            tenant.calls.clear()
            tenant.gone = 0

    def _list(self, tenant: _Tenant[C]) -> None:
        self._stamp += 1
        tenant.listed = tenant.tag
        heappush(self._order, (tenant.tag, self._stamp, tenant))

    def _first(self) -> _Tenant[C]:
        order = self._order
        while True:
            tag, _, tenant = order[0]
            if tenant.listed != tag:
                heappop(order)  # an older entry of it, or it has nobody waiting
            elif tenant.tag > tag:
                heappop(order)  # it has paid since
                self._list(tenant)
            else:
                calls = tenant.calls
                while calls[0][2].turn != calls[0][1]:
                    heappop(calls)
                    tenant.gone -= 1
                return tenant
