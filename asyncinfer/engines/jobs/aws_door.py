"""The way to Bedrock's batch API: its control plane, and S3 for the files, both through aiobotocore.

Rule: on trio every call runs on the portal, as the engine's own do; aiobotocore never repeats anything, `Door.persist`
does. S3 is signed for with AWS credentials: a Bedrock API key does not open it. ``AWS_ENDPOINT_URL_S3`` is heeded.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import anyio

from ...errors import AsyncInferError, ConfigError, EngineError, NotFoundError
from ...loops import LoopClosed
from ...providers import Urls
from ...transport.aws import CONTROL, STORAGE, Place, Refused, shared_lane
from ...wire.bedrock import refusal
from ...wire.bedrock.rows import ConverseRows
from ..endpoint import Endpoint
from ..portal import portal
from .door import Door, may_repeat, quiet_for
from .lines import Lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ...params import RemoteParams
    from ...providers import Provider
    from ...transport.protocol import Exchange
    from ..portal import Portal
    from .spool import Spool

T = TypeVar("T")

_PIECE = 8 << 20
"""Bytes of a part of an upload: S3 takes 5 MiB to 5 GiB, and 10,000 of them."""
_SILENCE = 300.0
_BUCKET = re.compile(r"s3://([a-z0-9][-.a-z0-9]{1,61}[a-z0-9])(?:/(.*))?")
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
_WINDOW = re.compile(r"(\d{1,4}) ?([hd])")
_LEAST_HOURS, _MOST_HOURS = 24, 168


class Key(NamedTuple):
    """A place in S3."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def plus(self, more: str) -> Key:
        """A place below this one, which ends with a slash or is a whole bucket."""
        return Key(self.bucket, self.key + more)

    @classmethod
    def of(cls, uri: str) -> Key:
        """The place of an URI. Raises `ConfigError`."""
        found = _BUCKET.fullmatch(uri)
        if found is None:
            raise ConfigError(
                f"batch_storage: expected a place in S3 such as s3://my-bucket/batches, got {uri!r}",
                path="remote_params.batch_storage",
            )
        return cls(found[1], found[2] or "")


def aws_door(provider: Provider, remote: RemoteParams, control: Place) -> AwsDoor:
    """The door to the region whose control plane is at ``control``. Raises `ConfigError`."""
    base = control.endpoint_url or f"https://{CONTROL}.{control.region}.amazonaws.com"
    # It stands for what jobs ask of an endpoint; keys and headers are the places' own.
    endpoint = Endpoint(provider, remote, None, Urls(base, "", None), ConverseRows())
    storage = Place(control.region, profile=control.profile, connect_timeout=control.connect_timeout, title="S3")
    return AwsDoor(endpoint, control, storage, remote)


