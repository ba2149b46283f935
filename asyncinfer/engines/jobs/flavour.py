"""The seam between jobs and the batch API of a provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...wire.protocol import WireRequest
    from .door import Door
    from .lines import Lines
    from .parts import Framing, Order, Part, Row
    from .spool import Spool
    from .status import PartStatus


class Flavour(Protocol):
    """One batch API. Every method raises `AsyncInferError`."""

    framing: Framing

    def line(self, row_id: str, wire: WireRequest) -> bytes:
        """A row as it lies in the file, without what stands between rows. ``row_id`` is ``[a-z0-9-]{1,64}``."""
        ...

    async def create(self, door: Door, spool: Spool, order: Order) -> tuple[str, dict[str, str]]:
        """Send a file and start a job on it; its id, and what else to remember. Never starts two."""
        ...

    async def look(self, door: Door, part: Part) -> PartStatus:
        """How far a job is."""
        ...

    async def cancel(self, door: Door, part: Part) -> None:
        """Ask for a job to stop; it goes on for a while."""
        ...

    async def lines(self, door: Door, output: str) -> Lines:
        """One of the result files that `look` found."""
        ...

    def read(self, line: bytes) -> Row | None:
        """A line of a result file; None for one that is no row. Raises ValueError (msgspec's errors are) for what is
        not the format."""
        ...
