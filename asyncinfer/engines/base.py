"""`Engine`: the public face that every engine shares, and the merge of parameters behind it.

Rule: light to import (a web app that names one engine must not pay for all of them), and no knowledge of HTTP, formats
or models. An engine of one's own overrides ``produce`` (an async generator of events) or ``open`` (for one that pulls).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from ..errors import AsyncInferError, ConfigError, EngineClosedError, UnsupportedParameterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
    from types import TracebackType

    from ..completion import Completion, Failure, Timeouts
    from ..conversation import Conversation
    from ..events import Event
    from ..limits import Cost, Limits
    from ..params import GenerationParams, InferenceConfig, ModelParams, RemoteParams
    from ..prompt import Prompt
    from ..request import Request
    from ..scheduling.limiter import Limiter, Ticket
    from .call import Call
    from .many import Many
    from .plan import Plan
    from .source import Source
    from .startup import Once
    from .stream import Stream

_LOOK_AHEAD = 64
_MAX_WINDOW = 512


class Engine:
    """Anything that answers conversations with streams of events.

    Args:
        model_params: which model; its own defaults if None.
        generation_params: sampling parameters of every call, unless the call overrides them.
        remote_params: endpoint, credentials and limits, for remote engines.

    An engine opens itself on first use and may be used from any number of tasks and event loops. ``async with engine``
    or ``await engine.aclose()`` lets go of what it holds; it opens itself again if it is used after that.
    """

    name = "custom"
    """How the engine is called in errors and tables."""
    slots: int | None = None
    """How many answers are made at once; None: learned while running."""
    takes_prompts = False
    """Whether it completes a `Prompt` word for word, besides answering conversations."""
    keeps_clocks = False
    """Whether the engine's own calls watch over first token and silence; then the pipeline only watches the total."""

    def __init__(
        self,
        model_params: ModelParams | None = None,
        *,
        generation_params: GenerationParams | None = None,
        remote_params: RemoteParams | None = None,
    ) -> None:
        from ..params import GenerationParams, ModelParams

        # Copies: an engine never changes, and never sees changes of, what its caller owns.
        self.model_params = model_params.model_copy(deep=True) if model_params is not None else ModelParams()
        self.generation_params = (
            generation_params.model_copy(deep=True) if generation_params is not None else GenerationParams()
        )
        self.remote_params = remote_params.model_copy(deep=True) if remote_params is not None else None
        self.live: set[Call] = set()
        self._once: Once | None = None
        self._own_limiter: Limiter | None = None
        self._warned: set[str] = set()
        self._default_plan: Plan | None = None
        self.plan(None, None, None, None, None)

    # -- the public face ---------------------------------------------------------------------------------------------

    def stream(
        self,
        conversation: Conversation | Prompt | str,
        *,
        generation: GenerationParams | None = None,
        inference_config: InferenceConfig | None = None,
        response_model: type[Any] | None = None,
        tools: list[Any] | None = None,
        timeouts: Timeouts | None = None,
        tenant: str = "",
        weight: float = 1.0,
    ) -> Stream:
        """Begin an answer; nothing is sent before the stream is read.

        Args:
            conversation: the messages so far (a string is one user message), never changed; or a `Prompt`, which an
                engine in your process completes word for word.
            generation: parameters of this call; only explicitly set ones override the engine's.
            inference_config: the same, for model, generation and remote parameters together.
            response_model: pydantic class (or any type pydantic can validate) that the answer is parsed into.
            tools: tools offered to the model: `ToolDefinition`, OpenAI-style dicts or Python callables.
            timeouts: the four clocks of this call.
            tenant: who asks; tenants share the limiter fairly, in proportion to ``weight``.
            weight: share of the tenant, a positive number.

        Returns:
            `Stream`: ``async for token in stream`` yields pieces of text.

        Raises:
            ConfigError: a parameter is wrong.
        """
        from .call import Call
        from .stream import Stream

        plan = self.plan(generation, inference_config, response_model, tools, timeouts)
        return Stream(Call(self, plan.request(conversation, tenant, weight), self.live))

    async def generate(
        self,
        conversation: Conversation | Prompt | str,
        *,
        generation: GenerationParams | None = None,
        inference_config: InferenceConfig | None = None,
        response_model: type[Any] | None = None,
        tools: list[Any] | None = None,
        timeouts: Timeouts | None = None,
        tenant: str = "",
        weight: float = 1.0,
    ) -> Completion:
        """The whole answer: a fold of `stream`, with the same arguments and errors."""
        from .call import Call

        plan = self.plan(generation, inference_config, response_model, tools, timeouts)
        return await Call(self, plan.request(conversation, tenant, weight), self.live).result()

    def generate_many(
        self,
        conversations: Iterable[Conversation | Prompt | str] | AsyncIterable[Conversation | Prompt | str],
        *,
        ordered: bool = True,
        on_error: Literal["return", "raise"] = "return",
        window: int | None = None,
        generation: GenerationParams | None = None,
        inference_config: InferenceConfig | None = None,
        response_model: type[Any] | None = None,
        tools: list[Any] | None = None,
        timeouts: Timeouts | None = None,
        tenant: str = "",
        weight: float = 1.0,
    ) -> Many:
        """Answer many conversations at once, as fast as the limiter allows.

        ``await`` the result for a list in input order, or iterate over it with ``async for`` in constant memory.

        Args:
            conversations: any sync or async iterable, also an endless one; rows are taken as slots come free.
            ordered: iterate in input order (a slow row holds back the ones after it) or as rows finish.
            on_error: ``"return"`` puts a `Failure` in the row's place; ``"raise"`` raises the first error.
            window: the most rows held at a time (in flight, or finished but not yet consumed).
            generation: as for `stream`.
            inference_config: as for `stream`.
            response_model: as for `stream`.
            tools: as for `stream`.
            timeouts: as for `stream`; the total clock runs from a row's first dispatch.
            tenant: as for `stream`.
            weight: as for `stream`.

        Returns:
            `Many`: of `Completion` (truthy) and `Failure` (falsy), each with ``.index``.
        """
        from .many import Many

        if window is not None and window < 1:
            raise ConfigError(f"window must be at least 1, not {window}", path="window")
        if not weight > 0:
            raise ConfigError(f"weight must be a number above 0, not {weight}", path="weight")
        plan = self.plan(generation, inference_config, response_model, tools, timeouts)
        return Many(
            self._answerer(plan, tenant, weight),
            conversations,
            window=window or self._window(),
            ordered=ordered,
            on_error=on_error,
        )

    async def run_tools(
        self,
        conversation: Conversation | str,
        tools: Sequence[Callable[..., Any]],
        *,
        max_rounds: int = 10,
        tool_timeout: float | None = None,
        on_error: Literal["tell", "raise"] = "tell",
        **overrides: Any,
    ) -> Completion:
        """Let the model call Python functions until it answers without a call.

        Args:
            conversation: the messages so far; never changed.
            tools: functions, sync (run in a thread) or async; type hints and docstring describe them to the model.
            max_rounds: the most turns of the model.
            tool_timeout: seconds that one tool may take; the model is told if it takes longer.
            on_error: ``"tell"`` gives a tool's exception to the model as its result; ``"raise"`` raises it.
            overrides: as for `generate`.

        Returns:
            `Completion`: the last answer; its ``.conversation`` has every call and result.

        Raises:
            ToolLoopError: the model still calls tools after ``max_rounds``.
        """
        from .tool_loop import run_tools

        limits: dict[str, Any] = {"max_rounds": max_rounds, "tool_timeout": tool_timeout, "on_error": on_error}
        return await run_tools(self.generate, conversation, tools, **limits, **overrides)

    async def list_models(self, *, chat_only: bool = False) -> list[str]:  # noqa: ARG002 -- one model, and it chats
        """Ids of the models this engine can run; with ``chat_only`` those that answer conversations."""
        return [self.model_params.model_name] if self.model_params.model_name else []

    @classmethod
    def get_supported_params(cls) -> set[str]:
        """Names of the `GenerationParams` fields that it honours; users are warned of others. All, unless overridden:
        only the author of an engine knows what it reads (``testing.check_engine`` holds it to what it claims)."""
        from ..params import GenerationParams

        return set(GenerationParams.model_fields)

    async def aclose(self) -> None:
        """Stop every call that is under way and let go of model, threads and connections."""
        error = EngineClosedError("the engine was closed while this call was under way", provider=self.name)
        for call in list(self.live):
            call.close(error)
        if self._once is not None and self._once.reset():
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- for authors of engines --------------------------------------------------------------------------------------

    def produce(self, request: Request) -> AsyncIterator[Event]:
        """The events of one answer. Override this, or `open`."""
        raise NotImplementedError(f"{type(self).__name__} must define produce() or open()")

    async def open(self, request: Request) -> Source:
        """Begin one answer; called with a slot held. Raises `AsyncInferError` with a retry verdict."""
        from .source import IteratorSource

        return IteratorSource(self.produce(request))

    async def start(self) -> None:
        """Load what is needed, off the event loop; called once before the first answer."""

    async def stop(self) -> None:
        """Let go of what `start` loaded."""

    def limits(self) -> Limits:
        """How this engine's limiter is set up."""
        from ..limits import Limits

        retries = None
        if self.remote_params is not None and "max_retries" in self.remote_params.model_fields_set:
            retries = self.remote_params.max_retries
        return Limits(max_concurrency=self.slots, adaptive=self.slots is None, max_retries=retries)

    def cost(self, request: Request) -> Cost:
        """What a request takes from the limiter's buckets; read only by limiters that have some."""
        from ..limits import Cost

        return Cost(max_output_tokens=request.asked("max_new_tokens"))

    def estimate_input(self, request: Request) -> int:
        """Prompt tokens, roughly: one for four bytes of text."""
        return sum(len(message.text.encode()) for message in request.conversation.messages) // 4

    def unsupported(self, request: Request) -> list[str]:
        """Names of explicitly set parameters, at other than their default, that this engine cannot honour."""
        supported = self.get_supported_params()
        fields = type(request.generation).model_fields
        return [
            name
            for name in request.chosen
            if name not in supported
            and name != "strict_params"
            and getattr(request.generation, name) != fields[name].get_default(call_default_factory=True)
        ]

    # -- what the pipeline asks ----------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Return once the engine is loaded."""
        if self._once is None:
            from .startup import Once

            self._once = Once()
        if not self._once.ready:
            await self._once.run(self.start)

    def limiter(self, request: Request) -> Limiter:  # noqa: ARG002 -- remote engines have one for each destination
        """The limiter that governs a request."""
        if self._own_limiter is None:
            from ..scheduling.limiter import Limiter

            self._own_limiter = Limiter(self.limits(), name=self.name)
        return self._own_limiter

    def ticket(self, request: Request) -> Ticket:
        """A place in the queue of the request's limiter."""
        return self.limiter(request).ticket(self.cost(request), tenant=request.tenant, weight=request.weight)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _window(self) -> int:
        if self.slots is not None:
            return max(_LOOK_AHEAD, 2 * self.slots)
        most = self.limits().max_concurrency
        return max(_LOOK_AHEAD, 2 * most) if most else _MAX_WINDOW

    def plan(
        self,
        generation: GenerationParams | None,
        inference_config: InferenceConfig | None,
        response_model: type[Any] | None,
        tools: list[Any] | None,
        timeouts: Timeouts | None,
    ) -> Plan:
        """The parameters of a call, merged and checked. Raises `ConfigError`."""
        plain = all(given is None for given in (generation, inference_config, response_model, tools, timeouts))
        if plain and self._default_plan is not None:
            return self._default_plan
        from .plan import make_plan

        plan = make_plan(self, generation, inference_config, response_model, tools, timeouts)
        self._check(plan)
        if plain:
            self._default_plan = plan
        return plan

    def _check(self, plan: Plan) -> None:
        """Warn once about each parameter that will not be honoured, or refuse it in strict mode."""
        names = sorted(self.unsupported(plan.template))
        if not names:
            return
        listed = ", ".join(names)
        if plan.template.generation.strict_params:
            raise UnsupportedParameterError(
                f"{self.name} cannot honour {listed}; leave it out, or unset strict_params to ignore it",
                path=f"generation.{names[0]}",
                provider=self.name,
            )
        if "n" in names:  # answers that were not asked for must not be waited for
            from dataclasses import replace

            one = plan.template.generation.model_copy(update={"n": 1})
            plan.template = replace(plan.template, generation=one, chosen=plan.template.chosen - {"n"})
        new = [name for name in names if name not in self._warned]
        if new:
            import logging

            self._warned.update(new)
            logging.getLogger("asyncinfer").warning(
                "%s does not support %s; ignored (strict_params=True makes this an error)", self.name, listed
            )

    def _answerer(self, plan: Plan, tenant: str, weight: float) -> Callable[..., Any]:
        from ..completion import Failure
        from .call import Call

        async def answer(row: Any, index: int, on_dispatch: Callable[[], None]) -> Completion | Failure:
            try:
                request = plan.request(row, tenant, weight)
                completion = await Call(self, request, self.live, on_dispatch).result()
            except AsyncInferError as error:
                return Failure(index=index, conversation=row, error=error)
            completion.index = index
            return completion

        return answer
