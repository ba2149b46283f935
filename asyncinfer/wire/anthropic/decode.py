"""From the bytes of an answer to events: streams and single documents alike.

A stream is ``message_start``, blocks one after the other, ``message_delta`` with the stop reason, ``message_stop``;
pings and events of unknown types may stand anywhere and say nothing. An answer is complete once its stop reason was
seen; a body that ends before is a `StreamTruncated`.

What must go back on the next turn (`blocks`) is in the ``details`` of reasoning events: each thinking block, signature
included, when it ends. A turn is nearly always thinking, then one text, then calls, and then that is all. A turn of
another order (thinking between calls, cited texts, the provider's own tools) is kept whole and in order there, because
thinking may not move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import ProtocolError, StreamTruncated
from ...events import Event, Finish, FinishReason, ReasoningDelta, Start, TextDelta, ToolCallDelta, UsageUpdate
from ..bodies import BodyDecoder
from ..lenient import parse_json
from ..sse import MAX_EVENT_BYTES, SSEDecoder
from ..status import error_from_object
from .blocks import THINKING, Block
from .chunks import Chunk, Delta, read_chunk, read_odd, text_of
from .usage import STOP_REASONS, Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ORDER = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}


class _Open:
    """A block that has begun."""

    __slots__ = ("block", "call", "citations", "kind", "pieces", "signature")

    def __init__(self, kind: str, block: Block, call: int) -> None:
        self.kind = kind
        self.block = block
        self.call = call
        self.pieces: list[str] = []
        self.signature: list[str] = []
        self.citations: list[Any] = []


class AnthropicDecoder(BodyDecoder):
    """Decoder of one response body. See `wire.protocol.Decoder`.

    Args:
        max_event_bytes: bound of one streamed event; a document may be four times as big.

    Attributes:
        done: ``message_stop`` was seen: nothing of the answer can follow.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_counts",
        "_finish",
        "_flushed",
        "_last",
        "_started",
        "_unsaid",
        "_whole",
    )

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        super().__init__(max_event_bytes)
        self._blocks: dict[int, _Open] = {}
        self._calls = 0
        self._last = 0  # place in _ORDER of the last block
        self._unsaid: list[Block] = []  # finished blocks that are in no details (yet)
        self._whole = False  # the turn's order must be kept
        self._counts = Counts()
        self._started = False
        self._finish: Finish | None = None
        self._flushed = False

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, even if the body were cut here: `close` would not raise."""
        return self._broken is None and (self._finish is not None or self.done)

    # -- one event -----------------------------------------------------------------------------------------------------

    def _stream(self) -> tuple[Callable[[bytes], Iterable[Any]], Callable[[], Iterable[Any]]]:
        sse = SSEDecoder(self._max)
        return sse.feed_named, sse.close_named

    def _event(self, event: tuple[str, bytes], out: list[Event]) -> None:
        if self.done:
            return
        name, data = event
        try:
            chunk = read_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not data.strip() or data.startswith(b"[DONE]") or name == "ping":
                return
            chunk = read_odd(data)
        delta = chunk.delta
        kind = chunk.type or name
        if kind == "content_block_delta" and delta is not None:
            opened = self._blocks.get(chunk.index or 0)
            if opened is None:
                begun = _BEGUN_BY.get(delta.type or "")
                if begun is None:
                    return
                opened = self._open(chunk.index or 0, {"type": begun}, out)
            if delta.text and opened.kind == "text":
                opened.pieces.append(delta.text)
                out.append(TextDelta(delta.text))
            else:
                self._piece(opened, delta, out)
        elif kind == "content_block_start":
            block = chunk.content_block
            if isinstance(block, dict):
                self._open(chunk.index or 0, block, out)
        elif kind == "content_block_stop":
            self._stop(chunk.index or 0, out)
        else:
            self._beside(kind, chunk, data, out)

    def _beside(self, kind: str, chunk: Chunk, data: bytes, out: list[Event]) -> None:
        """Events about the message as a whole."""
        if kind == "message_start":
            self._start(chunk.message, out)
        elif kind == "message_delta":
            self._message_delta(chunk, out)
        elif kind == "message_stop":
            self.done = True
            self._end(out)
        elif kind == "error" or chunk.error:
            value = parse_json(data)
            error = error_from_object(value)
            error.request_id = text_of(value.get("request_id"))
            raise error

    def _start(self, message: Any, out: list[Event]) -> None:
        if self._started or not isinstance(message, dict):
            return
        self._started = True
        out.append(Start(text_of(message.get("id")) or "", text_of(message.get("model")) or ""))
        if self._counts.add(message.get("usage")) and self._counts.usage().input_tokens:
            # The output's count is a placeholder here: whoever leaves early must not take it for the whole.
            out.append(UsageUpdate(self._counts.usage(output=False)))

    def _message_delta(self, chunk: Chunk, out: list[Event]) -> None:
        if self._counts.add(chunk.usage):
            out.append(UsageUpdate(self._counts.usage()))
        delta = chunk.delta
        if delta is not None and delta.stop_reason and self._finish is None:
            self._finish = _finish(delta.stop_reason, delta.stop_sequence)

    # -- blocks --------------------------------------------------------------------------------------------------------

    def _open(self, index: int, block: Block, out: list[Event]) -> _Open:
        """A block begins; most begin empty, some come whole."""
        kind = text_of(block.get("type")) or ""
        if index in self._blocks:
            self._stop(index, out)
        place = _ORDER.get(kind)
        if not self._whole and (place is None or place < self._last or (place == self._last == 1 and self._unsaid)):
            self._keep_whole(out)
        self._last = self._last if place is None else place
        opened = self._blocks[index] = _Open(kind, block, self._calls)
        if kind == "text":
            citations = block.get("citations")
            opened.citations += citations if isinstance(citations, list) else []
            text = text_of(block.get("text"))
            if text:
                opened.pieces.append(text)
                out.append(TextDelta(text))
        elif kind == "thinking":
            thinking, signature = text_of(block.get("thinking")), text_of(block.get("signature"))
            if thinking:
                opened.pieces.append(thinking)
                out.append(ReasoningDelta(thinking))
            if signature:
                opened.signature.append(signature)
        elif kind == "tool_use":
            out.append(ToolCallDelta(self._calls, text_of(block.get("id")), text_of(block.get("name"))))
            self._calls += 1
        return opened

    def _piece(self, opened: _Open, delta: Delta, out: list[Event]) -> None:
        if opened.kind == "thinking":
            if delta.thinking:
                opened.pieces.append(delta.thinking)
                out.append(ReasoningDelta(delta.thinking))
            if delta.signature:
                opened.signature.append(delta.signature)
        elif delta.partial_json:
            opened.pieces.append(delta.partial_json)
            if opened.kind == "tool_use":
                out.append(ToolCallDelta(opened.call, arguments=delta.partial_json))
        elif delta.citation is not None:
            opened.citations.append(delta.citation)

    def _stop(self, index: int, out: list[Event]) -> None:
        opened = self._blocks.pop(index, None)
        if opened is None:
            return
        block, kind = opened.block, opened.kind
        text = "".join(opened.pieces)
        if kind == "text":
            block = {"type": "text", "text": text}
            if opened.citations:
                block["citations"] = opened.citations
                if not self._whole:
                    self._keep_whole(out)
        elif kind == "thinking":
            block = {"type": "thinking", "thinking": text, "signature": "".join(opened.signature)}
        elif text:
            block = {**block, "input": _arguments(text)}
        elif kind == "tool_use" and block.get("input"):  # a server that sends the arguments whole
            out.append(ToolCallDelta(opened.call, arguments=msgspec.json.encode(block["input"]).decode()))
        if self._whole or kind in THINKING:
            out.append(ReasoningDelta("", details=[block]))
        else:
            self._unsaid.append(block)

    def _keep_whole(self, out: list[Event]) -> None:
        self._whole = True
        unsaid, self._unsaid = self._unsaid, []
        if unsaid:
            out.append(ReasoningDelta("", details=unsaid))

    # -- the end -------------------------------------------------------------------------------------------------------

    def _read_document(self, data: bytes, out: list[Event]) -> None:
        try:
            value = parse_json(data)
        except ProtocolError:  # it began as JSON
            raise _truncated("The answer broke off in the middle of its JSON document") from None
        content = value.get("content") if isinstance(value, dict) else None
        if not isinstance(content, list):
            if isinstance(value, dict) and (value.get("type") == "error" or value.get("error")):
                error = error_from_object(value)
                error.request_id = text_of(value.get("request_id"))
                raise error
            raise ProtocolError("The provider's answer has no content; does api_url lead to a Messages endpoint?")
        self._started = True
        out.append(Start(text_of(value.get("id")) or "", text_of(value.get("model")) or ""))
        for index, block in enumerate(content):
            if isinstance(block, dict):
                self._open(index, block, out)
                self._stop(index, out)
        if self._counts.add(value.get("usage")):
            out.append(UsageUpdate(self._counts.usage()))
        reason = text_of(value.get("stop_reason"))
        if reason:
            self._finish = _finish(reason, text_of(value.get("stop_sequence")))
        self.done = True

    def _end(self, out: list[Event]) -> None:
        """The answer is over, at ``message_stop`` or at the body's end."""
        if self._flushed:
            return
        if not self.complete:
            raise _truncated("The stream ended before the answer did")
        self._flushed = True
        for index in sorted(self._blocks):
            self._stop(index, out)
        out.append(self._finish or Finish(FinishReason.UNKNOWN))


_BEGUN_BY = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}


def _finish(word: str, matched: str | None) -> Finish:
    return Finish(STOP_REASONS.get(word, FinishReason.UNKNOWN), 0, matched or None, word)


def _arguments(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {"INVALID_JSON": text}


def _truncated(what: str) -> StreamTruncated:
    return StreamTruncated(f"{what}: no stop reason was seen.")
