"""OpenAI's batch API, which Groq, Parasail and many gateways speak as well: a JSONL file, a job on it, two files back.

Format: developers.openai.com, "Batch API"; the answers come in any order, and those of an expired or cancelled job are
there too. Rows that failed stand in a file of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ...errors import AsyncInferError, ProtocolError, ServerError, TransportError
from ...wire.status import error_from_object, error_from_response
from .door import may_repeat
from .parts import Framing, Order, Part, Row
from .status import BatchState, PartStatus

if TYPE_CHECKING:
    from ...wire.protocol import WireRequest
    from .door import Door
    from .lines import Lines
    from .spool import Spool

_STATES = {
    "validating": BatchState.QUEUED,
    "in_progress": BatchState.RUNNING,
    "finalizing": BatchState.RUNNING,
    "cancelling": BatchState.CANCELLING,
    "completed": BatchState.COMPLETED,
    "failed": BatchState.FAILED,
    "expired": BatchState.EXPIRED,
    "cancelled": BatchState.CANCELLED,
    "canceled": BatchState.CANCELLED,
}
_ENDS = {"completed_at": "completed", "failed_at": "failed", "expired_at": "expired", "cancelled_at": "cancelled"}
_MARK = "asyncinfer_part"
_NO_USE = {BatchState.FAILED, BatchState.CANCELLED}


class _Response(msgspec.Struct):
    status_code: int = 200
    request_id: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"")


class _Line(msgspec.Struct):
    custom_id: str = ""
    response: _Response | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class OpenAIFlavour:
    """See `flavour.Flavour`. Providers whose API is this one but for the way a file gets there build on it."""

    framing = Framing(rows=50_000, size=200_000_000)

    def line(self, row_id: str, wire: WireRequest) -> bytes:
        path = f"/v1{wire.path}"
        return msgspec.json.encode({"custom_id": row_id, "method": "POST", "url": path, "body": msgspec.Raw(wire.body)})

    async def create(self, door: Door, spool: Spool, order: Order) -> tuple[str, dict[str, str]]:
        if order.again:
            before = await self.earlier(door, order)
            if before is not None:
                return name_of(before, "an earlier batch"), {"input_file": str(before.get("input_file_id"))}
        file = await self.upload(door, spool, order)
        asked = {
            "input_file_id": file,
            "endpoint": f"/v1{order.path}",
            "completion_window": order.window or "24h",
            **self.notes(order),
        }
        try:
            made = await door.post("/batches", asked, once=True)
        except (TransportError, ServerError):
            # It may have been created all the same: starting a second one would be paid for twice.
            found = await self.working_on(door, {file})
            if found is None:
                raise
            made = found
        wrapped = made.get("job")
        return name_of(wrapped if isinstance(wrapped, dict) else made, "a new batch"), {"input_file": file}

    async def upload(self, door: Door, spool: Spool, order: Order) -> str:  # noqa: ARG002
        """Send the file; its id."""
        content_type, form = spool.form({"purpose": "batch"}, "batch.jsonl")
        return name_of(await door.upload("/files", form, content_type), "an upload")

    def notes(self, order: Order) -> dict[str, Any]:
        """What is written on the batch."""
        return {"metadata": {**order.labels, _MARK: order.mark}}

    async def earlier(self, door: Door, order: Order) -> dict[str, Any] | None:
        """The batch that an earlier attempt of the same order made, if there is one."""
        for row in await listed(door, "/batches?limit=100"):
            notes = row.get("metadata")
            if isinstance(notes, dict) and notes.get(_MARK) == order.mark and _state(row) not in _NO_USE:
                return row
        return None

    async def working_on(self, door: Door, files: set[str]) -> dict[str, Any] | None:
        """The batch that works on one of these files, among the newest."""
        for row in await listed(door, "/batches?limit=100"):
            if row.get("input_file_id") in files and _state(row) not in _NO_USE:
                return row
        return None

    async def look(self, door: Door, part: Part) -> PartStatus:
        batch = await door.get(f"/batches/{quote(part.id, safe='')}")
        completed, failed = self.counts(batch, part)
        files = [batch.get(name) for name in ("output_file_id", "error_file_id")]
        return PartStatus(
            id=part.id,
            state=_state(batch),
            said=str(batch.get("status") or ""),
            total=part.rows,
            completed=completed,
            failed=failed,
            outputs=tuple(f"/files/{quote(str(file), safe='')}/content" for file in files if file),
            reason=_reason(batch.get("errors") or batch.get("error")),
        )

    def counts(self, batch: dict[str, Any], part: Part) -> tuple[int, int]:  # noqa: ARG002
        """Rows that are answered, and rows that failed."""
        counts = batch.get("request_counts")
        counts = counts if isinstance(counts, dict) else {}
        return _count(counts.get("completed")), _count(counts.get("failed"))

    async def cancel(self, door: Door, part: Part) -> None:
        await door.post(f"/batches/{quote(part.id, safe='')}/cancel")

    async def lines(self, door: Door, output: str) -> Lines:
        return await door.lines(output)

    def read(self, line: bytes) -> Row | None:
        row = _decode(line)
        response = row.response
        if response is None:
            return Row(row.custom_id, error=error_from_object(row.error or {"message": "no answer, no explanation"}))
        body = bytes(response.body)
        if response.status_code >= 400 or row.error:
            status = response.status_code if response.status_code >= 400 else 500
            error = error_from_response(status, {}, body)
            error.request_id = response.request_id
            return Row(row.custom_id, error=error)
        return Row(row.custom_id, body=body, request_id=response.request_id)


def name_of(answer: dict[str, Any], what: str) -> str:
    """The id in an answer. Raises `ProtocolError` where there is none."""
    found = answer.get("id")
    if not isinstance(found, str) or not found:
        raise ProtocolError(f"the provider's answer to {what} has no id")
    return found


async def listed(door: Door, path: str) -> list[dict[str, Any]]:
    """The objects of a list, in whichever of its two shapes (``{"data": []}``, or bare); none if it cannot be had."""
    try:
        answer = await door.persist(lambda: door.once("GET", path), may_repeat)
        found = msgspec.json.decode(answer.body)
    except (AsyncInferError, msgspec.DecodeError):
        return []
    rows = found.get("data") if isinstance(found, dict) else found
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _state(batch: dict[str, Any]) -> BatchState:
    known = _STATES.get(str(batch.get("status") or "").lower())
    if known is None:  # a new word: the time stamps tell whether it is an end
        known = next((_STATES[word] for name, word in _ENDS.items() if batch.get(name)), BatchState.RUNNING)
    return known


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _reason(errors: Any) -> str | None:
    """Why a whole job failed: its first complaints."""
    if isinstance(errors, str):
        return errors or None
    rows = errors.get("data") if isinstance(errors, dict) else errors
    if not isinstance(rows, list):
        return None
    found = []
    for row in rows[:3]:
        if isinstance(row, dict):
            where = f"line {row['line']}: " if row.get("line") is not None else ""
            found.append(f"{where}{row.get('message') or row.get('code')}")
    return "; ".join(found) or None
