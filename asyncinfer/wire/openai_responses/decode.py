"""From the bytes of a Responses answer to events: streams and single documents alike.

An answer is a list of items (reasoning, text, calls); a stream tells of each as it grows. What servers leave out is
taken from what they repeat: text that came in no delta is in the item's ``done`` event, and where no item was told of
at all, in the last event. When an answer is complete: ``response.completed`` or ``response.incomplete`` came (a
``response.failed`` is an error). A body that ends before that is a `StreamTruncated`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import ProtocolError, StreamTruncated
from ...events import Event, Finish, FinishReason, ReasoningDelta, Start, TextDelta, ToolCallDelta, UsageUpdate
from ..bodies import BodyDecoder
from ..halves import Halves
from ..openai_chat.usage import read_usage
from ..sse import MAX_EVENT_BYTES
from ..status import error_from_object
from .items import CALL_MARK, MESSAGE_MARK
from .shapes import CALLS, PIECES, WHOLES, arguments_of, dicts, extra, failure, parse, text_of

_TERMINAL = {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
_HEADS = {"response.created", "response.queued", "response.in_progress"}
_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "max_messages": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _Delta(msgspec.Struct, gc=False):
    """The part of an event that a piece of text needs."""

    type: str = ""
    delta: Any = None
    output_index: int | None = None
    logprobs: Any = None


_read_delta = msgspec.json.Decoder(_Delta).decode


class _Item:
    """What must be remembered of one output item."""

    __slots__ = ("done", "halves", "kind", "length", "number", "part", "streamed")

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.number = number  # of a call: its place among the calls
        self.streamed = False  # some of its content came in deltas
        self.length = 0  # characters of text
        self.part = 0  # of reasoning: the part that is being written
        self.halves = Halves()
        self.done = False


class ResponsesDecoder(BodyDecoder):
    """Decoder of one response body. See `wire.protocol.Decoder`.

    Args:
        max_event_bytes: bound of one streamed event; a document may be four times as big.
    """

    __slots__ = ("_calls", "_items", "_last", "_marks", "_refused", "_started", "_wrote")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        super().__init__(max_event_bytes)
        self._items: dict[int, _Item] = {}
        self._last = 0
        self._calls = 0
        self._refused = self._wrote = False
        self._marks: list[dict[str, Any]] | None = []  # None once details were handed out: then they follow at once
        self._started = False

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, even if the body were cut here: `close` would not raise."""
        return self._broken is None and self.done

    # -- a document ----------------------------------------------------------------------------------------------------

    def _read_document(self, data: bytes, out: list[Event]) -> None:
        if data.rstrip()[-1:] not in {b"}", b"]"}:
            raise _truncated("The answer broke off in the middle of its JSON document")
        value = parse(data)
        value = value[0] if isinstance(value, list) and value else value
        if not isinstance(value, dict) or not isinstance(value.get("output"), list):
            if isinstance(value, dict) and (value.get("error") or value.get("detail") or value.get("message")):
                raise error_from_object(value)
            raise ProtocolError("The provider's answer has no output; is api_url its /responses?")
        if value.get("status") in ("queued", "in_progress"):  # no set: it may be a list
            raise ProtocolError("The provider answers in the background; such answers cannot be read here.")
        self._over(value, out, "unknown")

    # -- one event -----------------------------------------------------------------------------------------------------

    def _event(self, data: bytes, out: list[Event]) -> None:
        if self.done:
            return
        try:
            fast = _read_delta(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            fast = None
        if fast is not None and fast.type == "response.output_text.delta" and type(fast.delta) is str:
            item = self._items.get(self._last if fast.output_index is None else fast.output_index)
            if item is None:
                item = self._new(fast.output_index, "message")
            self._text(item, fast.delta, fast.logprobs or None, out)
            return
        text = data.strip()
        if text.startswith(b"[DONE]"):
            self._unnamed(out)
        elif text:
            value = parse(text)
            if not isinstance(value, dict):
                raise ProtocolError("The provider sent JSON that is not an object.")
            self._dispatch(value, out)

    def _dispatch(self, value: dict[str, Any], out: list[Event]) -> None:
        kind = value.get("type")
        if kind == "error" or (not isinstance(kind, str) and value.get("error")):
            raise failure(value.get("error") or value)
        if not isinstance(kind, str):
            return
        if kind in _TERMINAL:
            response = value.get("response")
            self._over(response if isinstance(response, dict) else {}, out, kind.removeprefix("response."))
        elif kind in _HEADS:
            self._start(value.get("response"), out)
        elif kind == "response.output_item.added":
            self._added(value, out)
        elif kind == "response.output_item.done":
            self._item_done(value, out)
        else:
            self._piece(kind, value, out)

    def _piece(self, kind: str, value: dict[str, Any], out: list[Event]) -> None:
        """A piece of an item, or the whole of one of its parts once more."""
        sort = PIECES.get(kind)
        if sort is None:
            return  # calls of the provider's own tools, annotations, what is still to come
        index = value.get("output_index")
        item = self._items.get(self._last if type(index) is not int else index)
        if item is None:
            item = self._new(index, sort)
        if kind == "response.reasoning_summary_part.added":
            if item.part or item.length:
                self._reasoning(item, "\n\n", out)
            item.part += 1
            return
        field = "delta" if kind.endswith("delta") else WHOLES[kind]
        text = value.get(field)
        if not isinstance(text, str) or (field != "delta" and item.streamed):
            return
        if sort == "message":
            self._refused = self._refused or "refusal" in kind
            self._text(item, text, value.get("logprobs") or None, out)
        elif sort == "reasoning":
            self._reasoning(item, text, out)
        elif text:
            item.streamed = True
            out.append(ToolCallDelta(item.number, None, None, item.halves.feed(text)))

    # -- items ---------------------------------------------------------------------------------------------------------

    def _new(self, index: Any, kind: str) -> _Item:
        self._last = index if type(index) is int else self._last + (self._last in self._items)
        item = self._items[self._last] = _Item(kind, self._calls)
        if kind in CALLS:
            self._calls += 1
        return item

    def _added(self, value: dict[str, Any], out: list[Event]) -> None:
        shape = value.get("item")
        if not isinstance(shape, dict):
            return
        kind = str(shape.get("type"))
        item = self._new(value.get("output_index"), kind)
        if kind in CALLS:
            arguments = arguments_of(shape)
            item.streamed = bool(arguments)
            out.append(
                ToolCallDelta(
                    item.number, text_of(shape.get("call_id")), text_of(shape.get("name")), arguments, 0, extra(shape)
                )
            )

    def _item_done(self, value: dict[str, Any], out: list[Event]) -> None:
        shape = value.get("item")
        if not isinstance(shape, dict):
            return
        index = value.get("output_index")
        item = self._items.get(index if type(index) is int else self._last)
        if item is None or item.done:
            self._added(value, out)
            item = self._items[self._last]
        item.done = True
        kind = item.kind
        if kind == "message":
            if not item.streamed:
                for part in dicts(shape.get("content")):
                    self._refused = self._refused or part.get("type") == "refusal"
                    text = part.get("text") if part.get("type") == "output_text" else part.get("refusal")
                    if isinstance(text, str):
                        self._text(item, text, part.get("logprobs") or None, out)
            self._mark({"type": MESSAGE_MARK, "length": item.length}, shape.get("phase"), out)
        elif kind in CALLS:
            if not item.streamed:
                arguments = arguments_of(shape)
                if arguments:
                    out.append(ToolCallDelta(item.number, None, None, arguments))
            self._mark({"type": CALL_MARK, "call_id": shape.get("call_id")}, None, out)
        else:
            if kind == "reasoning" and not item.streamed:
                parts = dicts(shape.get("summary")) or dicts(shape.get("content"))
                self._reasoning(item, "\n\n".join(str(part.get("text") or "") for part in parts), out)
            self._detail(shape, out)

    def _text(self, item: _Item, text: str, logprobs: Any, out: list[Event]) -> None:
        text = item.halves.feed(text)
        item.streamed = True
        if text or logprobs:
            item.length += len(text)
            self._wrote = True
            out.append(TextDelta(text, 0, logprobs))

    def _reasoning(self, item: _Item, text: str, out: list[Event]) -> None:
        text = item.halves.feed(text)
        if text:
            item.streamed = True
            item.length += len(text)
            out.append(ReasoningDelta(text))

    def _mark(self, mark: dict[str, Any], phase: Any, out: list[Event]) -> None:
        """Remember where text or a call stood: worth nothing unless there is something beside it."""
        if phase is not None:
            self._detail({**mark, "phase": phase}, out)
        elif self._marks is None:
            out.append(ReasoningDelta("", 0, [mark]))
        else:
            self._marks.append(mark)

    def _detail(self, shape: dict[str, Any], out: list[Event]) -> None:
        """Something that must travel back, and what stood before it."""
        before, self._marks = self._marks or [], None
        out.append(ReasoningDelta("", 0, [*before, shape]))

    # -- the beginning and the end -------------------------------------------------------------------------------------

    def _start(self, response: Any, out: list[Event]) -> None:
        if not self._started and isinstance(response, dict):
            self._started = True
            out.append(Start(text_of(response.get("id")) or "", text_of(response.get("model")) or ""))

    def _end(self, out: list[Event]) -> None:  # noqa: ARG002  -- the last event has said it all
        if not self.done:
            raise _truncated("The stream ended before the answer did")

    def _over(self, response: dict[str, Any], out: list[Event], kind: str) -> None:
        self._start(response, out)
        if not self._items:
            for index, shape in enumerate(dicts(response.get("output"))):
                self._item_done({"output_index": index, "item": shape}, out)
        for item in self._items.values():
            rest = item.halves.close()
            if rest and item.kind == "message":
                out.append(TextDelta(rest))
        usage = read_usage(response.get("usage"))
        if usage is not None:
            out.append(UsageUpdate(usage))
        status = response.get("status") if isinstance(response.get("status"), str) else kind
        if status == "failed" or kind == "failed":
            raise failure(response.get("error") or {})
        self.done = True
        out.append(self._reason(str(status), response.get("incomplete_details")))

    def _reason(self, status: str, details: Any) -> Finish:
        why = details.get("reason") if isinstance(details, dict) else None
        if status == "incomplete":
            raw = why if isinstance(why, str) else status
            return Finish(_INCOMPLETE.get(raw, FinishReason.UNKNOWN), 0, None, raw)
        if status == "cancelled":
            return Finish(FinishReason.ABORT, 0, None, status)
        if status != "completed":
            return Finish(FinishReason.UNKNOWN, 0, None, status)
        if self._calls:
            return Finish(FinishReason.TOOL_CALLS, 0, None, status)
        return Finish(FinishReason.REFUSAL if self._refused else FinishReason.STOP, 0, None, status)

    def _unnamed(self, out: list[Event]) -> None:
        """``[DONE]``, which this format does not have, from a server that did not say how it ended."""
        if self._items:
            self.done = True
            out.append(Finish(FinishReason.UNKNOWN))


def _truncated(what: str) -> StreamTruncated:
    return StreamTruncated(f"{what}: no response.completed was seen.")
