"""Sampled tokens, as bytes or as text, made events: text, reasoning and tool calls."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from ...events import Event, ReasoningDelta, TextDelta, ToolCallDelta
from .text import StopStrings, Tagged, Utf8Pieces

if TYPE_CHECKING:
    from collections.abc import Iterable

TOOL_OPEN, TOOL_CLOSE = "<tool_call>", "</tool_call>"
"""The "hermes" markup, which most open chat models are trained on."""
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


class Answer:
    """Turns token bytes into text, reasoning and tool calls.

    Args:
        stops: strings that end the answer.
        tools: whether tools are offered, so that tool-call markup means a call.
        thinks: whether the model's template knows of thinking, so that its markup means reasoning.
        thinking: whether the prompt already opened a thought.

    Attributes:
        calls: tool calls so far.
    """

    def __init__(self, stops: Iterable[str], *, tools: bool, thinks: bool, thinking: bool) -> None:
        self._bytes = Utf8Pieces()
        self._stops = StopStrings(stops)
        self._think = Tagged(THINK_OPEN, THINK_CLOSE, inside=thinking) if thinks else None
        self._tools = Tagged(TOOL_OPEN, TOOL_CLOSE) if tools else None
        self._call = ""
        self._said = False
        self._logprobs: list[Any] = []
        self._plain = not (self._stops or self._think or self._tools)
        self.calls = 0

    @property
    def matched(self) -> str | None:
        """The stop string that was met."""
        return self._stops.matched

    def feed(self, piece: bytes, logprob: Any = None) -> list[Event]:
        """The events of one token's bytes, often one, none while something is held back."""
        return self.feed_text(self._bytes.feed(piece), logprob)

    def feed_text(self, text: str, logprob: Any = None) -> list[Event]:
        """The events of one token's text, for libraries that put the characters together themselves."""
        if logprob is not None:
            self._logprobs.append(logprob)
        elif self._plain and not self._logprobs:  # most answers of most models: nothing to look for
            return [TextDelta(text)] if text else []
        return self._show(self._stops.feed(text))

    def close(self) -> list[Event]:
        """The answer ended: everything that was held back."""
        if self._stops.matched is None:
            text = self._stops.feed(self._bytes.close())
            events = self._show(text + self._stops.close())
        else:
            events = []
        if self._think is not None:
            for inside, text in self._think.close():
                events += [ReasoningDelta(text)] if inside else self._outside(text)
        if self._tools is not None:
            for inside, text in self._tools.close():
                if inside:
                    self._call += text
                else:
                    events += self._text(text)
            if self._call.strip():  # the closing tag is missing: a model may end right behind the object
                events += self._end_call(closed=False)
        if self._logprobs:
            events += self._text("", force=True)
        return events

    def _show(self, text: str) -> list[Event]:
        if not text:
            return []
        if self._think is None:
            return self._outside(text)
        events: list[Event] = []
        for inside, piece in self._think.feed(text):
            if not inside:
                events += self._outside(piece)
            elif piece:
                events.append(ReasoningDelta(piece))
        return events

    def _outside(self, text: str) -> list[Event]:
        if self._tools is None:
            return self._text(text)
        events: list[Event] = []
        for inside, piece in self._tools.feed(text):
            if not inside:
                events += self._text(piece)
            elif piece:
                self._call += piece
            else:
                events += self._end_call()
        return events

    def _text(self, text: str, *, force: bool = False) -> list[Event]:
        if (self._tools is not None or self._think is not None) and not self._said:
            text = text.lstrip()  # the space between markup and answer
        if self.calls:
            text = text if text.strip() else ""
        if not text and not force:
            return []
        self._said = self._said or bool(text)
        logprobs, self._logprobs = self._logprobs or None, []
        return [TextDelta(text, logprobs=logprobs)]

    def _end_call(self, *, closed: bool = True) -> list[Event]:
        """What stood between the tags: one call, or text if it is none."""
        text, self._call = self._call, ""
        try:
            call = json.loads(text)
            name = call["name"]
            arguments = call.get("arguments", call.get("parameters")) or {}
        except (ValueError, TypeError, KeyError, AttributeError):
            return self._text(f"{TOOL_OPEN}{text}{TOOL_CLOSE if closed else ''}")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        self.calls += 1
        return [ToolCallDelta(self.calls - 1, id=f"call_{secrets.token_hex(12)}", name=str(name), arguments=arguments)]
