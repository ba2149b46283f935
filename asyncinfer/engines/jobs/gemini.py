"""Gemini's batches at Google's developer API: a JSONL file up, an operation to look at, a JSONL file down.

Format: ai.google.dev, "Batch API" and "Files"; the upload is Google's resumable protocol. Requests can also stand in
the call that makes a batch, up to 20 MB; the file does for every size, and keeps its rows' keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ...errors import AsyncInferError, ProtocolError, ServerError, TransportError
from ...wire.gemini.refusals import refusal_in_stream
from .door import may_repeat
from .parts import Framing, Order, Part, Row
from .status import BatchState, PartStatus

if TYPE_CHECKING:
    from ...wire.protocol import WireRequest
    from .door import Answer, Door
    from .lines import Lines
    from .spool import Spool

_STATES = {
    "QUEUED": BatchState.QUEUED,
    "PENDING": BatchState.QUEUED,
    "RUNNING": BatchState.RUNNING,
    "CANCELLING": BatchState.CANCELLING,
    "SUCCEEDED": BatchState.COMPLETED,
    "PARTIALLY_SUCCEEDED": BatchState.COMPLETED,
    "FAILED": BatchState.FAILED,
    "CANCELLED": BatchState.CANCELLED,
    "EXPIRED": BatchState.EXPIRED,
}
"""By what follows ``BATCH_STATE_`` or ``JOB_STATE_``."""
_CODES = {
    1: (499, "CANCELLED"),
    2: (500, "UNKNOWN"),
    3: (400, "INVALID_ARGUMENT"),
    4: (504, "DEADLINE_EXCEEDED"),
    5: (404, "NOT_FOUND"),
    6: (409, "ALREADY_EXISTS"),
    7: (403, "PERMISSION_DENIED"),
    8: (429, "RESOURCE_EXHAUSTED"),
    9: (400, "FAILED_PRECONDITION"),
    10: (409, "ABORTED"),
    11: (400, "OUT_OF_RANGE"),
    12: (501, "UNIMPLEMENTED"),
    13: (500, "INTERNAL"),
    14: (503, "UNAVAILABLE"),
    15: (500, "DATA_LOSS"),
    16: (401, "UNAUTHENTICATED"),
}
"""``google.rpc.Code``, which an error inside a batch has in place of an HTTP status."""
_CANCELLED = 1
_COMMAND, _OFFSET, _STATUS = "x-goog-upload-command", "x-goog-upload-offset", "x-goog-upload-status"


class _Line(msgspec.Struct):
    key: str = ""
    response: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class GeminiFlavour:
    """See `flavour.Flavour`. Google names no most of rows, only of bytes."""

    framing = Framing(rows=1 << 40, size=2_000_000_000)

    def line(self, row_id: str, wire: WireRequest) -> bytes:
        return msgspec.json.encode({"key": row_id, "request": msgspec.Raw(wire.body)})

    async def create(self, door: Door, spool: Spool, order: Order) -> tuple[str, dict[str, str]]:
        if order.again:
            before = await _find(door, order.mark)
            if before is not None:
                return _name(before), {}
        file = await _upload(door, spool, order.mark)
        path = order.path.partition(":generateContent")[0] + ":batchGenerateContent"
        asked = {"batch": {"displayName": order.mark, "inputConfig": {"fileName": file}}}
        try:
            made = await door.post(path, asked, once=True)
        except (TransportError, ServerError):
            # It may have been created all the same: starting a second one would be paid for twice.
            found = await _find(door, order.mark)
            if found is None:
                raise
            made = found
        return _name(made), {"input_file": file}

    async def look(self, door: Door, part: Part) -> PartStatus:
        operation = await door.get(f"/{quote(part.id, safe='/')}")
        batch, error = _object(operation.get("metadata")), _object(operation.get("error"))
        said = str(batch.get("state") or "")
        known = _STATES.get(said.removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_"))
        if known is None:  # a new word, or none: the operation tells whether it has ended
            known = BatchState.RUNNING
            if operation.get("done"):
                known = BatchState.FAILED if error else BatchState.COMPLETED
                known = BatchState.CANCELLED if error.get("code") == _CANCELLED else known
        output = _object(batch.get("output")) or _object(operation.get("response"))
        file = output.get("responsesFile") if known.ended else None
        outputs: tuple[str, ...] = ()
        if isinstance(file, str) and file:
            name = file if file.startswith("files/") else f"files/{file}"
            outputs = (door.beside("/download", f"/{quote(name, safe='/')}:download?alt=media"),)
        counts = _object(batch.get("batchStats"))
        message = error.get("message")
        return PartStatus(
            id=part.id,
            state=known,
            said=said,
            total=part.rows,
            completed=_count(counts.get("successfulRequestCount")),
            failed=_count(counts.get("failedRequestCount")),
            outputs=outputs,
            reason=message if isinstance(message, str) and message and known is BatchState.FAILED else None,
        )

    async def cancel(self, door: Door, part: Part) -> None:
        await door.post(f"/{quote(part.id, safe='/')}:cancel")

    async def lines(self, door: Door, output: str) -> Lines:
        return await door.lines(output)

    def read(self, line: bytes) -> Row | None:
        row = _decode(line)
        if row.error is not None or not row.response:
            return Row(row.key, error=_error(row.error or {"message": "no answer, no explanation"}))
        return Row(row.key, body=bytes(row.response))


async def _upload(door: Door, spool: Spool, name: str) -> str:
    """Send the file; its name there (``files/...``). A second session where the end of the first one was lost."""
    for _ in range(2):
        answer = await _send(door, spool, await _session(door, spool, name))
        file = _object(door.object_of(answer, "/files").get("file")).get("name")
        if isinstance(file, str) and file:
            return file
    raise ProtocolError("the provider's answer to an upload has no name of a file")


async def _session(door: Door, spool: Spool, name: str) -> str:
    """Begin an upload; the URL that it goes to."""
    spool.seal()
    headers = {
        "content-type": "application/json",
        "x-goog-upload-protocol": "resumable",
        _COMMAND: "start",
        "x-goog-upload-header-content-length": str(spool.size),
        "x-goog-upload-header-content-type": "application/jsonl",
    }
    body = msgspec.json.encode({"file": {"displayName": name}})
    path = door.beside("/upload", "/files")
    answer = await door.persist(lambda: door.once("POST", path, body, headers), may_repeat)
    url = answer.headers.get("x-goog-upload-url")
    if not url or not url.startswith(("https://", "http://")):
        raise ProtocolError("the provider's answer to a new upload has no URL to send it to")
    return url


async def _send(door: Door, spool: Spool, url: str) -> Answer:
    """Send the file, all in one request; after a fault, what the other side has not received."""
    tried = False

    async def attempt() -> Answer:
        nonlocal tried
        start = 0
        if tried:
            asked = await door.once("POST", url, b"", {_COMMAND: "query"})
            if asked.headers.get(_STATUS) == "final":
                return asked
            start = min(_count(asked.headers.get("x-goog-upload-size-received")), spool.size)
        tried = True
        headers = {_COMMAND: "upload, finalize", _OFFSET: str(start)}
        answer = await door.once("POST", url, spool.body(start), headers)
        if answer.headers.get(_STATUS, "final") != "final":
            raise TransportError("the provider did not take the whole upload")
        return answer

    return await door.persist(attempt, may_repeat)


def _name(batch: dict[str, Any]) -> str:
    name = batch.get("name")
    if not isinstance(name, str) or not name.startswith("batches/"):
        raise ProtocolError("the provider's answer to a new batch has no name")
    return name


async def _find(door: Door, name: str) -> dict[str, Any] | None:
    """The batch of that display name, among the newest; not one that came to nothing."""
    try:
        listed = await door.get("/batches?pageSize=100")
    except AsyncInferError:
        return None
    rows = listed.get("operations")
    for row in rows if isinstance(rows, list) else ():
        batch = _object(_object(row).get("metadata"))
        if batch.get("displayName") == name and not str(batch.get("state")).endswith(("_FAILED", "_CANCELLED")):
            return _object(row)
    return None


def _error(status: Any) -> AsyncInferError:
    """The typed error of a ``google.rpc.Status``."""
    code = status.get("code") if isinstance(status, dict) else None
    if isinstance(code, int) and code in _CODES:
        http, word = _CODES[code]
        status = {"status": word, **status, "code": http}
    return refusal_in_stream({"error": status})


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    """A number, which Google writes as text."""
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
