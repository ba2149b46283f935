"""Compressed bodies, decompressed as they come: each chunk yields what it completes, nothing waits for a whole block.

gzip and deflate are the standard library's; br and zstd are offered to servers only where a decoder is installed
(``brotli`` or ``brotlicffi``; ``zstandard``, or Python 3.14). A missing end mark is not an error here: what the body
says must be complete is known to those who read it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, Protocol


class Decoder(Protocol):
    """Of one body. Any exception means damaged data."""

    def __call__(self, data: bytes) -> bytes: ...


class Gzip:
    """gzip (RFC 1952), of any number of members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def __call__(self, data: bytes) -> bytes:
        out = self._member.decompress(data)
        while self._member.eof and self._member.unused_data:
            rest = self._member.unused_data
            self._member = zlib.decompressobj(wbits=31)
            out += self._member.decompress(rest)
        return out


class Deflate:
    """deflate (RFC 9110 §8.4.1.2): a zlib wrapper, which some servers leave out."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._head = b""

    def __call__(self, data: bytes) -> bytes:
        if self._stream is None:
            self._head += data
            if len(self._head) < 2:
                return b""
            wrapped = self._head[0] & 15 == 8 and int.from_bytes(self._head[:2]) % 31 == 0
            self._stream = zlib.decompressobj(wbits=15 if wrapped else -15)
            data = self._head
        out: bytes = self._stream.decompress(data)
        return out


@lru_cache(maxsize=1)
def makers() -> dict[str, Callable[[], Decoder]]:
    """A decoder's maker for each content coding that can be read here, in order of preference."""
    found: dict[str, Callable[[], Decoder]] = {"gzip": Gzip, "deflate": Deflate}
    for coding, module, make in (
        ("br", "brotli", lambda library: library.Decompressor().process),
        ("br", "brotlicffi", lambda library: library.Decompressor().process),
        ("zstd", "compression.zstd", lambda library: library.ZstdDecompressor().decompress),
        ("zstd", "zstandard", lambda library: library.ZstdDecompressor().decompressobj().decompress),
    ):
        if coding in found:
            continue
        try:
            library = import_module(module)
        except ImportError:
            continue
        found[coding] = partial(make, library)
    return found


def accept_encoding() -> str:
    """Value of the ``Accept-Encoding`` header."""
    return ", ".join(makers())


def decoder_for(content_encoding: str) -> Decoder | None:
    """The decoder for a ``Content-Encoding`` header, None where nothing is to be done.

    Raises:
        KeyError: a coding that cannot be read here; the exception's argument is its name.
    """
    codings = [part.strip().lower() for part in content_encoding.split(",")]
    steps = [makers()[coding.removeprefix("x-")]() for coding in codings if coding not in {"", "identity"}]
    if len(steps) < 2:
        return steps[0] if steps else None

    def chain(data: bytes) -> bytes:
        for step in reversed(steps):  # the header lists them in the order they were applied
            data = step(data)
        return data

    return chain
