"""`RemoteInferenceEngine`: a provider's row, its codec and the transport, introduced to one another.

Rule: what differs between providers is a value in its row; the documented engine classes name their row and add
nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .base import Engine

if TYPE_CHECKING:
    from ..limits import Cost, Limits
    from ..params import GenerationParams, ModelParams, RemoteParams
    from ..providers import Provider
    from ..request import Request
    from ..scheduling.limiter import Limiter, Ticket
    from ..transport.protocol import Transport
    from .endpoint import Endpoint
    from .jobs.view import BatchView
    from .source import Source


class RemoteInferenceEngine(Engine):
    """Any OpenAI-compatible endpoint.

    Args:
        model_params: ``model_name`` is what the provider calls the model.
        generation_params: sampling parameters of every call.
        remote_params: ``api_url`` (the full endpoint, its ``/v1`` base, or ``http://host:port``), credentials, limits.
        http_client: an ``httpx.AsyncClient`` (or httpx2's) to send with; it stays yours to close.

    An ``api_url`` on a known provider's host uses that provider's row: its dialect, limits and key variable.

    Raises:
        ConfigError: no ``api_url`` and the provider has none of its own; no key for a provider that needs one.
    """

    name = "remote"

    def __init__(
        self,
        model_params: ModelParams | None = None,
        *,
        generation_params: GenerationParams | None = None,
        remote_params: RemoteParams | None = None,
        http_client: Any = None,
    ) -> None:
        from ..params import RemoteParams

        self._http_client = http_client
        self._transport: Transport | None = None
        self._endpoints: dict[tuple[int, str], tuple[Any, Endpoint]] = {}
        super().__init__(
            model_params, generation_params=generation_params, remote_params=remote_params or RemoteParams()
        )
        assert self._default_plan is not None
        self.endpoint(self._default_plan.template)

    # -- the row -------------------------------------------------------------------------------------------------------

    @classmethod
    def provider(cls) -> Provider:
        """The engine's row."""
        from ..providers import PROVIDERS

        return PROVIDERS[cls.name]

    @classmethod
    def get_supported_params(cls) -> set[str]:
        return set(cls.provider().dialect.supported)

    def unsupported(self, request: Request) -> list[str]:
        endpoint = self.endpoint(request)
        return endpoint.codec.unsupported(request, endpoint.provider.dialect)

    def endpoint(self, request: Request) -> Endpoint:
        """Where a request goes, resolved once for each set of remote parameters and family of models."""
        from ..providers import model_family
        from .endpoint import resolve

        remote, family = request.remote, model_family(request.model.model_name or "")
        found = self._endpoints.get((id(remote), family))
        if found is None or found[0] is not remote:
            if len(self._endpoints) > 16:
                self._endpoints.clear()
            row, name, kwargs = self.provider(), type(self).__name__, self.model_params.model_kwargs
            found = self._endpoints[id(remote), family] = (remote, resolve(row, name, remote, kwargs, family))
        return found[1]

    # -- the pipeline's questions --------------------------------------------------------------------------------------

    async def start(self) -> None:
        from ..transport.loading import load, loaded

        if loaded():
            return
        from anyio import to_thread

        assert self._default_plan is not None
        secure = self.endpoint(self._default_plan.template).urls.base.startswith("https:")
        await to_thread.run_sync(partial(load, secure=secure))

    async def open(self, request: Request) -> Source:
        from .exchange import open_source
        from .files import names_files, with_files

        endpoint = self.endpoint(request)
        if names_files(request):
            request = await with_files(request)
        if not endpoint.provider.dialect.document_urls:
            request = await _with_documents(request)
        if endpoint.provider.takes_prompt:
            from .prompting import with_prompt

            request = await with_prompt(self._lane(), endpoint, request)
        return await open_source(self._lane(), endpoint, request)

    def limiter(self, request: Request) -> Limiter:
        from ..scheduling.limiter import shared_limiter

        endpoint = self.endpoint(request)
        model = request.model.model_name or ""
        found = endpoint.limiters.get(model)
        if found is None:
            shared = replace(endpoint.limits, max_retries=None)  # `ticket` says how often
            found = endpoint.limiters[model] = shared_limiter((*endpoint.identity, model), shared)
        return found

    def ticket(self, request: Request) -> Ticket:
        # The limiter is shared with other engines; how often this one tries again is its own affair.
        return self.limiter(request).ticket(
            self.cost(request),
            tenant=request.tenant,
            weight=request.weight,
            max_retries=self.endpoint(request).limits.max_retries,
        )

    def limits(self) -> Limits:
        assert self._default_plan is not None
        return self.endpoint(self._default_plan.template).limits

    def cost(self, request: Request) -> Cost:
        from ..limits import Cost

        return Cost(
            input_tokens=self.estimate_input(request),
            max_output_tokens=request.asked("max_new_tokens"),
        )

    def estimate_input(self, request: Request) -> int:
        from ..wire.tokens import estimate_tokens

        return estimate_tokens(request)

    async def list_models(self, *, chat_only: bool = False) -> list[str]:
        """Ids of the provider's models, as it lists them: all pages."""
        from .listing import list_models

        assert self._default_plan is not None
        endpoint = self.endpoint(self._default_plan.template)
        if endpoint.urls.models is None:
            return await super().list_models()
        return await list_models(self._lane(), endpoint, chat_only=chat_only)

    @property
    def batch(self) -> BatchView:
        """The provider's batch API. Raises `ConfigError` where there is none."""
        from .jobs.door import Door
        from .jobs.view import BatchView

        assert self._default_plan is not None
        return BatchView(self, Door(self._lane(), self.endpoint(self._default_plan.template)))

    async def stop(self) -> None:
        self._transport = None

    def _lane(self) -> Transport:
        if self._transport is None:
            from ..transport.httpx_transport import HttpxTransport, shared_transport

            own = self._http_client
            self._transport = shared_transport() if own is None else HttpxTransport(client=own)
        return self._transport


async def _with_documents(request: Request) -> Request:
    from ..conversation import Type
    from .fetched import names_urls, with_fetched

    kinds = frozenset({Type.DOCUMENT_URL})
    return await with_fetched(request, kinds) if names_urls(request, kinds) else request


class RemoteVLLMInferenceEngine(RemoteInferenceEngine):
    """A vLLM server (``api_url`` is required)."""

    name = "remote_vllm"


class OpenAIInferenceEngine(RemoteInferenceEngine):
    """OpenAI; key in ``OPENAI_API_KEY``."""

    name = "openai"


class AnthropicInferenceEngine(RemoteInferenceEngine):
    """Anthropic's Claude, or any server that speaks the Messages format (``api_url``); key in ``ANTHROPIC_API_KEY``."""

    name = "anthropic"


class TogetherInferenceEngine(RemoteInferenceEngine):
    """Together AI; key in ``TOGETHER_API_KEY``."""

    name = "together"


class DeepSeekInferenceEngine(RemoteInferenceEngine):
    """DeepSeek; key in ``DEEPSEEK_API_KEY``."""

    name = "deepseek"


class SambanovaInferenceEngine(RemoteInferenceEngine):
    """SambaNova; key in ``SAMBANOVA_API_KEY``."""

    name = "sambanova"


class ParasailInferenceEngine(RemoteInferenceEngine):
    """Parasail; key in ``PARASAIL_API_KEY``."""

    name = "parasail"


class LambdaInferenceEngine(RemoteInferenceEngine):
    """Lambda's former inference API, which ended in 2025: give the ``api_url`` of a server that speaks it."""

    name = "lambda"


class FireworksInferenceEngine(RemoteInferenceEngine):
    """Fireworks AI; key in ``FIREWORKS_API_KEY``."""

    name = "fireworks"


class OpenRouterInferenceEngine(RemoteInferenceEngine):
    """OpenRouter; key in ``OPENROUTER_API_KEY``."""

    name = "openrouter"


class CerebrasInferenceEngine(RemoteInferenceEngine):
    """Cerebras; key in ``CEREBRAS_API_KEY``."""

    name = "cerebras"


class HuggingFaceRouterInferenceEngine(RemoteInferenceEngine):
    """Hugging Face's router; key in ``HF_TOKEN``."""

    name = "huggingface"


class GoogleGeminiInferenceEngine(RemoteInferenceEngine):
    """Gemini in its own format, or the OpenAI-compatible one if ``api_url`` names it; key in ``GEMINI_API_KEY``."""

    name = "gemini"


class GoogleVertexInferenceEngine(RemoteInferenceEngine):
    """Models on Vertex AI: Gemini and Claude in their own formats, chosen by the model's name, and what an ``api_url``
    that ends in ``endpoints/openapi`` offers.

    Credentials: ``api_key`` is the path of a service account's file, an access token or an API key (express mode);
    without it Google's application default credentials are used (extra ``google``). Project and region come from
    ``remote_params``, ``model_kwargs`` or the environment (``PROJECT_ID``, ``GOOGLE_CLOUD_PROJECT``, ``REGION``,
    ``GOOGLE_CLOUD_LOCATION``); the region is ``global`` if none is named.
    """

    name = "google_vertex"


class SGLangInferenceEngine(RemoteInferenceEngine):
    """An SGLang server: its OpenAI-compatible endpoint or, where ``api_url`` ends in ``/generate``, its own format."""

    name = "sglang"
