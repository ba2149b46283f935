"""Fireworks' batch inference: the rows in a dataset, a job on it with the one model, the answers in another dataset.

Format: docs.fireworks.ai, "Batch inference", and Fireworks' own SDK. Datasets and jobs belong to an account, beside the
inference API (``https://api.fireworks.ai/v1/accounts/...``). Their names are ours to choose, so making one again cannot
make two. Nothing cancels a job but deleting it; a job that is gone counts as cancelled. The URLs of the answers run out
after minutes and are asked for anew each time.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
import msgspec

from ...errors import APIError, ConfigError, NotFoundError, ProtocolError, RetryKind
from ...wire.status import error_from_object
from .door import may_repeat
from .openai import OpenAIFlavour
from .parts import Framing, Order, Part, Row
from .status import BatchState, PartStatus

if TYPE_CHECKING:
    from ...wire.protocol import WireRequest
    from .door import Door
    from .lines import Lines
    from .spool import Spool

_ACCOUNT = "FIREWORKS_ACCOUNT_ID"
_STATES = {
    "UNSPECIFIED": BatchState.QUEUED,
    "VALIDATING": BatchState.QUEUED,
    "CREATING_INPUT_DATASET": BatchState.QUEUED,
    "PENDING": BatchState.QUEUED,
    "CREATING": BatchState.QUEUED,
    "CANCELLING": BatchState.CANCELLING,
    "COMPLETED": BatchState.COMPLETED,
    "FAILED": BatchState.FAILED,
    "EXPIRED": BatchState.EXPIRED,
    "EARLY_STOPPED": BatchState.EXPIRED,
    "CANCELLED": BatchState.CANCELLED,
    "DELETING": BatchState.CANCELLED,
    "DELETING_CLEANING_UP": BatchState.CANCELLED,
    "DELETED": BatchState.CANCELLED,
    "ARCHIVED": BatchState.CANCELLED,
}
_LOOKS, _PAUSE, _LONGEST_PAUSE = 120, 0.5, 5.0
"""How often, and after how many seconds, a new dataset is looked at until it is ready."""

_body = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Line(msgspec.Struct):
    custom_id: str = ""
    response: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode
_wrapped = OpenAIFlavour()


class FireworksFlavour:
    """See `flavour.Flavour`. The id of a part is the whole name of its job, the account included."""

    framing = Framing(rows=1_000_000, size=149_000_000)

    def line(self, row_id: str, wire: WireRequest) -> bytes:
        body = _body(wire.body)
        body.pop("model", None)  # it is the job's
        return msgspec.json.encode({"custom_id": row_id, "body": body})

    async def create(self, door: Door, spool: Spool, order: Order) -> tuple[str, dict[str, str]]:
        account = await _account(door)
        name = f"asyncinfer-{order.mark}"
        if order.again:
            before = await _get(door, f"{account}/batchInferenceJobs/{name}")
            if before is not None and _state(before) not in {BatchState.FAILED, BatchState.CANCELLED}:
                return _made(before)
            if before is not None:
                name = f"{name[:56]}-{secrets.token_hex(3)}"
        dataset = f"{account}/datasets/{name}"
        await _upload(door, spool, account, name)
        asked = {"model": order.model, "inputDatasetId": dataset}
        url = f"{_control(door)}/{account}/batchInferenceJobs?batchInferenceJobId={name}"
        try:
            made = await _make(door, url, asked)
        except APIError as error:
            if not error.retryable:
                await _forget(door, dataset)
            raise
        return _made(made or await _get(door, f"{account}/batchInferenceJobs/{name}") or {})

    async def look(self, door: Door, part: Part) -> PartStatus:
        job = await _get(door, part.id)
        if job is None:
            job = {"state": "JOB_STATE_DELETED"}
        state = _state(job)
        outputs: tuple[str, ...] = ()
        dataset = job.get("outputDatasetId") or part.details.get("output")
        if state.ended and state is not BatchState.FAILED and dataset:
            # results first, whatever the files are called: the others speak of errors
            names = sorted(
                await _files(door, str(dataset)), key=lambda name: ("error" in name.rpartition("/")[2], name)
            )
            outputs = tuple(f"{dataset}#{name}" for name in names)
        found = job.get("jobProgress")
        progress = found if isinstance(found, dict) else {}
        return PartStatus(
            id=part.id,
            state=state,
            said=_word(job),
            total=part.rows,
            completed=_count(progress.get("successfullyProcessedRequests")),
            failed=_count(progress.get("failedRequests")),
            outputs=outputs,
            reason=_reason(job) if state is BatchState.FAILED else None,
        )

    async def cancel(self, door: Door, part: Part) -> None:
        await door.persist(lambda: door.once("DELETE", f"{_control(door)}/{part.id}"), may_repeat)

    async def lines(self, door: Door, output: str) -> Lines:
        dataset, _, name = output.partition("#")
        url = (await _files(door, dataset)).get(name)
        if url is None:
            raise ProtocolError(f"the file {name} of the answers is no longer there")
        return await door.lines(url)

    def read(self, line: bytes) -> Row | None:
        row = _decode(line)
        response = msgspec.json.decode(row.response)
        if not row.error and isinstance(response, dict):
            if "status_code" in response and "body" in response:
                return _wrapped.read(line)
            if "error" not in response:
                return Row(row.custom_id, body=bytes(row.response))
            row.error = response["error"]
        return Row(row.custom_id, error=error_from_object(row.error or {"message": "no answer, no explanation"}))


def _control(door: Door) -> str:
    """Where accounts are: beside the inference API."""
    base = door.endpoint.urls.base
    return base.removesuffix("/v1").removesuffix("/inference") + "/v1"


async def _account(door: Door) -> str:
    """``accounts/NAME``: the one that is named, or the only one that the key opens. Raises `ConfigError`."""
    named = os.environ.get(_ACCOUNT, "").strip()
    if named:
        return f"accounts/{quote(named.removeprefix('accounts/'), safe='')}"
    found = (await door.get(f"{_control(door)}/accounts")).get("accounts")
    names = [str(row["name"]) for row in found or () if isinstance(row, dict) and row.get("name")]
    if len(names) != 1:
        what = f"the key opens {len(names)} accounts" if names else "the provider does not say which account the key is"
        raise ConfigError(f"{what}: set the environment variable {_ACCOUNT}", path=_ACCOUNT, provider="fireworks")
    return names[0]


async def _get(door: Door, name: str) -> dict[str, Any] | None:
    """What has a name; None where nothing has."""
    try:
        return await door.get(f"{_control(door)}/{name}")
    except NotFoundError:
        return None


async def _make(door: Door, url: str, value: dict[str, Any]) -> dict[str, Any] | None:
    """Make something that has a name of ours, so once only, however often it is asked for; None if it was there."""
    body = msgspec.json.encode(value)

    async def ask() -> dict[str, Any] | None:
        try:
            answer = await door.once("POST", url, body, {"content-type": "application/json"})
        except APIError as error:
            if error.status != 409:
                raise
            return None
        return door.object_of(answer, url)

    return await door.persist(ask, may_repeat)


async def _upload(door: Door, spool: Spool, account: str, name: str) -> None:
    """Make a dataset of the rows; back when it is ready for a job."""
    dataset = f"{account}/datasets/{name}"
    declared = {"userUploaded": {}, "exampleCount": str(spool.rows)}
    made = await _make(door, f"{_control(door)}/{account}/datasets", {"datasetId": name, "dataset": declared})
    if made is None and (await _get(door, dataset) or {}).get("state") == "READY":
        return  # an earlier attempt came as far as that
    content_type, form = spool.form({}, "rows.jsonl")
    try:
        await door.upload(f"{_control(door)}/{dataset}:upload", form, content_type)
    except APIError:
        if (await _get(door, dataset) or {}).get("state") != "READY":
            raise  # else it came there at the first attempt, and only its answer did not
    pause = _PAUSE
    for _ in range(_LOOKS):
        found = await door.get(f"{_control(door)}/{dataset}")
        if found.get("state") == "READY":
            return
        reason = _reason(found)
        if reason:
            raise APIError(f"the provider refuses the dataset: {reason}", code="dataset_refused", retry=RetryKind.NEVER)
        await anyio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
    raise APIError(f"{dataset} does not become ready", code="dataset_not_ready", retry=RetryKind.TRANSIENT)


async def _forget(door: Door, dataset: str) -> None:
    """Leave nothing of the rows behind, if that can be helped."""
    try:
        await door.once("DELETE", f"{_control(door)}/{dataset}")
    except APIError:
        return


async def _files(door: Door, dataset: str) -> dict[str, str]:
    """Signed URLs of a dataset's files, by name; none where there is no such dataset."""
    found = (await _get(door, f"{dataset}:getDownloadEndpoint") or {}).get("filenameToSignedUrls")
    return {str(name): str(url) for name, url in found.items()} if isinstance(found, dict) else {}


def _made(job: dict[str, Any]) -> tuple[str, dict[str, str]]:
    name = job.get("name")
    if not isinstance(name, str) or "/batchInferenceJobs/" not in name:
        raise ProtocolError("the provider's answer to a new batch has no name")
    kept = {"input": job.get("inputDatasetId"), "output": job.get("outputDatasetId")}
    return name, {key: str(value) for key, value in kept.items() if value}


def _word(job: dict[str, Any]) -> str:
    return str(job.get("state") or "").removeprefix("JOB_STATE_")


def _state(job: dict[str, Any]) -> BatchState:
    return _STATES.get(_word(job), BatchState.RUNNING)


def _reason(thing: dict[str, Any]) -> str | None:
    """What the provider complains of."""
    status = thing.get("status")
    if not isinstance(status, dict) or status.get("code") in {None, "OK"}:
        return None
    return str(status.get("message") or status["code"])


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
