"""Bedrock's model invocation jobs: a JSONL file in S3, a job on it, a folder of results in S3.

Format: docs.aws.amazon.com, "Process multiple prompts with batch inference"; the jobs are of type Converse, so that one
format serves every model. Bedrock takes no fewer than 100 rows (a quota of each model). A job that was stopped, expired
or failed half way leaves what was finished.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ...errors import (
    APIError,
    AsyncInferError,
    BadRequestError,
    PermissionDeniedError,
    ProtocolError,
    ServerError,
    TransportError,
)
from ...transport.aws import CONTROL
from ...wire.bedrock import refusal
from ...wire.status import error_from_response
from .answers import index_of, row_id
from .aws_door import AwsDoor, Key
from .parts import Framing, Order, Part, Row
from .status import BatchState, PartStatus

if TYPE_CHECKING:
    from ...wire.protocol import WireRequest
    from .door import Door
    from .lines import Lines
    from .spool import Spool

_STATES = {
    "Submitted": BatchState.QUEUED,
    "Validating": BatchState.QUEUED,
    "Scheduled": BatchState.QUEUED,
    "InProgress": BatchState.RUNNING,
    "Stopping": BatchState.CANCELLING,
    "Completed": BatchState.COMPLETED,
    "PartiallyCompleted": BatchState.COMPLETED,
    "Failed": BatchState.FAILED,
    "Stopped": BatchState.CANCELLED,
    "Expired": BatchState.EXPIRED,
}
_RECORD = re.compile(r"R(\d{10,})")
_INPUT = "input.jsonl"


class _Line(msgspec.Struct):
    recordId: str = ""  # noqa: N815 -- the service's spelling
    modelOutput: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class BedrockFlavour:
    """See `flavour.Flavour`; the door is an `AwsDoor`."""

    framing = Framing(rows=50_000, size=1_000_000_000, least=100)

    def line(self, row_id: str, wire: WireRequest) -> bytes:
        record = f"R{index_of(row_id):010d}"  # letters and digits only, eleven of them: what the service shows itself
        return msgspec.json.encode({"recordId": record, "modelInput": msgspec.Raw(wire.body)})

    async def create(self, door: Door, spool: Spool, order: Order) -> tuple[str, dict[str, str]]:
        aws = cast("AwsDoor", door)
        folder, name = aws.folder().plus(f"{order.mark}/"), f"asyncinfer-{order.mark}"
        source, target = folder.plus(_INPUT), folder.plus("output/")
        made = await _find(aws, name) if order.again else None
        if made is not None:
            return _remembered(made, source, target)
        hours = aws.hours(order.window)
        asked: dict[str, Any] = {
            "jobName": name,
            "clientRequestToken": order.mark,  # a second request with it makes no second job
            "roleArn": aws.role(),
            "modelId": order.model,
            "modelInvocationType": "Converse",
            "inputDataConfig": {"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": str(source)}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": str(target)}},
            **({"timeoutDurationInHours": hours} if hours else {}),
        }
        await aws.put(source, spool)
        try:
            made = (await aws.call(CONTROL, "create_model_invocation_job", **asked)).get("jobArn")
        except (TransportError, ServerError, BadRequestError) as error:
            if isinstance(error, BadRequestError) and error.code != "ConflictException":
                raise
            made = await _find(aws, name)
            if made is None:
                raise
        if not isinstance(made, str) or not made:
            raise ProtocolError("the provider's answer to a new batch has no ARN")
        return _remembered(made, source, target)

    async def look(self, door: Door, part: Part) -> PartStatus:
        aws = cast("AwsDoor", door)
        job = await aws.call(CONTROL, "get_model_invocation_job", jobIdentifier=part.id)
        said = str(job.get("status") or "")
        known = _STATES.get(said)
        if known is None:  # a new word
            known = BatchState.COMPLETED if job.get("endTime") else BatchState.RUNNING
        outputs: tuple[str, ...] = ()
        completed, failed = job.get("successRecordCount"), job.get("errorRecordCount")
        if known.ended:
            files = await _files(aws, Key.of(part.details["output"]), known)
            outputs = tuple(str(file) for file in files if file.key.endswith(".jsonl.out"))
            if completed is None:
                completed, failed = await _counts(aws, files)
        message = job.get("message")
        return PartStatus(
            id=part.id,
            state=known,
            said=said,
            total=part.rows,
            completed=completed or 0,
            failed=failed or 0,
            outputs=outputs,
            reason=message if isinstance(message, str) and message and known is BatchState.FAILED else None,
        )

    async def cancel(self, door: Door, part: Part) -> None:
        await cast("AwsDoor", door).call(CONTROL, "stop_model_invocation_job", jobIdentifier=part.id)

    async def lines(self, door: Door, output: str) -> Lines:
        return await door.lines(output)

    def read(self, line: bytes) -> Row | None:
        row = _decode(line)
        found = _RECORD.fullmatch(row.recordId)
        name = row_id(int(found[1])) if found else row.recordId
        body = bytes(row.modelOutput)
        if row.error is not None or body in {b"", b"null"}:
            return Row(name, error=_error(row.error))
        return Row(name, body=body)


def _remembered(arn: str, source: Key, target: Key) -> tuple[str, dict[str, str]]:
    return arn, {"input": str(source), "output": str(target.plus(f"{arn.rpartition('/')[2]}/"))}


async def _find(aws: AwsDoor, name: str) -> str | None:
    """The ARN of the job of that name, if it was made."""
    try:
        listed = await aws.call(CONTROL, "list_model_invocation_jobs", nameContains=name)
    except AsyncInferError:
        return None
    rows = listed.get("invocationJobSummaries") or ()
    return next((str(row["jobArn"]) for row in rows if row.get("jobName") == name), None)


async def _files(aws: AwsDoor, folder: Key, state: BatchState) -> list[Key]:
    """What a job has left. Who may read objects may still not be allowed to list them; but the names are known."""
    try:
        return await aws.listing(folder)
    except PermissionDeniedError:
        return [] if state is BatchState.FAILED else [folder.plus(f"{_INPUT}.out"), folder.plus("manifest.json.out")]


async def _counts(aws: AwsDoor, files: list[Key]) -> tuple[int, int]:
    """Rows answered and failed, from the manifest: the job itself does not always tell."""
    for file in files:
        if file.key.endswith("manifest.json.out"):
            lines = await aws.lines(str(file))
            text = b""
            try:
                while (line := await lines.next()) is not None:
                    text += line
            finally:
                lines.close()
            try:
                found = msgspec.json.decode(text, type=dict[str, Any])
            except msgspec.DecodeError:
                break
            counts = [found.get(name) for name in ("successRecordCount", "errorRecordCount")]
            good, bad = (count if isinstance(count, int) else 0 for count in counts)
            return good, bad
    return 0, 0


def _error(value: Any) -> APIError:
    """The typed error of a row."""
    said = value if isinstance(value, dict) else {}
    code, message = said.get("errorCode"), str(said.get("errorMessage") or "no answer, no explanation")
    text = str(code) if code is not None else ""
    if text.isdecimal() and 400 <= int(text) < 600:
        return error_from_response(int(text), {}, msgspec.json.encode({"message": message}))
    return refusal(text, message)
