"""vLLM's outputs as events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, EngineError
from ...events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from ..local.answer import Answer

if TYPE_CHECKING:
    from ..local.ask import Ask
    from .parsers import Parsed, Parsing
    from .prompt import Rendered

_REASONS = {"stop": FinishReason.STOP, "repetition": FinishReason.STOP, "length": FinishReason.LENGTH}


class _Choice:
    """One of the ``n`` answers."""

    __slots__ = ("answer", "finished", "made", "parsed")

    def __init__(self, answer: Answer, parsed: Parsed | None) -> None:
        self.answer = answer
        self.parsed = parsed
        self.made = 0
        self.finished = False

    @property
    def calls(self) -> int:
        return self.answer.calls + (self.parsed.calls if self.parsed is not None else 0)


class Reader:
    """The outputs of one request as events.

    Args:
        name: id of the answer.
        model: who answers.
        ask: what was asked.
        prompt: as it was rendered.
        parsing: vLLM's own parser, or None for the usual markup.
        tokenizer: to write tokens that are reported with log probabilities.

    Attributes:
        echo: text that stands before each answer.
    """

    __slots__ = ("_ask", "_choices", "_id", "_model", "_parsing", "_prompt", "_started", "_tokenizer", "echo")

    def __init__(
        self,
        name: str,
        model: str,
        ask: Ask,
        prompt: Rendered,
        parsing: Parsing | None,
        tokenizer: Any,
    ) -> None:
        self._id = name
        self._model = model
        self._ask = ask
        self._prompt = prompt
        self._parsing = parsing
        self._tokenizer = tokenizer
        self._choices: dict[int, _Choice] = {}
        self._started = False
        self.echo = ""

    def feed(self, output: Any) -> list[Event]:
        """The events of one ``RequestOutput``, which holds what is new.

        Raises:
            EngineError: vLLM broke the answer off.
        """
        events: list[Event] = []
        if not self._started:
            self._started = True
            events += (Start(id=self._id, model=self._model), self._usage(output))
        for one in output.outputs:
            self._choice(one, events)
        if output.finished:
            events.append(self._usage(output))
        return events

    def _usage(self, output: Any) -> UsageUpdate:
        return UsageUpdate(
            Usage(
                input_tokens=len(self._prompt.tokens),
                output_tokens=sum(choice.made for choice in self._choices.values()),
                cached_tokens=output.num_cached_tokens or 0,
            )
        )

    def _choice(self, output: Any, events: list[Event]) -> None:
        index = output.index
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = self._begin()
            if self.echo:
                events.append(TextDelta(self.echo, index=index))
        if choice.finished:
            return
        choice.made += len(output.token_ids)
        ended = output.finish_reason is not None
        text = output.text
        if choice.parsed is not None:
            found, text = choice.parsed.feed(text, list(output.token_ids), self._prompt.tokens, finished=ended)
            events += _at(index, found)
        last = None
        if self._ask.logprobs is not None and output.logprobs:
            entries = self._logprobs(output, self._ask.logprobs)
            last = entries.pop() if entries else None
            for entry in entries:
                events += _at(index, choice.answer.feed_text("", entry))
        events += _at(index, choice.answer.feed_text(text, last))
        if ended:
            choice.finished = True
            events += _at(index, choice.answer.close())
            events.append(self._finish(output, choice))

    def _begin(self) -> _Choice:
        parsing, prompt = self._parsing, self._prompt
        answer = Answer(
            (),  # vLLM finds them
            tools=bool(self._ask.tools) and not (parsing is not None and parsing.tools),
            thinks=prompt.thinks and self._ask.free and not (parsing is not None and parsing.reasons),
            thinking=prompt.thinking,
        )
        return _Choice(answer, parsing.begin() if parsing is not None else None)

    def _finish(self, output: Any, choice: _Choice) -> Finish:
        reason = _REASONS.get(output.finish_reason)
        if reason is None and not self._ask.free:
            raise ConfigError(
                "vLLM could not go on with what the answer is forced into (generation.guided_decoding, or a tool that "
                "must be called): the shape leaves no next token, or vLLM's grammar library cannot follow it",
                path="generation.guided_decoding",
                provider="vllm",
            )
        if reason is None:
            raise EngineError(f"vLLM broke the answer off ({output.finish_reason})", provider="vllm")
        if reason is FinishReason.STOP and choice.calls:
            reason = FinishReason.TOOL_CALLS
        return Finish(reason, index=output.index, matched=output.stop_reason, raw=output.finish_reason)

    def _logprobs(self, output: Any, most: int) -> list[dict[str, Any]]:
        """One entry for each token in the OpenAI shape."""
        entries = []
        for token, known in zip(output.token_ids, output.logprobs, strict=False):
            best = sorted(known.items(), key=lambda item: item[1].rank or 0)[:most]
            entries.append({**self._entry(token, known[token]), "top_logprobs": [self._entry(*item) for item in best]})
        return entries

    def _entry(self, token: int, known: Any) -> dict[str, Any]:
        text = known.decoded_token
        if text is None:
            text = self._tokenizer.decode([token])
        return {"token": text, "logprob": float(known.logprob), "bytes": list(text.encode()), "id": token}


def _at(index: int, events: list[Event]) -> list[Event]:
    if index:
        for event in events:
            if isinstance(event, (TextDelta, ReasoningDelta, ToolCallDelta)):
                event.index = index
    return events
