"""ConverseStream's messages, or Converse's document, to events.

``messageStart (contentBlockStart? contentBlockDelta* contentBlockStop)* messageStop metadata``. Blocks of text and of
reasoning have no start. ``messageStop`` is the terminal marker; the usage follows it.

Signed and redacted reasoning travels as ``details``, in the shape that Converse wants back (`blocks`), blobs as base64.
Unknown messages and blocks are passed over: the service adds new ones.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import AsyncInferError, ProtocolError, StreamTruncated
from ...events import (
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from ..lenient import count
from .frames import Frame, FrameBuffer
from .refusals import refusal

if TYPE_CHECKING:
    from ...events import Event

_REASONS = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "malformed_model_output": FinishReason.ERROR,
    "malformed_tool_use": FinishReason.ERROR,
    "model_context_window_exceeded": FinishReason.CONTEXT_OVERFLOW,
}
_parse = msgspec.json.Decoder().decode


class ConverseDecoder:
    """One stream. See `wire.protocol.Decoder`: bytes in through `feed`, the end through `close`.

    Args:
        model: the model that was asked; the service does not name it.
        request_id: the service's id of the request.
    """

    __slots__ = ("_error", "_frames", "_held", "_messages", "done")

    def __init__(self, model: str = "", request_id: str | None = None) -> None:
        self.done = False
        self._frames = FrameBuffer()
        self._messages = _Messages()
        self._held: list[Event] = [Start(model=model, request_id=request_id)]
        self._error: AsyncInferError | None = None

    @property
    def complete(self) -> bool:
        """Whether the answer is whole: ``messageStop`` was seen. Usage may follow."""
        return self._messages.stopped

    def feed(self, chunk: bytes) -> list[Event]:
        """Events that ``chunk`` completes. Raises the service's exceptions, and `ProtocolError`."""
        if self._error is not None:
            raise self._error
        events: list[Event] = []
        try:
            for frame in self._frames.feed(chunk):
                self._take(frame, events)
        except AsyncInferError as error:
            self._error = error
            if all(type(event) is Start for event in events):  # nothing of the answer is lost
                raise
        return events

    def close(self) -> list[Event]:
        """The body ended. Raises `StreamTruncated` if the answer had not."""
        if self._error is not None:
            raise self._error
        if not self.complete:
            where = "between two messages" if self._frames.empty else "inside a message"
            raise StreamTruncated(f"the stream ended {where}, before messageStop: the answer is not complete")
        return []

    def _take(self, frame: Frame, events: list[Event]) -> None:
        headers = frame.headers
        kind = headers.get(":message-type")
        if kind == "error":
            raise refusal(str(headers.get(":error-code", "")), str(headers.get(":error-message", "")))
        try:
            body = _parse(frame.payload) if frame.payload else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError("a message of the event stream does not hold valid JSON") from error
        if not isinstance(body, dict):
            raise ProtocolError("a message of the event stream does not hold a JSON object")
        if kind == "exception":
            original = body.get("originalStatusCode")
            raise refusal(
                str(headers.get(":exception-type", "")),
                str(body.get("originalMessage") or body.get("message") or body.get("Message") or ""),
                original_status=original if isinstance(original, int) else None,
            )
        self.message(str(headers.get(":event-type", "")), body, events)

    def message(self, name: str, body: dict[str, Any], events: list[Event]) -> None:
        """Add the events of one message, given by its name and its parsed payload, to ``events``."""
        if self._held:
            events += self._held
            self._held = []
        try:
            self._messages.take(name, body, events)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"a {name} message of the stream has a shape that Converse does not have") from error
        self.done = self._messages.ended


