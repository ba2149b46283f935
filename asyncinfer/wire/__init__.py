"""Bytes to events and events to bytes, and nothing else (sans-IO).

Rule: this room imports no anyio, asyncio, HTTP library, ``os`` or ``time``. A codec is a pair of pure functions and a
decoder object that is fed bytes; it never waits, never logs and never knows which provider it speaks to: what differs
between providers of one format is a value in the `Dialect`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .protocol import Codec


def codec(name: str) -> Codec:
    """The codec that a provider's row names. Raises KeyError for a name that no codec has."""
    if name == "openai_chat":
        from .openai_chat import OpenAIChatCodec

        return OpenAIChatCodec()
    raise KeyError(name)