class AwsDoor(Door):
    """Speaks to one region.

    Args:
        endpoint: stands for the control plane.
        control, storage: where the calls of either service go.
        remote: says which bucket and role new jobs get.
    """

    def __init__(self, endpoint: Endpoint, control: Place, storage: Place, remote: RemoteParams) -> None:
        super().__init__(_NoHttp(), endpoint)
        self._places = {CONTROL: control, STORAGE: storage}
        self._remote = remote

    # -- what a new job needs ------------------------------------------------------------------------------------------

    def check(self) -> None:
        self.folder()
        self.role()
        self.hours(self._remote.batch_completion_window)

    def folder(self) -> Key:
        """Where the files of jobs go."""
        uri = self._remote.batch_storage
        if not uri:
            raise ConfigError(
                "a batch on Bedrock has its files in S3: set remote_params.batch_storage to a place for them, for "
                "example s3://my-bucket/batches",
                path="remote_params.batch_storage",
            )
        found = Key.of(uri)
        return found if not found.key or found.key.endswith("/") else found.plus("/")

    def role(self) -> str:
        """The role that Bedrock takes on to read and write them."""
        role = self._remote.batch_role
        if not role or _ROLE.fullmatch(role) is None:
            raise ConfigError(
                "a batch on Bedrock needs a service role that may read and write its files: set "
                "remote_params.batch_role to its ARN, for example arn:aws:iam::123456789012:role/my-batches",
                path="remote_params.batch_role",
            )
        return role

    def hours(self, window: str | None) -> int | None:
        """The longest time that a job may take; None leaves it to Bedrock."""
        if not window:
            return None
        found = _WINDOW.fullmatch(window.strip().lower())
        hours = int(found[1]) * (24 if found[2] == "d" else 1) if found else 0
        if not _LEAST_HOURS <= hours <= _MOST_HOURS:
            raise ConfigError(
                f"batch_completion_window: Bedrock gives a batch 24h to 168h, not {window!r}",
                path="remote_params.batch_completion_window",
            )
        return hours

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer of an operation, which may be done twice. Raises `AsyncInferError`."""
        place = self._places[service]

        async def attempt() -> dict[str, Any]:
            with quiet_for(_SILENCE, operation):
                answer = await self._there(lambda: shared_lane().call(place, service, operation, arguments), place)
            return answer  # noqa: RET504 -- for all that mypy knows, quiet_for swallows errors

        return await self.persist(attempt, may_repeat)

    async def put(self, where: Key, spool: Spool) -> None:
        """Upload a file, in parts where it is large: no more than one of them is in memory."""
        spool.seal()
        target = {"Bucket": where.bucket, "Key": where.key}
        if spool.size <= _PIECE:
            body = await spool.read(0, spool.size)
            await self.call(STORAGE, "put_object", **target, Body=body, ContentType="application/jsonl")
            return
        begun = await self.call(STORAGE, "create_multipart_upload", **target, ContentType="application/jsonl")
        target["UploadId"] = begun["UploadId"]
        try:
            parts = []
            for number, start in enumerate(range(0, spool.size, _PIECE), 1):
                body = await spool.read(start, _PIECE)
                sent = await self.call(STORAGE, "upload_part", **target, PartNumber=number, Body=body)
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            try:
                await self.call(STORAGE, "complete_multipart_upload", **target, MultipartUpload={"Parts": parts})
            except NotFoundError:  # done already, by an attempt whose answer was lost?
                if where not in await self.listing(where):
                    raise
        except BaseException:
            # Parts that nobody puts together are paid for until somebody removes them.
            with anyio.CancelScope(shield=True), anyio.move_on_after(30.0), contextlib.suppress(AsyncInferError):
                await self.call(STORAGE, "abort_multipart_upload", **target)
            raise

    async def listing(self, folder: Key) -> list[Key]:
        """Everything below a folder: all pages."""
        found: list[Key] = []
        page: dict[str, Any] = {"Bucket": folder.bucket, "Prefix": folder.key}
        while True:
            answer = await self.call(STORAGE, "list_objects_v2", **page)
            found += [Key(folder.bucket, row["Key"]) for row in answer.get("Contents", ())]
            token = answer.get("NextContinuationToken")
            if not answer.get("IsTruncated") or not token:
                return found
            page["ContinuationToken"] = token

    async def lines(self, path: str) -> Lines:
        place, where = self._places[STORAGE], Key.of(path)

        async def begin() -> Lines:
            there = portal()
            exchange: Exchange
            with quiet_for(_SILENCE, path):
                exchange = await self._there(lambda: shared_lane().download(place, where.bucket, where.key), place)
            if there is not None:
                exchange = _Far(there, exchange)
            loop = None if there is None else there.loop
            return Lines(exchange, _SILENCE, path, self.endpoint.provider.name, loop)

        return await self.persist(begin, may_repeat)

    async def _there(self, work: Callable[[], Awaitable[T]], place: Place) -> T:
        """Do it where aiobotocore lives, with typed errors."""

        async def run() -> T:
            try:
                return await work()
            except Refused as refused:
                raise refusal(refused.code, refused.message, status=refused.status, headers=refused.headers) from None

        there = portal()
        try:
            return await (run() if there is None else there.call(run))
        except ConfigError as error:
            error.provider = self.endpoint.provider.name
            if place is self._places[STORAGE] and error.path == "remote_params.api_key":
                raise ConfigError(
                    "no AWS credentials were found for S3, where the files of a batch lie (a Bedrock API key does not "
                    "open it): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
                    path="remote_params.batch_storage",
                    provider=error.provider,
                ) from None
            raise
        except AsyncInferError as error:
            error.provider = self.endpoint.provider.name
            raise


class _Far:
    """See `transport.protocol.Exchange`: one that lives on a portal's loop."""

    def __init__(self, there: Portal, exchange: Exchange) -> None:
        self._there = there
        self._exchange = exchange
        self.status = exchange.status
        self.headers = exchange.headers

    async def read(self) -> bytes:
        return await self._there.call(self._exchange.read)

    async def aclose(self) -> None:
        self.abort()

    def abort(self) -> None:
        with contextlib.suppress(LoopClosed):
            self._there.loop.soon(self._exchange.abort)


class _NoHttp:
    """See `transport.protocol.Transport`: nothing goes past aiobotocore."""

    async def open(self, *_: Any, **__: Any) -> Exchange:
        raise EngineError("Bedrock is spoken to through aiobotocore only", provider="bedrock")

    async def aclose(self) -> None:
        return