class _Messages:
    """What must be remembered from one message to the next."""

    __slots__ = ("_calls", "_reasoning", "_sealed", "_signature", "_skipped", "ended", "stopped")

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}  # block -> position of the tool call
        self._skipped: set[int] = set()  # blocks of tools that the service runs itself
        self._reasoning: dict[int, list[str]] = {}
        self._signature: dict[int, list[str]] = {}
        self._sealed: dict[int, bytes] = {}
        self.stopped = False
        self.ended = False

    def take(self, name: str, body: dict[str, Any], events: list[Event]) -> None:
        if name == "contentBlockDelta":
            self._delta(body["contentBlockIndex"], body["delta"], events)
        elif name == "contentBlockStart":
            self._start(body["contentBlockIndex"], body["start"], events)
        elif name == "contentBlockStop":
            self._stop(body["contentBlockIndex"], events)
        elif name == "messageStop":
            for block in sorted({*self._signature, *self._sealed}):
                self._stop(block, events)
            self.stopped = True
            events.append(_finish(body["stopReason"], body.get("additionalModelResponseFields")))
        elif name == "metadata":
            self.ended = self.stopped
            if isinstance(body.get("usage"), dict):
                events.append(UsageUpdate(_usage(body["usage"])))

    def _start(self, block: int, start: dict[str, Any], events: list[Event]) -> None:
        tool = start.get("toolUse")
        if tool is None:
            return
        if tool.get("type") == "server_tool_use":
            self._skipped.add(block)
            return
        self._calls[block] = position = len(self._calls)
        events.append(ToolCallDelta(call=position, id=tool["toolUseId"], name=tool["name"]))

    def _delta(self, block: int, delta: dict[str, Any], events: list[Event]) -> None:
        text = delta.get("text")
        if text is not None:
            if text:
                events.append(TextDelta(text))
            return
        tool = delta.get("toolUse")
        if tool is not None:
            if tool.get("input") and block not in self._skipped:
                events.append(ToolCallDelta(call=self._calls[block], arguments=tool["input"]))
            return
        reasoning = delta.get("reasoningContent")
        if reasoning is None:
            return
        if reasoning.get("text"):
            self._reasoning.setdefault(block, []).append(reasoning["text"])
            events.append(ReasoningDelta(reasoning["text"]))
        if reasoning.get("signature"):
            self._signature.setdefault(block, []).append(reasoning["signature"])
        if reasoning.get("redactedContent"):
            self._sealed[block] = self._sealed.get(block, b"") + b64decode(reasoning["redactedContent"], validate=True)

    def _stop(self, block: int, events: list[Event]) -> None:
        text = "".join(self._reasoning.pop(block, ()))
        signature = "".join(self._signature.pop(block, ()))
        sealed = self._sealed.pop(block, b"")
        details = _details(text, signature, sealed)
        if details:
            events.append(ReasoningDelta("", details=details))


def _details(text: str, signature: str, sealed: bytes) -> list[Any]:
    """What must be sent back of a block of reasoning: only what is signed or sealed."""
    details: list[Any] = []
    if signature:
        details.append({"reasoningText": {"text": text, "signature": signature}})
    if sealed:
        details.append({"redactedContent": b64encode(sealed).decode("ascii")})
    return details


def _finish(reason: str, fields: Any) -> Finish:
    matched = fields.get("stop_sequence") if isinstance(fields, dict) else None
    known = _REASONS.get(reason, FinishReason.UNKNOWN)
    return Finish(known, matched=matched if isinstance(matched, str) else None, raw=reason)


def _usage(usage: dict[str, Any]) -> Usage:
    """``inputTokens`` leaves out what was read from and written to the cache; ours has both in it."""
    read = count(usage.get("cacheReadInputTokens")) or 0
    written = count(usage.get("cacheWriteInputTokens")) or 0
    return Usage(
        input_tokens=(count(usage.get("inputTokens")) or 0) + read + written,
        output_tokens=count(usage.get("outputTokens")) or 0,
        cached_tokens=read,
        cache_write_tokens=written,
    )


def read_document(document: dict[str, Any], model: str = "", request_id: str | None = None) -> list[Event]:
    """The events of a whole answer of Converse, blobs as bytes.

    Raises:
        ProtocolError: it is not one.
    """
    events: list[Event] = [Start(model=model, request_id=request_id)]
    try:
        calls = 0
        for block in document["output"]["message"]["content"]:
            if block.get("text"):
                events.append(TextDelta(block["text"]))
            tool, reasoning = block.get("toolUse"), block.get("reasoningContent")
            if tool is not None and tool.get("type") != "server_tool_use":
                arguments = msgspec.json.encode(tool.get("input") or {}).decode()
                events.append(ToolCallDelta(call=calls, id=tool["toolUseId"], name=tool["name"], arguments=arguments))
                calls += 1
            if reasoning is not None:
                shown = reasoning.get("reasoningText") or {}
                text = shown.get("text") or ""
                details = _details(text, shown.get("signature") or "", reasoning.get("redactedContent") or b"")
                if text or details:
                    events.append(ReasoningDelta(text, details=details or None))
        if isinstance(document.get("usage"), dict):
            events.append(UsageUpdate(_usage(document["usage"])))
        events.append(_finish(document["stopReason"], document.get("additionalModelResponseFields")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProtocolError("the answer has a shape that Converse does not have") from error
    return events
