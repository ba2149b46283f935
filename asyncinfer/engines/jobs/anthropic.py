"""Anthropic's Message Batches: the rows in one JSON document, the answers as JSONL when all have ended.

Format: platform.claude.com, "Message Batches". The counts stay at zero until the batch has ended; the answers come in
any order; an expired or cancelled batch has those that were finished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ...errors import APIError, ProtocolError, RetryKind
from ...wire.status import error_from_object
from .parts import Framing, Order, Part, Row
from .status import BatchState, PartStatus

if TYPE_CHECKING:
    from ...wire.protocol import WireRequest
    from .door import Door
    from .lines import Lines
    from .spool import Spool

_PATH = "/messages/batches"
_STATES = {"in_progress": BatchState.RUNNING, "canceling": BatchState.CANCELLING, "ended": BatchState.COMPLETED}


class _Result(msgspec.Struct):
    type: str = ""
    message: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result


_decode = msgspec.json.Decoder(_Line).decode


class AnthropicFlavour:
    """See `flavour.Flavour`."""

    framing = Framing(100_000, 256_000_000, b'{"requests":[', b",", b"]}")

    def line(self, row_id: str, wire: WireRequest) -> bytes:
        return msgspec.json.encode({"custom_id": row_id, "params": msgspec.Raw(wire.body)})

    async def create(self, door: Door, spool: Spool, order: Order) -> tuple[str, dict[str, str]]:  # noqa: ARG002
        made = await door.upload(_PATH, spool.body(), "application/json", once=True)
        found = made.get("id")
        if not isinstance(found, str) or not found:
            raise ProtocolError("the provider's answer to a new batch has no id")
        return found, {}

    async def look(self, door: Door, part: Part) -> PartStatus:
        batch = await door.get(f"{_PATH}/{quote(part.id, safe='')}")
        said = str(batch.get("processing_status") or "")
        given = batch.get("request_counts")
        counts = {name: n for name, n in given.items() if isinstance(n, int)} if isinstance(given, dict) else {}
        known = _STATES.get(said)
        if known is None:
            known = BatchState.COMPLETED if batch.get("ended_at") else BatchState.RUNNING
        if known.ended and counts.get("expired"):
            known = BatchState.EXPIRED
        elif known.ended and counts.get("canceled"):
            known = BatchState.CANCELLED
        # The address of the results that the provider names is this one; made here, it is sure to be its own host.
        outputs = (f"{_PATH}/{quote(part.id, safe='')}/results",) if known.ended else ()
        return PartStatus(
            id=part.id,
            state=known,
            said=said,
            total=part.rows,
            completed=counts.get("succeeded", 0),
            failed=sum(counts.get(name, 0) for name in ("errored", "canceled", "expired")),
            outputs=outputs,
        )

    async def cancel(self, door: Door, part: Part) -> None:
        await door.post(f"{_PATH}/{quote(part.id, safe='')}/cancel")

    async def lines(self, door: Door, output: str) -> Lines:
        return await door.lines(output)

    def read(self, line: bytes) -> Row | None:
        row = _decode(line)
        result = row.result
        if result.type == "succeeded":
            return Row(row.custom_id, body=bytes(result.message))
        if result.type == "errored":
            return Row(row.custom_id, error=error_from_object(result.error))
        what = result.type or "without a result"
        return Row(
            row.custom_id, error=APIError(f"the row was {what}", code=result.type or None, retry=RetryKind.TRANSIENT)
        )
