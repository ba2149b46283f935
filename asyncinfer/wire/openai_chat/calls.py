"""Tool calls in pieces: which piece belongs to which call.

The format says: by ``index``. Servers differ. Some leave the index out, some give every parallel call index 0 with an
id of its own, some send the name again with every fragment, some send the arguments as an object, whole, in one piece.
The rule here: a new id with a name is a new call, else the index decides, else the id, else the last call goes on
unless its arguments are already whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...events import ToolCallDelta

if TYPE_CHECKING:
    from .chunks import Call, Function


class _Known:
    """One call that has begun. ``whole``: its first piece already held complete arguments."""

    __slots__ = ("id", "index", "name", "number", "whole")

    def __init__(self, number: int, index: int | None) -> None:
        self.number = number
        self.index = index
        self.id: str | None = None
        self.name: str | None = None
        self.whole = False


class CallTracker:
    """The tool calls of one choice; `add` turns a wire piece into an event."""

    __slots__ = ("_by_id", "_by_index", "_last", "count")

    def __init__(self) -> None:
        self.count = 0
        self._by_index: dict[int, _Known] = {}
        self._by_id: dict[str, _Known] = {}
        self._last: _Known | None = None

    def add(self, piece: Call, choice: int) -> ToolCallDelta | None:
        """The event that a piece makes, None if it says nothing new."""
        function, custom = piece.function, piece.custom
        if function is not None:
            name, arguments = function.name, _arguments(function)
        elif custom is not None:
            name, arguments = custom.name, custom.input or ""
        else:
            name, arguments = None, ""
        known = self._find(piece.index, piece.id or None, name or None, arguments)
        self._last = known
        first_id = piece.id if piece.id and known.id is None else None
        first_name = name if name and known.name is None else None
        if first_id is not None:
            known.id = first_id
            self._by_id[first_id] = known
        if first_name is not None:
            known.name = first_name
        if first_id is None and first_name is None and not arguments and piece.extra_content is None:
            return None
        return ToolCallDelta(known.number, first_id, first_name, arguments, choice, piece.extra_content)

    def add_legacy(self, function: Function, choice: int) -> ToolCallDelta | None:
        """A piece of the one call of the older ``function_call`` field."""
        known = self._by_index.get(0) or self._new(0)
        name = function.name if function.name and known.name is None else None
        known.name = known.name or name
        arguments = _arguments(function)
        return ToolCallDelta(known.number, None, name, arguments, choice) if name or arguments else None

    def _find(self, index: int | None, call_id: str | None, name: str | None, arguments: str) -> _Known:
        if index is not None:
            known = self._by_index.get(index)
            if known is None:
                return self._new(index)
            if call_id is not None and known.id is not None and call_id != known.id and name is not None:
                return self._by_id.get(call_id) or self._new(index)
            return known
        if call_id is not None:
            return self._by_id.get(call_id) or self._new(None, arguments)
        last = self._last
        if last is None or (name is not None and (last.whole or last.name != name)):
            return self._new(None, arguments)
        return last

    def _new(self, index: int | None, arguments: str = "") -> _Known:
        known = _Known(self.count, index)
        self.count += 1
        if index is not None:
            self._by_index[index] = known
        else:
            known.whole = _is_object(arguments)
        return known


def _arguments(function: Function) -> str:
    arguments: Any = function.arguments
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()


def _is_object(text: str) -> bool:
    if not text.startswith("{") or not text.rstrip().endswith("}"):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
