"""The lane to Amazon Bedrock: aiobotocore signs and sends, we read the bytes.

DESIGN's exception to "no vendor SDK is a transport": signing, profiles, single sign-on, roles and instance metadata are
a subject of their own. Everything else it would do is switched off: its retries (the scheduler's), its read timeout
(the engine's clocks), its bound on connections (the limiter's window) and its parsing of streams.

Rule: what it raises crosses in one table (`_translate`). It needs a running asyncio loop; clients belong to that loop,
are shared by everybody on it who goes to the same `Place`, and are closed when it ends.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.to_thread

from .._version import __version__
from ..errors import (
    AsyncInferError,
    AuthenticationError,
    ConfigError,
    ConnectError,
    ConnectTimeout,
    MissingDependencyError,
    ProtocolError,
    TransportError,
)
from ..loops import Loop, running

RUNTIME = "bedrock-runtime"
CONTROL = "bedrock"
STORAGE = "s3"
_KEY_HEADER = "authorization"
_CREDENTIALS = (
    "no AWS credentials were found: set AWS_BEARER_TOKEN_BEDROCK (or remote_params.api_key) to a Bedrock API key, or "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile that has some"
)


@dataclass(frozen=True)
class Place:
    """Where calls go, and as whom. What is secret in it is never shown.

    Attributes:
        region: AWS region.
        endpoint_url: in place of the region's own endpoint, or None.
        profile: profile of the AWS configuration files; None for the environment's.
        bearer: a Bedrock API key; without one, requests are signed with the credentials that the usual chain finds.
        headers: further request headers.
        connect_timeout: seconds for a connection; None for no bound.
        title: what is there, for messages.
    """

    region: str
    endpoint_url: str | None = None
    profile: str | None = None
    bearer: str | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    connect_timeout: float | None = None
    title: str = "Bedrock"


class Refused(Exception):
    """The service answered with an exception.

    Attributes:
        code, message: its name, and its words.
        status: HTTP status.
        headers: response headers, names in lower case.
        original_status: the status that the model's own server gave, if the service tells.
    """

    def __init__(
        self, code: str, message: str, status: int | None, headers: Mapping[str, str], original_status: int | None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.headers = headers
        self.original_status = original_status


class AwsExchange:
    """See `protocol.Exchange`: the bytes of one event stream, or of one object, as they come."""

    def __init__(self, response: dict[str, Any], place: Place) -> None:
        head = response["ResponseMetadata"]
        self.status: int = head["HTTPStatusCode"]
        self.headers: Mapping[str, str] = head["HTTPHeaders"]
        # Parsed by the library, each event would pass two async generators, which cannot be closed on time.
        stream = response["stream"] if "stream" in response else response["Body"]
        self._raw: Any = stream._raw_stream  # noqa: SLF001
        self._place = place

    async def read(self) -> bytes:
        try:
            chunk: bytes = await self._raw.content.readany()
        except Exception as error:  # noqa: BLE001 -- the table knows what is whose
            raise _translate(error, self._place) from None
        return chunk

    async def aclose(self) -> None:
        self.abort()  # a connection whose body was read to its end is back in the pool already

    def abort(self) -> None:
        self._raw.close()


class AwsLane:
    """Clients by loop and place. One of these serves the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[Loop, _Clients] = weakref.WeakKeyDictionary()

    async def stream(self, place: Place, operation: str, arguments: dict[str, Any]) -> AwsExchange:
        """Start an operation whose answer is an event stream.

        Raises:
            Refused: the service said no.
            AsyncInferError: there was no answer, or nothing could be sent.
        """
        return AwsExchange(await self.call(place, RUNTIME, operation, arguments), place)

    async def download(self, place: Place, bucket: str, key: str) -> AwsExchange:
        """Start to read an object of S3; errors as in `stream`."""
        return AwsExchange(await self.call(place, STORAGE, "get_object", {"Bucket": bucket, "Key": key}), place)

    async def call(self, place: Place, service: str, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The answer of an operation, by its name in snake case; errors as in `stream`."""
        place = replace(place, connect_timeout=_rounded(place.connect_timeout))
        try:
            client = await self._clients().get(place, service)
            answer: dict[str, Any] = await getattr(client, operation)(**arguments)
        except (AsyncInferError, Refused):
            raise
        except Exception as error:  # noqa: BLE001 -- the table knows what is whose
            raise _translate(error, place) from None
        return answer

    def _clients(self) -> _Clients:
        loop = running()
        with self._lock:
            found = self._by_loop.get(loop)
            if found is None or found.closed:
                found = self._by_loop[loop] = _Clients()
                loop.at_end(found.close)
        return found


class _Clients:
    """Those of one loop."""

    def __init__(self) -> None:
        self._made: dict[tuple[Place, str], Any] = {}
        self._lock = anyio.Lock()
        self.closed = False

    async def get(self, place: Place, service: str) -> Any:
        found = self._made.get((place, service))
        if found is None:
            async with self._lock:
                found = self._made.get((place, service))
                if found is None:
                    found = self._made[place, service] = await _connect(place, service)
        return found

    async def close(self) -> None:
        self.closed = True
        while self._made:
            _, client = self._made.popitem()
            await client.__aexit__(None, None, None)


async def _connect(place: Place, service: str) -> Any:
    """A client. Importing the library and reading its service models takes a while, so that is done in a thread."""
    session, options = await anyio.to_thread.run_sync(_session, place)
    client = await session.create_client(service, **options).__aenter__()
    client.meta.events.register("before-call", _headers_of(place))
    client.meta.events.register("before-send", _key_of(place))
    return client


def load() -> None:
    """Import the library, which takes the better part of a second. Raises `MissingDependencyError`."""
    try:
        import aiobotocore.session  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "Bedrock needs aiobotocore; install it with: pip install 'asyncinfer[bedrock]'"
        ) from error


def _session(place: Place) -> tuple[Any, dict[str, Any]]:
    """A session, and what its clients are made with."""
    load()
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession
    from botocore import UNSIGNED

    unsigned = place.bearer is not None or any(name.lower() == "authorization" for name, _ in place.headers)
    config = AioConfig(
        connect_timeout=place.connect_timeout,
        read_timeout=None,
        max_pool_connections=0,  # aiohttp: as many as are asked for
        retries={"mode": "standard", "total_max_attempts": 1},
        tcp_keepalive=True,
        user_agent_extra=f"asyncinfer/{__version__}",
        warm_up_loader_caches=True,  # in a thread, too
        **({"signature_version": UNSIGNED} if unsigned else {}),
    )
    session = AioSession(profile=place.profile)
    with _loaders_lock:
        loader = _loaders.setdefault("shared", session.get_component("data_loader"))
    session.register_component("data_loader", loader)
    return session, {"region_name": place.region, "endpoint_url": place.endpoint_url, "config": config}


_loaders: dict[str, Any] = {}
"""The one reader of service models: megabytes of JSON, parsed once for all loops."""
_loaders_lock = threading.Lock()


def _headers_of(place: Place) -> Callable[..., None]:
    """Adds the headers of a place to each request before it is signed."""
    headers = {name: value for name, value in place.headers if name.lower() != _KEY_HEADER}

    def add(params: dict[str, Any], **_: Any) -> None:
        params["headers"].update(headers)

    return add


def _key_of(place: Place) -> Callable[..., None]:
    """Adds a key to each request as the last thing: the library writes what it has before into its debug log."""
    given = [value for name, value in place.headers if name.lower() == _KEY_HEADER]
    if not given and place.bearer is not None:
        given = [f"Bearer {place.bearer}"]

    def add(request: Any, **_: Any) -> None:
        for value in given:
            request.headers["Authorization"] = value

    return add


def _rounded(seconds: float | None) -> float | None:
    """Up to a tenth or a whole second: each value has connections of its own."""
    if seconds is None:
        return None
    return float(math.ceil(seconds)) if seconds > 1 else max(0.1, math.ceil(seconds * 10) / 10)


def profile_region(profile: str | None) -> str | None:
    """The region that the AWS configuration files name for a profile; None without one, or without the library."""
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        return None
    try:
        found = Session(profile=profile).get_config_variable("region")
    except BotoCoreError as error:
        raise ConfigError(f"the AWS profile cannot be read: {error}", path="profile") from None
    return found if isinstance(found, str) else None


def _translate(error: Exception, place: Place) -> Exception:
    """What the library raised, in our words."""
    import aiohttp
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    where = place.endpoint_url or f"{place.title} in {place.region}"
    if isinstance(error, aws.ClientError):
        return _refused(error)
    if isinstance(error, aws.ParamValidationError):
        return ConfigError(
            f"the request has a field that Converse does not know, or of a wrong type: {error}",
            path="generation.extra_body",
        )
    if isinstance(error, (aws.NoCredentialsError, aws.PartialCredentialsError)):
        return ConfigError(_CREDENTIALS, path="remote_params.api_key")
    if isinstance(error, aws.ProfileNotFound):
        return ConfigError(f"{error}: name one that your AWS configuration has", path="profile")
    if isinstance(error, (aws.CredentialRetrievalError, aws.SSOError, aws.TokenRetrievalError)):
        return AuthenticationError(f"the AWS credentials could not be obtained: {error}")
    if isinstance(error, aws.ConnectTimeoutError):
        return ConnectTimeout(
            f"no connection to {where} within {place.connect_timeout} s", seconds=place.connect_timeout
        )
    if isinstance(error, (aws.EndpointConnectionError, aws.SSLError, aws.ProxyConnectionError)):
        return ConnectError(f"cannot connect to {where}: {_reason(error)}")
    if isinstance(error, (aws.HTTPClientError, aiohttp.ClientError, OSError)):
        return TransportError(f"the connection to {where} broke: {_reason(error)}")
    if isinstance(error, aws.BotoCoreError):
        return ConfigError(f"aiobotocore cannot send this request: {error}")
    if isinstance(error, (ResponseParserError, AttributeError, TypeError)):
        # What it stumbles over when it reads JSON that is no object.
        return ProtocolError(f"{where} answered with something that {place.title} does not say; what stands before it?")
    return error


def _reason(error: Exception) -> str:
    inner = getattr(error, "kwargs", {}).get("error")
    return str(inner or error) or type(inner or error).__name__


def _refused(error: Any) -> Refused:
    said, head = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    original = error.response.get("originalStatusCode")
    headers = dict(head.get("HTTPHeaders", {}))
    if head.get("RequestId"):
        headers.setdefault("x-amzn-requestid", head["RequestId"])
    return Refused(
        str(said.get("Code", "")),
        str(said.get("Message", "")),
        head.get("HTTPStatusCode"),
        headers,
        original if isinstance(original, int) else None,
    )


_shared: AwsLane | None = None
_shared_lock = threading.Lock()


def shared_lane() -> AwsLane:
    """The lane of this process."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = AwsLane()
        return _shared
