"""`BedrockInferenceEngine`: Converse and ConverseStream, through aiobotocore.

The row (`providers`) has the dialect, `wire.bedrock` the format, `transport.aws` the exchange; this file introduces
them to one another. aiobotocore lives on asyncio: under trio the exchange runs on a portal.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import AsyncInferError, ConfigError, PermissionDeniedError
from .base import Engine

if TYPE_CHECKING:
    from ..events import Event
    from ..limits import Cost, Limits, RateHeaders
    from ..params import GenerationParams, ModelParams, RemoteParams
    from ..providers import Provider
    from ..request import Request
    from ..scheduling.limiter import Limiter, Ticket
    from ..transport.aws import Place
    from ..wire.protocol import Decoder
    from ..wire.unwrapping import Filter
    from .jobs.view import BatchView
    from .source import Source

_REGION_IN_HOST = re.compile(r"bedrock[a-z-]*\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.")
_KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE")


class BedrockInferenceEngine(Engine):
    """Models on Amazon Bedrock.

    Args:
        model_params: ``model_name`` is a model id, inference profile or ARN; ``model_kwargs`` are fields of the model's
            own (``additionalModelRequestFields``).
        generation_params: sampling parameters of every call; ``extra_body`` takes further fields of Converse:
            ``guardrailConfig``, ``performanceConfig``, ``serviceTier``, ``requestMetadata`` ...
        remote_params: ``region`` (else ``AWS_REGION``, ``AWS_DEFAULT_REGION``, the profile's), ``api_key`` for a
            Bedrock API key (else ``AWS_BEARER_TOKEN_BEDROCK``, else the usual chain of AWS credentials), ``api_url``
            for an endpoint in place of the region's own.
        profile: profile of the AWS configuration files, in place of ``AWS_PROFILE``.

    Raises:
        ConfigError: there is no region, or the ``api_url`` is none.
    """

    name = "bedrock"

    def __init__(
        self,
        model_params: ModelParams | None = None,
        *,
        generation_params: GenerationParams | None = None,
        remote_params: RemoteParams | None = None,
        profile: str | None = None,
    ) -> None:
        from ..params import RemoteParams

        self._profile = profile
        self._destinations: dict[int, tuple[Any, _Destination]] = {}
        super().__init__(
            model_params, generation_params=generation_params, remote_params=remote_params or RemoteParams()
        )
        assert self._default_plan is not None
        self._destination(self._default_plan.template)

    @classmethod
    def provider(cls) -> Provider:
        """The row."""
        from ..providers import PROVIDERS

        return PROVIDERS[cls.name]

    @classmethod
    def get_supported_params(cls) -> set[str]:
        return set(cls.provider().dialect.supported)

    def unsupported(self, request: Request) -> list[str]:
        from ..wire.bedrock import unsupported

        return unsupported(request, self.provider().dialect)

    # -- the pipeline's questions --------------------------------------------------------------------------------------

    async def start(self) -> None:
        from anyio import to_thread

        from ..transport.aws import load

        await to_thread.run_sync(load)

    async def open(self, request: Request) -> Source:
        from ..wire.bedrock import answers_by_call, encode_request
        from ..wire.unwrapping import filters_for
        from .fetched import with_data
        from .portal import portal

        request = await with_data(request)
        place = replace(self._destination(request).place, connect_timeout=request.timeouts.connect)
        dialect = self.provider().dialect
        arguments = encode_request(request, dialect)
        filters = filters_for(request, dialect, called=answers_by_call(request))
        there = portal()

        async def opener() -> Source:
            return await _open(place, arguments, filters, stream=request.stream)

        try:
            return await (opener() if there is None else there.open(opener))
        except AsyncInferError as error:
            error.provider = self.name
            raise

    def limiter(self, request: Request) -> Limiter:
        from ..scheduling.limiter import shared_limiter

        destination = self._destination(request)
        model = request.model.model_name or ""
        found = destination.limiters.get(model)
        if found is None:
            identity = (*destination.identity, model)
            shared = replace(destination.limits, max_retries=None)  # `ticket` says how often
            found = destination.limiters[model] = shared_limiter(identity, shared)
        return found

    def ticket(self, request: Request) -> Ticket:
        # The limiter is shared with other engines; how often this one tries again is its own affair.
        return self.limiter(request).ticket(
            self.cost(request),
            tenant=request.tenant,
            weight=request.weight,
            max_retries=self._destination(request).limits.max_retries,
        )

    def limits(self) -> Limits:
        assert self._default_plan is not None
        return self._destination(self._default_plan.template).limits

    def cost(self, request: Request) -> Cost:
        from ..limits import Cost

        return Cost(input_tokens=self.estimate_input(request), max_output_tokens=request.asked("max_new_tokens"))

    def estimate_input(self, request: Request) -> int:
        from ..wire.tokens import estimate_tokens

        return estimate_tokens(request)

    async def list_models(self, *, chat_only: bool = False) -> list[str]:
        """Ids of the region's foundation models, then of the account's inference profiles.

        Args:
            chat_only: only models that take and give text. Profiles are listed either way.
        """
        from .portal import portal

        assert self._default_plan is not None
        place = self._destination(self._default_plan.template).control
        there = portal()

        async def work() -> list[str]:
            return await _list_models(place, chat_only=chat_only)

        try:
            return await (work() if there is None else there.call(work))
        except AsyncInferError as error:
            error.provider = self.name
            raise

    @property
    def batch(self) -> BatchView:
        """Model invocation jobs, whose files lie in S3: ``remote_params.batch_storage`` and ``batch_role`` name the
        place and the role. Raises `ConfigError`."""
        from .jobs.aws_door import aws_door
        from .jobs.view import BatchView

        assert self._default_plan is not None
        template = self._default_plan.template
        assert template.remote is not None
        return BatchView(self, aws_door(self.provider(), template.remote, self._destination(template).control))

    # -- where to ------------------------------------------------------------------------------------------------------

    def _destination(self, request: Request) -> _Destination:
        """Where a request goes, resolved once for each set of remote parameters."""
        remote = request.remote
        found = self._destinations.get(id(remote))
        if found is None or found[0] is not remote:
            assert remote is not None
            if len(self._destinations) > 16:
                self._destinations.clear()
            made = _Destination(self.provider(), type(self).__name__, remote, self._profile)
            found = self._destinations[id(remote)] = (remote, made)
        return found[1]


class _Destination:
    """One resolved destination.

    Attributes:
        place, control: of the runtime, and of the control plane, which lists models.
        limits: how the limiter is set up.
        identity: key of the shared limiter; never holds a key in clear.
        limiters: limiters in use, by model.
    """

    def __init__(self, provider: Provider, engine: str, remote: RemoteParams, profile: str | None) -> None:
        from ..transport.auth import check_headers, check_key
        from ..transport.aws import Place
        from .endpoint import find_key, limits_of

        key = find_key(provider, engine, remote)
        if key is not None:
            check_key(key)
        check_headers(remote.extra_headers)
        region = _region(engine, remote, profile)
        url = _endpoint_url(remote, region)
        self.place: Place = Place(region, url, profile, key, tuple(sorted(remote.extra_headers.items())))
        self.control: Place = replace(
            self.place, endpoint_url=url and url.replace("//bedrock-runtime", "//bedrock", 1), connect_timeout=30.0
        )
        self.limits: Limits = limits_of(provider, remote)
        who = (key, profile, self.place.headers, [os.environ.get(name) for name in _KEY_VARIABLES])
        digest = hashlib.sha256(repr(who).encode()).hexdigest()[:16]
        self.identity = (provider.name, url or region, digest)
        self.limiters: dict[str, Limiter] = {}


def _region(engine: str, remote: RemoteParams, profile: str | None) -> str:
    from ..transport.aws import profile_region

    in_host = _REGION_IN_HOST.search(remote.api_url or "")
    found = (
        remote.region
        or (in_host[1] if in_host else None)
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or profile_region(profile)
    )
    if not found:
        raise ConfigError(
            f"{engine} needs a region: set the environment variable AWS_REGION (for example us-east-1), or "
            "remote_params.region",
            path="remote_params.region",
        )
    return found


def _endpoint_url(remote: RemoteParams, region: str) -> str | None:
    """The ``api_url`` without the path of an operation; ``{region}`` filled in."""
    if not remote.api_url:
        return None
    url = remote.api_url.replace("{region}", region)
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.username is not None:
        raise ConfigError(
            "api_url: expected an endpoint such as https://bedrock-runtime.us-east-1.amazonaws.com",
            path="remote_params.api_url",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.partition('/model/')[0].rstrip('/')}"


# -- on asyncio --------------------------------------------------------------------------------------------------------


async def _open(place: Place, arguments: dict[str, Any], filters: list[Filter], *, stream: bool) -> Source:
    from ..transport.aws import RUNTIME, Refused, shared_lane
    from ..wire.bedrock import ConverseDecoder, read_document
    from ..wire.status import request_id
    from ..wire.unwrapping import FilteredDecoder, filtered
    from .exchange import RemoteSource

    model = str(arguments["modelId"])
    try:
        if not stream:
            answer = await shared_lane().call(place, RUNTIME, "converse", arguments)
            asked = request_id(answer["ResponseMetadata"]["HTTPHeaders"])
            return _Whole(filtered(read_document(answer, model, asked), filters), asked)
        exchange = await shared_lane().stream(place, "converse_stream", arguments)
    except Refused as refused:
        raise _typed(refused) from None
    asked = request_id(exchange.headers)
    decoder: Decoder = ConverseDecoder(model, asked)
    return RemoteSource(exchange, FilteredDecoder(decoder, filters) if filters else decoder, {}, asked)


def _typed(refused: Any) -> AsyncInferError:
    from ..wire.bedrock import refusal

    return refusal(
        refused.code,
        refused.message,
        status=refused.status,
        headers=refused.headers,
        original_status=refused.original_status,
    )


class _Whole:
    """See `engines.source.Source`: an answer that came in one piece."""

    def __init__(self, events: list[Event], request_id: str | None) -> None:
        self._events: list[Event] | None = events
        self.rate: RateHeaders = {}
        self.request_id = request_id

    async def pull(self) -> list[Event] | None:
        events, self._events = self._events, None
        return events

    def abort(self) -> None:
        self._events = None

    async def aclose(self) -> None:
        self._events = None


async def _list_models(place: Place, *, chat_only: bool) -> list[str]:
    from ..transport.aws import CONTROL, Refused, shared_lane

    lane = shared_lane()
    filters = {"byOutputModality": "TEXT"} if chat_only else {}
    try:
        answer = await lane.call(place, CONTROL, "list_foundation_models", filters)
        found = [row for row in answer["modelSummaries"] if not chat_only or "TEXT" in row.get("inputModalities", ())]
        names = [str(row["modelId"]) for row in found]
    except Refused as refused:
        raise _typed(refused) from None
    page: dict[str, Any] = {"maxResults": 1000}
    while True:
        try:
            answer = await lane.call(place, CONTROL, "list_inference_profiles", page)
        except Refused as refused:
            error = _typed(refused)
            if isinstance(error, PermissionDeniedError):  # often granted separately; the models are there
                break
            raise error from None
        names += [str(row["inferenceProfileId"]) for row in answer["inferenceProfileSummaries"]]
        if not answer.get("nextToken"):
            break
        page = {**page, "nextToken": answer["nextToken"]}
    return list(dict.fromkeys(names))
