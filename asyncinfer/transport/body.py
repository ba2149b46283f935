"""A request's body, in one piece.

The libraries' own is an async generator. Cancelled in the middle of sending, it would be dropped half-way, which trio
rightly warns about; this one is a class, and has nothing to clean up.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any


class _Once:
    __slots__ = ("_left",)

    def __init__(self, content: bytes) -> None:
        self._left: bytes | None = content or None

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> bytes:
        content, self._left = self._left, None
        if content is None:
            raise StopAsyncIteration
        return content


@lru_cache(maxsize=4)
def body_of(module: ModuleType) -> Any:
    """The class of bodies for a library of the httpx family: ``body_of(httpx)(b"...")``. A body can be sent again."""

    class Body(module.AsyncByteStream):  # type: ignore[misc,name-defined]
        __slots__ = ("_content",)

        def __init__(self, content: bytes) -> None:
            self._content = content

        def __aiter__(self) -> _Once:
            return _Once(self._content)

        async def aclose(self) -> None:
            pass

    return Body
