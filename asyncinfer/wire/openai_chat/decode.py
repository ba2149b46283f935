"""From the bytes of an answer to events: streams and single documents alike.

When an answer is complete: every choice seen (and every one of the ``n`` asked for) had its finish reason, or
``[DONE]`` came. The body may break off after that; the answer is complete all the same. ``[DONE]`` before a finish
reason ends the answer too, with `FinishReason.UNKNOWN`: the server says that it is done and not why. A body that ends
before either is a `StreamTruncated`. `Finish` events are held until ``[DONE]`` or the body's end: usage may follow a
finish reason.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import ProtocolError, StreamTruncated
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
from ..bodies import BodyDecoder
from ..lenient import parse_json
from ..sse import MAX_EVENT_BYTES
from ..status import error_from_object
from .calls import CallTracker
from .chunks import Choice, Chunk, Delta, Head, read_chunk, read_head, read_odd
from .usage import FINISH_REASONS, read_usage


class _Answer:
    """What must be remembered of one choice."""

    __slots__ = ("any", "calls", "finish", "half", "refused")

    def __init__(self) -> None:
        self.any = False  # some content came
        self.calls: CallTracker | None = None
        self.finish: Finish | None = None
        self.half = ""  # the first half of a surrogate pair that a server cut in two
        self.refused = False


class ChatDecoder(BodyDecoder):
    """Decoder of one response body. See `wire.protocol.Decoder`.

    Args:
        choices: how many answers were asked for.
        ends_at_eof: the provider sends no terminal marker (`Dialect.ends_at_eof`).
        max_event_bytes: bound of one streamed event; a document may be four times as big.

    Attributes:
        done: ``[DONE]`` was seen: nothing of the answer can follow.
    """

    __slots__ = ("_answers", "_ends_at_eof", "_expected", "_flushed", "_odd", "_started", "_usage")

    def __init__(self, choices: int = 1, *, ends_at_eof: bool = False, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        super().__init__(max_event_bytes)
        self._expected = choices
        self._ends_at_eof = ends_at_eof
        self._answers: dict[int, _Answer] = {}
        self._started = False
        self._flushed = False
        self._odd = False  # a chunk needed the slow way: only there can half a surrogate pair come through
        self._usage: Usage | None = None

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, even if the body were cut here: `close` would not raise."""
        if self._broken is not None or not self._answers:
            return False
        return self.done or (
            len(self._answers) >= self._expected and all(a.finish is not None for a in self._answers.values())
        )

    # -- one event -----------------------------------------------------------------------------------------------------

    def _read_document(self, data: bytes, out: list[Event]) -> None:
        if data.rstrip()[-1:] not in {b"}", b"]"}:
            raise self._truncated("The answer broke off in the middle of its JSON document")
        self._event(data, out)
        if not self._answers:
            out.clear()  # its id alone began no answer
            raise ProtocolError("The provider's answer has no choices.")
        self.done = True

    def _event(self, data: bytes, out: list[Event]) -> None:
        if self.done:
            return
        try:
            chunk: Chunk = read_chunk(data) if self._started else read_head(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = data.strip()
            if text.startswith(b"[DONE]"):
                self.done = True
                self._end(out)
                return
            if not text:
                return
            if text[:1] == b"[":
                text = _only_element(text)
            chunk = read_odd(text)
            self._odd = True
        if not self._started and isinstance(chunk, Head):
            self._start(chunk, out)
        for choice in chunk.choices or ():
            delta = choice.delta
            if (
                delta is not None
                and type(delta.content) is str
                and delta.content
                and choice.logprobs is None
                and choice.finish_reason is None
                and delta.tool_calls is None
                and not delta.reasoning_content
                and not delta.reasoning
                and not delta.refusal
            ):
                index = choice.index or 0
                answer = self._answers.get(index)
                if answer is None:
                    answer = self._answers[index] = _Answer()
                answer.any = True
                if self._odd:
                    self._text(answer, delta.content, index, None, out)
                else:
                    out.append(TextDelta(delta.content, index))
            else:
                self._choice(choice, out)
        if chunk.usage is not None or chunk.error is not None or chunk.x_groq is not None or chunk.choices is None:
            self._beside(chunk, data, out)

    def _start(self, chunk: Head, out: list[Event]) -> None:
        if chunk.choices or chunk.id:
            self._started = True
            out.append(Start(chunk.id or "", chunk.model or ""))

    def _beside(self, chunk: Chunk, data: bytes, out: list[Event]) -> None:
        """What a chunk says beside its choices: usage, errors."""
        groq = chunk.x_groq if isinstance(chunk.x_groq, dict) else {}
        usage = read_usage(chunk.usage) or read_usage(groq.get("usage"))
        if usage is not None and usage != self._usage:
            self._usage = usage
            out.append(UsageUpdate(usage))
        error = chunk.error or groq.get("error")
        if error:
            named = chunk.status_code if isinstance(chunk.status_code, int) else None
            raise error_from_object({"error": error}, status=named)
        if chunk.choices is None and chunk.usage is None:
            value = parse_json(data)
            if isinstance(value, dict) and _is_flat_error(value):
                raise error_from_object(value)

    def _choice(self, choice: Choice, out: list[Event]) -> None:
        index = choice.index or 0
        answer = self._answers.get(index)
        if answer is None:
            answer = self._answers[index] = _Answer()
        delta = choice.delta
        if delta is None and not answer.any:  # a document, or a server that streams whole messages
            delta = choice.message
        if delta is not None:
            before = len(out)
            self._reasoning(delta, index, out)
            logprobs = None if choice.logprobs is None else _logprobs(choice.logprobs, delta.content)
            self._content(delta, answer, index, logprobs, out)
            self._calls(delta, answer, index, out)
            answer.any = answer.any or len(out) > before
        if choice.finish_reason and choice.finish_reason != "null" and answer.finish is None:
            answer.finish = _finish(choice, answer, index)

    def _reasoning(self, delta: Delta, index: int, out: list[Event]) -> None:
        text = delta.reasoning_content or delta.reasoning or ""
        if text or delta.reasoning_details:
            out.append(ReasoningDelta(text, index, delta.reasoning_details or None))

    def _content(self, delta: Delta, answer: _Answer, index: int, logprobs: Any, out: list[Event]) -> None:
        content = delta.content
        if isinstance(content, str):
            self._text(answer, content, index, logprobs, out)
        elif content is not None:
            for part in content:
                self._part(part, answer, index, logprobs, out)
                logprobs = None
        elif logprobs:
            out.append(TextDelta("", index, logprobs))
        if delta.refusal:
            answer.refused = True
            self._text(answer, delta.refusal, index, None, out)

    def _part(self, part: Any, answer: _Answer, index: int, logprobs: Any, out: list[Event]) -> None:
        """One part of list content: Mistral's ``thinking`` and ``text``."""
        if isinstance(part, str):
            self._text(answer, part, index, logprobs, out)
        elif isinstance(part, dict) and part.get("type") == "thinking":
            thinking = part.get("thinking")
            pieces = thinking if isinstance(thinking, list) else [thinking]
            text = "".join(
                str(piece.get("text") or "") if isinstance(piece, dict) else str(piece or "") for piece in pieces
            )
            if text:
                out.append(ReasoningDelta(text, index))
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            self._text(answer, part["text"], index, logprobs, out)

    def _text(self, answer: _Answer, text: str, index: int, logprobs: Any, out: list[Event]) -> None:
        """Text, made whole where a server cut a surrogate pair (an emoji) between two chunks."""
        if answer.half:
            text, answer.half = answer.half + text, ""
        if text and not text.isascii():
            if "\ud800" <= text[-1] <= "\udbff":
                text, answer.half = text[:-1], text[-1]
            try:
                text.encode()
            except UnicodeEncodeError:
                text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if text or logprobs:
            out.append(TextDelta(text, index, logprobs))

    def _calls(self, delta: Delta, answer: _Answer, index: int, out: list[Event]) -> None:
        if not delta.tool_calls and delta.function_call is None:
            return
        tracker = answer.calls
        if tracker is None:
            tracker = answer.calls = CallTracker()
        events: list[ToolCallDelta | None] = [tracker.add(piece, index) for piece in delta.tool_calls or ()]
        if delta.function_call is not None and not delta.tool_calls:
            events.append(tracker.add_legacy(delta.function_call, index))
        out.extend(event for event in events if event is not None)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _end(self, out: list[Event]) -> None:
        """The answer is over, at ``[DONE]`` or at the body's end."""
        if self._flushed:
            return
        if not self._answers or not (self.complete or self._ends_at_eof):
            raise self._truncated("The stream ended before the answer did")
        self._flushed = True
        for index, answer in sorted(self._answers.items()):
            if answer.half:
                out.append(TextDelta("\ufffd", index))
            out.append(answer.finish or self._unnamed(answer, index))

    def _unnamed(self, answer: _Answer, index: int) -> Finish:
        if self.done:
            return Finish(FinishReason.UNKNOWN, index)
        called = answer.calls is not None and answer.calls.count > 0
        return Finish(FinishReason.TOOL_CALLS if called else FinishReason.STOP, index)

    @staticmethod
    def _truncated(what: str) -> StreamTruncated:
        return StreamTruncated(f"{what}: no finish reason and no [DONE] was seen.")


def _finish(choice: Choice, answer: _Answer, index: int) -> Finish:
    raw = choice.finish_reason or ""
    reason = FINISH_REASONS.get(raw.lower(), FinishReason.UNKNOWN)
    if reason is FinishReason.STOP:
        if answer.calls is not None and answer.calls.count:  # a named tool_choice, Ollama: "stop" with calls
            reason = FinishReason.TOOL_CALLS
        elif answer.refused:
            reason = FinishReason.REFUSAL
    matched = choice.stop_reason if choice.stop_reason is not None else choice.matched_stop
    if isinstance(matched, bool) or not isinstance(matched, (str, int)):
        matched = None
    return Finish(reason, index, matched, raw)


def _logprobs(value: Any, content: Any) -> list[Any] | None:
    """A list with one entry for each token: OpenAI's, or made from Together's parallel lists and single numbers."""
    if isinstance(value, dict):
        entries = [*(value.get("content") or ()), *(value.get("refusal") or ())]
        if entries:
            return entries
        tokens, numbers = value.get("tokens"), value.get("token_logprobs")
        if isinstance(tokens, list) and isinstance(numbers, list):
            return [{"token": token, "logprob": number} for token, number in zip(tokens, numbers, strict=False)] or None
        return None
    if isinstance(value, (int, float)) and value == value and isinstance(content, str) and content:  # noqa: PLR0124  NaN
        return [{"token": content, "logprob": value}]
    return value if isinstance(value, list) and value else None


def _is_flat_error(value: dict[str, Any]) -> bool:
    """An error without its ``error`` wrapper."""
    if value.get("object") == "error" or value.get("type") == "error" or value.get("detail"):
        return True
    return isinstance(value.get("message"), str) and ("code" in value or "status" in value or "status_code" in value)


def _only_element(text: bytes) -> bytes:
    """Gemini wraps errors in an array of one."""
    value = parse_json(text)
    return msgspec.json.encode(value[0]) if isinstance(value, list) and len(value) == 1 else text
