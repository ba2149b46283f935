"""What came in another vessel than it was wanted in, as plain text again: the string in an object (`wrapping`), the
arguments of a call that was forced to get a schema followed.

Rule: events in, events out, every character looked at once, however the text is cut. What has not come in the vessel
passes as it is: whether it has the shape that was asked for, the engine checks. Who asked for no vessel pays nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from ..events import Event, Finish, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
from .halves import Halves
from .wrapping import KEY, is_wrapped

if TYPE_CHECKING:
    from ..dialect import Dialect
    from ..request import Request
    from .protocol import Decoder

ANSWER_TOOL = "answer"
"""Name of the tool whose input is the answer, where a model can be held to a schema in no other way."""
ANSWER_TOOL_DESCRIPTION = "Give the answer to the user; its input is the whole answer."

_SPACE = " \t\n\r"
_HEAD = f'{{"{KEY}":"'
_GAPS = {0, 1, len(KEY) + 3, len(KEY) + 4}  # where space may stand before a character of the head
_PLAIN = re.compile(r'[^"\\]*')
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = frozenset("0123456789abcdefABCDEF")
_ENDED = {FinishReason.STOP, FinishReason.UNKNOWN}


class Unwrapper:
    """One text: pieces of an object in, pieces of the string in it out."""

    __slots__ = ("_at", "_closed", "_escape", "_halves", "_held", "_step")

    def __init__(self) -> None:
        self._step = "_head"
        self._at = 0
        self._held: list[str] = []  # of what may still become the object's head
        self._escape = ""  # an escape sequence so far
        self._halves = Halves()
        self._closed = False

    def feed(self, text: str) -> str:
        """What ``text`` adds to the string; text that is no such object as it is."""
        out: list[str] = []
        at = 0
        while at < len(text):
            at = getattr(self, self._step)(text, at, out)
        return "".join(out)

    def close(self, *, ended: bool) -> tuple[str, bool]:
        """The text is over: what was held back, and whether the string is whole.

        Args:
            ended: it came to its own end; a text that was cut behind half of the object's head has said nothing.
        """
        held = "".join(self._held) if ended and self._step == "_head" else ""
        return held + self._halves.close(), self._step != "_inside"

    # -- one step for each part of the object: (text, position, what to show) -> position ------------------------------

    def _head(self, text: str, at: int, out: list[str]) -> int:
        start = at
        while at < len(text):
            if text[at] == _HEAD[self._at]:
                self._at += 1
                if self._at == len(_HEAD):
                    self._step = "_inside"
                    return at + 1
            elif text[at] not in _SPACE or self._at not in _GAPS:
                out += self._held
                out.append(text[start:])
                self._step = "_other"
                return len(text)
            at += 1
        self._held.append(text[start:])
        return at

    def _inside(self, text: str, at: int, out: list[str]) -> int:
        raw: list[str] = []
        while at < len(text):
            if self._escape:
                at = self._escaped(text, at, raw)
                continue
            found = _PLAIN.match(text, at)
            assert found is not None
            raw.append(found[0])
            at = found.end()
            if at == len(text):
                break
            if text[at] == '"':
                self._step = "_tail"
                break
            self._escape = "\\"
            at += 1
        out.append(self._halves.feed("".join(raw)))
        if self._step == "_tail":
            out.append(self._halves.close())
            return at + 1
        return at

    def _escaped(self, text: str, at: int, raw: list[str]) -> int:
        """The next character of an escape sequence; one that JSON does not know stays as it was written."""
        letter, escape = text[at], self._escape
        if escape == "\\":
            if letter == "u":
                self._escape = "\\u"
            else:
                self._escape = ""
                raw.append(_ESCAPES.get(letter) or escape + letter)
        elif letter in _HEX:
            self._escape = escape + letter
            if len(self._escape) == len("\\u0000"):
                raw.append(chr(int(escape[2:] + letter, 16)))
                self._escape = ""
        else:
            raw.append(escape)
            self._escape = ""
            return at
        return at + 1

    def _tail(self, text: str, at: int, out: list[str]) -> int:
        while at < len(text):
            if text[at] == "}" and not self._closed:
                self._closed = True
            elif text[at] not in _SPACE:
                self._step = "_other"
                return self._other(text, at, out)
            at += 1
        return at

    def _other(self, text: str, at: int, out: list[str]) -> int:
        out.append(text[at:])
        return len(text)


class Filter(Protocol):
    """From events to events."""

    def __call__(self, events: list[Event]) -> list[Event]:
        """The events to hand on."""
        ...


class Unwrapping:
    """Text of each choice, unwrapped. A string that ends without its closing quote is no answer: its finish says so."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[int, Unwrapper] = {}

    def __call__(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if type(event) is TextDelta:
                text = self._text(event.index).feed(event.text)
                if text:  # the probabilities of the vessel's own tokens go with it
                    out.append(TextDelta(text, event.index, event.logprobs))
            elif type(event) is Finish:
                out += self._finish(event)
            else:
                out.append(event)
        return out

    def _text(self, index: int) -> Unwrapper:
        found = self._texts.get(index)
        if found is None:
            found = self._texts[index] = Unwrapper()
        return found

    def _finish(self, event: Finish) -> list[Event]:
        ended = event.reason in _ENDED
        text, whole = self._text(event.index).close(ended=ended)
        shown: list[Event] = [TextDelta(text, event.index)] if text else []
        reason = event.reason if whole or not ended else FinishReason.ERROR
        return [*shown, Finish(reason, event.index, event.matched, event.raw)]


class CalledAnswer:
    """Calls of `ANSWER_TOOL` as text, other events as they are."""

    __slots__ = ("_calls", "_said")

    def __init__(self) -> None:
        self._calls: set[tuple[int, int]] = set()  # choice and call
        self._said: set[int] = set()  # choices with text

    def __call__(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            if type(event) is ToolCallDelta:
                call = (event.index, event.call)
                if event.name == ANSWER_TOOL:
                    self._calls.add(call)
                if call not in self._calls:
                    out.append(event)
                elif event.arguments:
                    self._said.add(event.index)
                    out.append(TextDelta(event.arguments, event.index))
            elif type(event) is Finish:
                out += self._finish(event)
            elif type(event) is ReasoningDelta and isinstance(event.details, list):
                # The call is the answer's text: kept as a call, it would want a result on the next turn.
                details = [part for part in event.details if not _is_call(part)]
                if details or event.text:
                    out.append(ReasoningDelta(event.text, event.index, details or None))
            else:
                out.append(event)
        return out

    def _finish(self, event: Finish) -> list[Event]:
        if event.reason is not FinishReason.TOOL_CALLS or not any(index == event.index for index, _ in self._calls):
            return [event]
        empty: list[Event] = [] if event.index in self._said else [TextDelta("{}", event.index)]
        return [*empty, Finish(FinishReason.STOP, event.index, event.matched, event.raw)]


def _is_call(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "tool_use"


class FilteredDecoder:
    """A decoder whose events go through filters. See `wire.protocol.Decoder`."""

    __slots__ = ("_decoder", "_filters", "done")

    def __init__(self, decoder: Decoder, filters: list[Filter]) -> None:
        self._decoder = decoder
        self._filters = filters
        self.done = decoder.done

    @property
    def complete(self) -> bool:
        """As the decoder's."""
        return self._decoder.complete

    def feed(self, chunk: bytes) -> list[Event]:
        """As the decoder's."""
        events = self._decoder.feed(chunk)
        self.done = self._decoder.done
        return filtered(events, self._filters)

    def close(self) -> list[Event]:
        """As the decoder's: no events mean that none will follow."""
        while events := self._decoder.close():
            shown = filtered(events, self._filters)
            if shown:
                return shown
        return []


def filtered(events: list[Event], filters: list[Filter]) -> list[Event]:
    """The events behind all filters."""
    for each in filters:
        events = each(events)
    return events


def filters_for(request: Request, dialect: Dialect, *, called: bool = False) -> list[Filter]:
    """What an answer to ``request`` must go through; nearly always nothing.

    Args:
        request: the call's.
        dialect: the provider's.
        called: the answer was asked for as a call of `ANSWER_TOOL`.
    """
    filters: list[Filter] = [CalledAnswer()] if called else []
    if is_wrapped(request, dialect):
        filters.append(Unwrapping())
    return filters


def unwrapped(decoder: Decoder, request: Request, dialect: Dialect, *, called: bool = False) -> Decoder:
    """The decoder that shows the plain answer: ``decoder`` itself where nothing was wrapped."""
    filters = filters_for(request, dialect, called=called)
    return FilteredDecoder(decoder, filters) if filters else decoder
