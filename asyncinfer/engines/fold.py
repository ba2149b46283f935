"""Events to a completion: the whole answer is a fold of its stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..completion import Choice, Completion, Timings
from ..events import (
    Event,
    Finish,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)

if TYPE_CHECKING:
    from ..conversation import Message
    from ..request import Request


class _Call:
    """One tool call, in pieces."""

    __slots__ = ("arguments", "extra", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []
        self.extra: Any = None


class _Answer:
    """One choice, in pieces."""

    __slots__ = ("calls", "details", "finish", "logprobs", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.details: list[Any] = []
        self.calls: dict[int, _Call] = {}
        self.logprobs: list[Any] | None = None
        self.finish: Finish | None = None


class Fold:
    """Takes in the events of one stream of ``expected`` choices; can be asked for the completion at any moment.

    Attributes:
        deltas: number of content events so far.
        started: the last `Start`, if any.
        usage: the last usage the engine reported, if any.
    """

    __slots__ = ("_answers", "_ended", "_expected", "_first", "deltas", "started", "usage")

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._ended = 0
        self._first = _Answer()
        self._answers: dict[int, _Answer] = {0: self._first}
        self.deltas = 0
        self.started: Start | None = None
        self.usage: Usage | None = None

    def add(self, events: list[Event]) -> None:
        """Take in a batch of events."""
        for event in events:
            if type(event) is TextDelta:
                self.deltas += 1
                answer = self._first if event.index == 0 else self._answer(event.index)
                answer.text.append(event.text)
                if event.logprobs is not None:
                    if answer.logprobs is None:
                        answer.logprobs = []
                    answer.logprobs.extend(event.logprobs)
            else:
                self._add_other(event)

    def _add_other(self, event: Event) -> None:
        if type(event) is ReasoningDelta:
            self.deltas += 1
            answer = self._answer(event.index)
            if event.text:
                answer.reasoning.append(event.text)
            if event.details is not None:
                answer.details.extend(event.details if isinstance(event.details, list) else [event.details])
        elif type(event) is ToolCallDelta:
            self.deltas += 1
            self._add_call(event)
        elif type(event) is UsageUpdate:
            self.usage = event.usage
        elif type(event) is Finish:
            answer = self._answer(event.index)
            self._ended += answer.finish is None
            answer.finish = event
        elif type(event) is Start:
            self.started = event

    def _add_call(self, event: ToolCallDelta) -> None:
        call = self._answer(event.index).calls.setdefault(event.call, _Call())
        if event.id:
            call.id = event.id
        if event.name:
            call.name = event.name
        if event.arguments:
            call.arguments.append(event.arguments)
        if event.extra is not None:
            call.extra = event.extra

    def _answer(self, index: int) -> _Answer:
        found = self._answers.get(index)
        if found is None:
            found = self._answers[index] = _Answer()
        return found

    @property
    def finished(self) -> bool:
        """Whether every choice that was asked for has ended."""
        return self._ended >= self._expected and self._ended == len(self._answers)

    def estimated_output(self) -> int:
        """Output tokens of an answer that ended before its usage came: a delta is at least a token, and four letters
        are about one."""
        letters = sum(
            len(piece)
            for answer in self._answers.values()
            for pieces in (answer.text, answer.reasoning, *(call.arguments for call in answer.calls.values()))
            for piece in pieces
        )
        return max(self.deltas, -(-letters // 4))

    def completion(self, request: Request, usage: Usage, timings: Timings, request_id: str | None) -> Completion:
        """The answer as far as it is known."""
        choices = [
            Choice(
                index=index,
                message=_message(answer),
                finish_reason=answer.finish.reason if answer.finish else None,
                logprobs=answer.logprobs,
                matched=answer.finish.matched if answer.finish else None,
            )
            for index, answer in sorted(self._answers.items())
        ]
        started = self.started or Start()
        return Completion(
            conversation=request.conversation.with_message(choices[0].message),
            choices=choices,
            usage=usage,
            timings=timings,
            model=started.model or request.model.model_name or "",
            id=started.id,
            request_id=started.request_id or request_id,
        )


def _message(answer: _Answer) -> Message:
    from ..conversation import FunctionCall, Message, Role, ToolCall

    calls = [
        ToolCall(
            id=call.id or f"call_{position}",
            type="function",
            function=FunctionCall(name=call.name, arguments="".join(call.arguments) or "{}"),
            **({"extra_content": call.extra} if call.extra is not None else {}),
        )
        for position, call in sorted(answer.calls.items())
    ]
    text = "".join(answer.text)
    fields: dict[str, Any] = {"role": Role.ASSISTANT, "content": None if calls and not text else text}
    if calls:
        fields["tool_calls"] = calls
    if answer.reasoning:
        fields["reasoning_content"] = "".join(answer.reasoning)
    if answer.details:
        fields["reasoning_details"] = answer.details
    return Message(**fields)
