"""A request's body, in one piece or, as an `Upload`, in many.

The libraries' own is an async generator. Cancelled in the middle of sending, it would be dropped half-way, which trio
rightly warns about; this one is a class, and has nothing to clean up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .protocol import Upload


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
    """The class of bodies for a library of the httpx family: ``body_of(httpx)(b"...")``. A body can be sent again, as
    often as its `Upload` can be read."""

    class Body(module.AsyncByteStream):  # type: ignore[misc,name-defined]
        __slots__ = ("_content",)

        def __init__(self, content: bytes | Upload) -> None:
            self._content = content

        def __aiter__(self) -> AsyncIterator[bytes]:
            content = self._content
            return _Once(content) if isinstance(content, bytes) else aiter(content)

        async def aclose(self) -> None:
            pass

    return Body


def announced(body: bytes | Upload) -> tuple[bytes | None, dict[str, str]]:
    """What the library is told of a body when it makes the request: the bytes, or only the length."""
    return (body, {}) if isinstance(body, bytes) else (None, {"content-length": str(body.size)})
