"""From the parameters of an engine and of a call to a `Request`: who overrides whom.

Rule: only explicitly set fields override; a default never does. Engine < ``inference_config`` < keyword arguments.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from ..completion import Timeouts
from ..conversation import Conversation, Message, Role, ToolDefinition
from ..errors import ConfigError
from ..params import GenerationParams, GuidedDecodingParams, merge
from ..prompt import Prompt
from ..request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..params import InferenceConfig, ModelParams, RemoteParams


class Parameters(Protocol):
    """Where an engine keeps its own."""

    model_params: ModelParams
    generation_params: GenerationParams
    remote_params: RemoteParams | None
    takes_prompts: bool


class Plan:
    """Resolved parameters, ready to be joined with any number of conversations (and prompts, if ``prompts``)."""

    __slots__ = ("_prompts", "template")

    def __init__(self, template: Request, *, prompts: bool = False) -> None:
        self.template = template
        self._prompts = prompts

    def request(self, conversation: Any, tenant: str, weight: float) -> Request:
        """One call's request. Raises `ConfigError` for what is no conversation."""
        template = self.template
        prompt = conversation if isinstance(conversation, Prompt) else None
        if prompt is not None and not self._prompts:
            raise ConfigError(
                "this engine answers conversations and completes no bare Prompt; the engines that do run the model in "
                "your process (VLLM, LLAMACPP, NATIVE)",
                path="prompt",
            )
        checked = as_conversation(conversation) if prompt is None else prompt.conversation()
        return Request(
            conversation=checked,
            model=template.model,
            generation=template.generation,
            remote=template.remote,
            tools=template.tools if template.tools is not None else checked.tools,
            prompt=prompt,
            timeouts=template.timeouts,
            stream=template.stream,
            chosen=template.chosen,
            response_model=template.response_model,
            tenant=tenant,
            weight=weight,
        )


def make_plan(
    engine: Parameters,
    generation: GenerationParams | None,
    config: InferenceConfig | None,
    response_model: type[Any] | None,
    tools: Sequence[Any] | None,
    timeouts: Timeouts | None,
) -> Plan:
    """Merge. Raises `ConfigError`."""
    _expect("generation", generation, GenerationParams)
    _expect("timeouts", timeouts, Timeouts)
    model, sampling, remote = engine.model_params, engine.generation_params, engine.remote_params
    if config is not None:
        from ..params import InferenceConfig

        _expect("inference_config", config, InferenceConfig)
        model = merge(model, config.model)
        sampling = merge(sampling, config.generation)
        if config.remote_params is not None:
            remote = config.remote_params if remote is None else merge(remote, config.remote_params)
    if generation is not None:
        sampling = merge(sampling, generation)
    if response_model is not None:
        sampling = merge(sampling, GenerationParams(guided_decoding=GuidedDecodingParams(json=response_model)))
    if sampling.guided_decoding is not None:
        from .shapes import check_shape

        check_shape(sampling.guided_decoding)
    return Plan(
        Request(
            conversation=_NOBODY,
            model=model,
            generation=sampling,
            remote=remote,
            tools=None if tools is None else [ToolDefinition.of(tool) for tool in tools],
            timeouts=timeouts or clocks(remote),
            stream=remote is None or remote.use_streaming,
            response_model=response_model,
            chosen=_chosen(sampling),
        ),
        prompts=engine.takes_prompts,
    )


def _chosen(sampling: GenerationParams) -> frozenset[str]:
    """What somebody set. No limit at all is what a provider assumes where it is told nothing."""
    unlimited = {"max_new_tokens"} if sampling.max_new_tokens is None else set()
    return frozenset(sampling.model_fields_set - unlimited)


def _expect(name: str, value: Any, kind: type[Any]) -> None:
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{name}: expected {kind.__name__}(...) or None, not {type(value).__name__}", path=name)


def clocks(remote: RemoteParams | None) -> Timeouts:
    """The clocks that remote parameters ask for. ``connection_timeout`` is the longest silence tolerated: it bounds
    connecting, the first token and each next one."""
    timeouts = Timeouts()
    if remote is None:
        return replace(timeouts, connect=None)
    chosen = remote.model_fields_set
    if "connection_timeout" in chosen:
        silence = remote.connection_timeout or None
        timeouts = Timeouts(connect=silence, first_token=silence, between_tokens=silence)
    names = {
        "connect_timeout": "connect",
        "first_token_timeout": "first_token",
        "between_tokens_timeout": "between_tokens",
        "total_timeout": "total",
    }
    return replace(timeouts, **{clock: getattr(remote, name) for name, clock in names.items() if name in chosen})


def as_conversation(value: Any) -> Conversation:
    """A conversation from what a caller may hand over: one, a user message's text, a list of messages, a dict.

    Raises:
        ConfigError: it is none of them, or empty.
    """
    if isinstance(value, Conversation):
        conversation = value
    elif isinstance(value, str):
        conversation = Conversation(messages=[Message(role=Role.USER, content=value)])
    elif isinstance(value, dict):
        conversation = Conversation.from_dict(value)
    elif isinstance(value, list):
        conversation = Conversation.from_dict({"messages": value})
    else:
        raise ConfigError(
            f"expected a Conversation, a string, a list of messages or a dict, not {type(value).__name__}",
            path="conversation",
        )
    if not conversation.messages:
        raise ConfigError("the conversation has no messages; add at least one", path="conversation.messages")
    return conversation


_NOBODY = Conversation(messages=[])
