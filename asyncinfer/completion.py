"""What comes back from an engine: a `Completion`, or a `Failure` in its place; and the four clocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .conversation import Conversation, Message
    from .errors import AsyncInferError
    from .events import FinishReason, Usage


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The four clocks of a call, in seconds; None switches one off.

    Attributes:
        connect: name lookup, TCP and TLS.
        first_token: from sending the request to the first text, reasoning or tool delta.
        between_tokens: silence between two deltas; keep-alive comments do not count as sound.
        total: the whole call, waiting for a slot and retries included (in ``generate_many``: from a row's dispatch).
    """

    connect: float | None = 30.0
    first_token: float | None = 600.0
    between_tokens: float | None = 300.0
    total: float | None = None


@dataclass(slots=True)
class Timings:
    """When things happened, in seconds.

    Attributes:
        queued: waited for a slot, over all attempts.
        ttft: from the start of the call to its first delta; None if there was none.
        total: from the start of the call to its end.
        deltas: number of content events.
        attempts: requests sent.
    """

    queued: float = 0.0
    ttft: float | None = None
    total: float = 0.0
    deltas: int = 0
    attempts: int = 0

    @property
    def itl(self) -> float | None:
        """Mean time between two deltas after the first (inter-token latency)."""
        if self.ttft is None or self.deltas < 2:
            return None
        return (self.total - self.ttft) / (self.deltas - 1)


@dataclass(slots=True)
class Choice:
    """One answer among ``n``.

    ``logprobs`` is a list with one entry for each token, as the provider sent it, or None.
    """

    index: int
    message: Message
    finish_reason: FinishReason | None
    logprobs: list[Any] | None = None
    matched: str | int | None = None

    @property
    def text(self) -> str:
        """The answer's text, ``""`` if it has none."""
        content = self.message.content
        return content if isinstance(content, str) else ""


@dataclass(slots=True)
class Completion:
    """A whole answer; as ``.partial`` of an error, what had arrived of one.

    Attributes:
        conversation: the input plus the new assistant message; the input itself is never changed.
        choices: the answers, ``n`` of them; `text`, `message` and `finish_reason` are those of choice 0.
        usage: tokens; ``usage.source`` says whether they were counted or estimated.
        timings: when things happened.
        model: the model that answered, as it calls itself.
        id, request_id: the provider's ids of the answer and of the request.
        parsed: what the answer says in the shape that was asked for, validated: the instance of ``response_model``, the
            value of a JSON Schema's answer, the text that matches a regular expression or is one of the choices.
    """

    conversation: Conversation
    choices: list[Choice]
    usage: Usage
    timings: Timings = field(default_factory=Timings)
    model: str = ""
    id: str = ""
    request_id: str | None = None
    parsed: Any = None
    index: int | None = None

    @property
    def message(self) -> Message:
        """The assistant message of choice 0."""
        return self.choices[0].message

    @property
    def text(self) -> str:
        """The text of choice 0."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why choice 0 ended; None in a partial answer that did not."""
        return self.choices[0].finish_reason

    def __bool__(self) -> Literal[True]:
        return True


@dataclass(slots=True)
class Failure:
    """A row of ``generate_many`` that has no answer.

    Attributes:
        index: position of the row in the input, 0-based.
        conversation: the row, as given.
        error: why; ``error.partial`` has what had arrived.
    """

    index: int
    conversation: Conversation
    error: AsyncInferError

    def __bool__(self) -> Literal[False]:
        return False
