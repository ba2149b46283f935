"""From the bytes of an answer to events: event streams, single documents, arrays of chunks.

Which of them a body is, its first byte tells. The format has no terminal marker: the body's end is the end, and the
answer is whole if every candidate had its finish reason by then. An error in the middle of a stream comes as bare JSON
over several lines, without ``data:`` before it.

What must go back on a later turn is handed out as it came, at its place: a signature on a call in the call's
``extra``; for everything else a ``details`` entry of a `ReasoningDelta` whose ``text_at``, ``thought_at`` and
``calls_at`` say how much text, reasoning and how many calls stood before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from ..sse import MAX_EVENT_BYTES, SSEDecoder
from .chunks import FINISH_REASONS, Call, Candidate, Chunk, Part, read_chunk, read_odd
from .partial import PartialArguments
from .refusals import refusal_in_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MAX_BARE = 256 * 1024  # an error's JSON outside of events
_FIELDS = (b"data", b"event", b"id", b"retry", b":")


class _Lines(SSEDecoder):
    """An event stream that keeps the lines that belong to no event: Google writes errors so."""

    __slots__ = ("bare", "depth", "size")

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes)
        self.bare: list[bytes] = []
        self.depth = 0
        self.size = 0

    def _line(self, line: bytes) -> None:
        if not self.bare and line.startswith(_FIELDS):
            super()._line(line)
        elif self.bare and line.startswith(b"data:"):  # an event after all
            self.bare, self.depth = [], 0
            super()._line(line)
        else:
            self.size += len(line) + 1
            if self.size > _MAX_BARE:
                raise ProtocolError("The provider sent something that is neither an event nor an error.")
            self.bare.append(line)
            self.depth += line.count(b"{") - line.count(b"}")

    def feed_all(self, chunk: bytes) -> list[bytes]:
        """As `feed`, with an error that stands outside of events as one more event."""
        events = self.feed(chunk)
        if self.bare and self.depth <= 0:
            events += self._bare_error()
        return events

    def close_all(self) -> list[bytes]:
        """As `close`, likewise."""
        events = self.close()
        return events + self._bare_error() if self.bare else events

    def _bare_error(self) -> list[bytes]:
        """The error that the lines outside of events make, if they are whole."""
        try:
            value = msgspec.json.decode(b"\n".join(self.bare).strip(b" ,"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        self.bare, self.depth = [], 0
        item = value[0] if isinstance(value, list) and value else value
        return [msgspec.json.encode(item)] if isinstance(item, dict) and item.get("error") else []


class _Answer:
    """What must be remembered of one candidate."""

    __slots__ = ("calls", "finish", "partial", "text", "thought")

    def __init__(self) -> None:
        self.text = 0  # letters so far
        self.thought = 0
        self.calls = 0
        self.partial: PartialArguments | None = None
        self.finish: str | None = None


class GeminiDecoder(BodyDecoder):
    """Decoder of one response body. See `wire.protocol.Decoder`.

    Args:
        choices: how many answers were asked for.
        max_event_bytes: bound of one streamed event; a document may be four times as big.

    Attributes:
        done: the answer came as one document that is read: nothing can follow.
    """

    __slots__ = ("_answers", "_blocked", "_expected", "_flushed", "_started", "_usage")

    def __init__(self, choices: int = 1, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        super().__init__(max_event_bytes)
        self._expected = choices
        self._answers: dict[int, _Answer] = {}
        self._blocked: str | None = None
        self._started = False
        self._flushed = False
        self._usage: Usage | None = None

    @property
    def complete(self) -> bool:
        """Whether every answer that was asked for has its finish reason, or the prompt was refused."""
        if self._broken is not None:
            return False
        return self._blocked is not None or (len(self._answers) >= self._expected and self._whole)

    @property
    def _whole(self) -> bool:
        return bool(self._answers) and all(answer.finish is not None for answer in self._answers.values())

    # -- one event -----------------------------------------------------------------------------------------------------

    def _stream(self) -> tuple[Callable[[bytes], Iterable[Any]], Callable[[], Iterable[Any]]]:
        lines = _Lines(self._max)
        return lines.feed_all, lines.close_all

    def _read_document(self, data: bytes, out: list[Event]) -> None:
        if data.rstrip()[-1:] not in {b"}", b"]"}:
            raise StreamTruncated("The answer broke off in the middle of its JSON document.")
        if data[:1] == b"[":  # what the streaming method sends without alt=sse, and some errors
            value = parse_json(data)
            for item in value if isinstance(value, list) else []:
                self._chunk(read_odd(item), out)
        else:
            self._event(data, out)
            for answer in self._answers.values():  # a document is whole, whether it says why it ended or not
                answer.finish = answer.finish or ""
        if not self._answers and self._blocked is None:
            raise ProtocolError("The provider's answer has no candidates.")
        self.done = True

    def _event(self, data: bytes, out: list[Event]) -> None:
        try:
            chunk = read_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = data.strip()
            if not text or text == b"[DONE]":  # proxies add one
                return
            value = parse_json(text)
            chunk = read_odd(value[0] if isinstance(value, list) and len(value) == 1 else value)
        self._chunk(chunk, out)

    # -- one chunk -----------------------------------------------------------------------------------------------------

    def _chunk(self, chunk: Chunk, out: list[Event]) -> None:
        if not self._started and (chunk.response_id or chunk.model_version or chunk.candidates):
            self._started = True
            out.append(Start(chunk.response_id or "", chunk.model_version or ""))
        for candidate in chunk.candidates or ():
            self._candidate(candidate, out)
        if chunk.usage_metadata is not None:
            usage = chunk.usage_metadata.usage()
            if usage is not None and usage != self._usage:
                self._usage = usage
                out.append(UsageUpdate(usage))
        if chunk.prompt_feedback is not None and not chunk.candidates:
            feedback = chunk.prompt_feedback
            reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
            if isinstance(reason, str) and reason:
                self._blocked = reason
        if chunk.error:
            raise refusal_in_stream({"error": chunk.error})

    def _candidate(self, candidate: Candidate, out: list[Event]) -> None:
        index = candidate.index or 0
        answer = self._answers.get(index)
        if answer is None:
            answer = self._answers[index] = _Answer()
        logprobs = None if candidate.logprobs_result is None else _logprobs(candidate.logprobs_result)
        content = candidate.content
        for part in (content.parts or ()) if content is not None else ():
            text = part.text
            if (
                text
                and part.thought_signature is None
                and not part.thought
                and part.function_call is None
                and not part.special
            ):
                answer.text += len(text)
                out.append(TextDelta(text, index, logprobs))
                logprobs = None
            else:
                self._part(part, answer, index, out)
        if logprobs:
            out.append(TextDelta("", index, logprobs))
        beside = _beside(candidate)
        if beside is not None:
            out.append(ReasoningDelta("", index, [beside]))
        if candidate.finish_reason and answer.finish is None:
            answer.finish = candidate.finish_reason

    def _part(self, part: Part, answer: _Answer, index: int, out: list[Event]) -> None:
        """A part that is more than plain text."""
        signature, text = part.thought_signature, part.text or ""
        if part.function_call is not None:
            self._call(part.function_call, signature, answer, index, out)
            return
        place = {"text_at": answer.text, "thought_at": answer.thought, "calls_at": answer.calls}
        if part.special:
            out.append(ReasoningDelta("", index, [{"type": "google.part", **place, "part": part.as_sent()}]))
            return
        if part.thought:
            answer.thought += len(text)
        elif text:
            answer.text += len(text)
            out.append(TextDelta(text, index))
        if signature is not None:
            kind = "thought" if part.thought else "text"
            detail = {"type": f"google.{kind}_signature", **place, "length": len(text), "signature": signature}
            out.append(ReasoningDelta(text if part.thought else "", index, [detail]))
        elif part.thought and text:
            out.append(ReasoningDelta(text, index))

    def _call(self, call: Call, signature: str | None, answer: _Answer, index: int, out: list[Event]) -> None:
        extra = None if signature is None else {"google": {"thought_signature": signature}}
        partial = answer.partial
        if partial is None and (call.partial_args is not None or call.will_continue):
            partial = answer.partial = PartialArguments(answer.calls)
            answer.calls += 1
        if partial is None:
            arguments = bytes(call.args).decode("utf-8", "replace")
            if not arguments.startswith("{"):  # none, or nothing that a function could take
                arguments = "{}"
            out.append(ToolCallDelta(answer.calls, call.id or None, call.name or "", arguments, index, extra))
            answer.calls += 1
            return
        partial.id, partial.name = partial.id or call.id, partial.name or call.name
        partial.extra = partial.extra or extra
        for piece in call.partial_args or ():
            partial.add(piece)
        if not call.will_continue:
            self._flush_partial(answer, index, out)

    @staticmethod
    def _flush_partial(answer: _Answer, index: int, out: list[Event]) -> None:
        partial, answer.partial = answer.partial, None
        if partial is not None:
            arguments = msgspec.json.encode(partial.value).decode()
            out.append(ToolCallDelta(partial.number, partial.id, partial.name or "", arguments, index, partial.extra))

    # -- the end -------------------------------------------------------------------------------------------------------

    def _end(self, out: list[Event]) -> None:
        if self._flushed:
            return
        if self._blocked is None and not self._whole:
            raise StreamTruncated("The stream ended before the answer did: no finish reason was seen.")
        self._flushed = True
        if not self._answers and self._blocked is not None:
            raw = self._blocked
            out.extend(Finish(FinishReason.CONTENT_FILTER, index, None, raw) for index in range(self._expected))
            return
        for index, answer in sorted(self._answers.items()):
            self._flush_partial(answer, index, out)
            word = answer.finish
            reason = FINISH_REASONS.get((word or "").upper(), FinishReason.UNKNOWN)
            if self._blocked is not None and not word:
                reason, word = FinishReason.CONTENT_FILTER, self._blocked
            if reason is FinishReason.STOP and answer.calls:
                reason = FinishReason.TOOL_CALLS
            out.append(Finish(reason, index, None, word or None))


def _beside(candidate: Candidate) -> dict[str, Any] | None:
    """Sources and the token to go on with: kept, never sent back by themselves."""
    if (
        candidate.grounding_metadata is None
        and candidate.citation_metadata is None
        and candidate.url_context_metadata is None
        and candidate.continuation_token is None
    ):
        return None
    found = {
        "groundingMetadata": candidate.grounding_metadata,
        "citationMetadata": candidate.citation_metadata,
        "urlContextMetadata": candidate.url_context_metadata,
        "continuationToken": candidate.continuation_token,
    }
    return {"type": "google.metadata", **{name: value for name, value in found.items() if value is not None}}


def _logprobs(result: Any) -> list[Any] | None:
    """A list with one entry for each token, in the shape that Chat Completions made usual."""
    if not isinstance(result, dict):
        return None
    chosen, tops = result.get("chosenCandidates"), result.get("topCandidates")
    if not isinstance(chosen, list):
        return None
    tops = tops if isinstance(tops, list) else []
    entries = []
    for at, token in enumerate(chosen):
        if not isinstance(token, dict):
            continue
        top = tops[at] if at < len(tops) and isinstance(tops[at], dict) else {}
        others = top.get("candidates")
        entries.append(
            _token(token)
            | {"top_logprobs": [_token(o) for o in others if isinstance(o, dict)] if isinstance(others, list) else []}
        )
    return entries or None


def _token(value: dict[str, Any]) -> dict[str, Any]:
    return {"token": value.get("token", ""), "logprob": value.get("logProbability", 0.0)}
