"""One call, fully resolved: what an engine is asked to answer. Made by the pipeline, read by codecs and engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .completion import Timeouts
    from .conversation import Conversation, ToolDefinition
    from .params import GenerationParams, ModelParams, RemoteParams
    from .prompt import Prompt


@dataclass(slots=True)
class Request:
    """A conversation together with everything that decides its answer.

    Attributes:
        conversation: the input; never mutated.
        model: which model, and how to load it.
        generation: sampling parameters, overrides merged in.
        chosen: names of the generation parameters that somebody set explicitly: codecs send only those. Kept here
            because finding them out costs microseconds that a million rows would each pay.
        remote: endpoint and credentials, for remote engines.
        tools: tools offered to the model: the call's own, else the conversation's.
        stream: ask the provider for a stream (the default) or for one document.
        timeouts: the four clocks.
        response_model: pydantic class the answer is parsed into, or None. Its schema is in
            ``generation.guided_decoding.json``.
        tenant, weight: who asks, for fair queuing.
        prompt: what is completed without a chat template, or None; ``conversation`` then only shows it.
    """

    conversation: Conversation
    model: ModelParams
    generation: GenerationParams
    remote: RemoteParams | None
    tools: list[ToolDefinition] | None
    timeouts: Timeouts
    chosen: frozenset[str] = frozenset()
    stream: bool = True
    response_model: type[Any] | None = None
    tenant: str = ""
    weight: float = 1.0
    prompt: Prompt | None = None

    def asked(self, name: str) -> Any:
        """The value of a generation parameter if somebody set it explicitly, else None."""
        return getattr(self.generation, name) if name in self.chosen else None
