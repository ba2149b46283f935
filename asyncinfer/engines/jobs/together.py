"""Together's batch API: OpenAI's, but for the way of the file, which goes to a signed URL that a redirect names.

Format: docs.together.ai, "Batch inference"; the upload as Together's own SDK does it. There are no counts: how far a
batch is, is an estimate from its percentage, in which failed rows count as done.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ...errors import ProtocolError
from .door import may_repeat
from .openai import OpenAIFlavour, listed
from .parts import Framing

if TYPE_CHECKING:
    from ...wire.protocol import WireRequest
    from .door import Answer, Door
    from .parts import Order, Part
    from .spool import Spool


class TogetherFlavour(OpenAIFlavour):
    """See `flavour.Flavour`."""

    framing = Framing(rows=50_000, size=100_000_000)

    def line(self, row_id: str, wire: WireRequest) -> bytes:
        return msgspec.json.encode({"custom_id": row_id, "body": msgspec.Raw(wire.body)})

    async def upload(self, door: Door, spool: Spool, order: Order) -> str:
        content_type, form = _form({"purpose": "batch-api", "file_name": _name(order), "file_type": "jsonl"})

        async def ask() -> Answer:
            return await door.once("POST", "/files", form, {"content-type": content_type}, follow=False)

        told = (await door.persist(ask, may_repeat)).headers
        target, file = told.get("location"), told.get("x-together-file-id")
        if not file or not target or not target.startswith(("http://", "https://")):
            raise ProtocolError("the provider's answer to an upload does not say where the file goes")
        body = spool.body()
        await door.persist(lambda: door.once("PUT", target, body), may_repeat)
        await door.post(f"/files/{quote(file, safe='')}/preprocess")
        return file

    def notes(self, order: Order) -> dict[str, Any]:  # noqa: ARG002
        return {}

    async def earlier(self, door: Door, order: Order) -> dict[str, Any] | None:
        files = {str(row.get("id")) for row in await listed(door, "/files") if row.get("filename") == _name(order)}
        return await self.working_on(door, files) if files else None

    def counts(self, batch: dict[str, Any], part: Part) -> tuple[int, int]:
        progress = batch.get("progress")
        share = min(max(progress, 0.0), 100.0) / 100 if isinstance(progress, int | float) else 0.0
        return int(part.rows * share), 0


def _name(order: Order) -> str:
    """The name of the file: the one thing that the provider keeps for us."""
    return f"asyncinfer-{order.mark}.jsonl"


def _form(fields: dict[str, str]) -> tuple[str, bytes]:
    boundary = f"asyncinfer-{secrets.token_hex(16)}"
    parts = [f'--{boundary}\r\ncontent-disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    return f"multipart/form-data; boundary={boundary}", f"{''.join(parts)}--{boundary}--\r\n".encode()
