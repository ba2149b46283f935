"""Decompression: whatever the cuts, the bytes come out whole, and as early as they can."""

from __future__ import annotations

import gzip
import itertools
import sys
import types
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.transport import decompress
from asyncinfer.transport.decompress import accept_encoding, decoder_for, makers


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "gzip of two members": lambda data: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]),
    "deflate": zlib.compress,
    "deflate without its wrapper": raw_deflate,
    "deflate, gzip": lambda data: gzip.compress(zlib.compress(data)),
}


@given(st.sampled_from(sorted(PACK)), st.binary(max_size=500), st.lists(st.integers(0, 600), max_size=20))
def test_any_cut_gives_the_same_bytes(name, data, cuts):
    packed = PACK[name](data)
    decode = decoder_for(name.split(" ", maxsplit=1)[0] if "," not in name else name)
    edges = [0, *sorted(cut for cut in cuts if cut < len(packed)), len(packed)]
    pieces = [packed[start:stop] for start, stop in itertools.pairwise(edges)]
    assert b"".join(map(decode, pieces)) == data


@given(st.sampled_from(["gzip", "deflate"]), st.lists(st.binary(min_size=1, max_size=50), max_size=10))
def test_each_flushed_piece_comes_out_at_once(name, pieces):
    packer = zlib.compressobj(wbits=31 if name == "gzip" else 15)
    decode = decoder_for(name)
    for piece in pieces:
        assert decode(packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)) == piece


@given(st.binary(min_size=20))
def test_damage_is_an_error_or_nothing_never_a_hang(data):
    decode = decoder_for("gzip")
    if data[:2] != b"\x1f\x8b":
        with pytest.raises(zlib.error):
            decode(data)


@pytest.mark.parametrize("header", ["", "identity", " Identity ,"])
def test_nothing_to_do(header):
    assert decoder_for(header) is None


def test_an_unknown_coding_is_named():
    with pytest.raises(KeyError) as caught:
        decoder_for("gzip, sdch")
    assert caught.value.args == ("sdch",)


@pytest.fixture
def fresh():
    makers.cache_clear()
    yield
    makers.cache_clear()


ABSENT = ("brotli", "brotlicffi", "compression.zstd", "zstandard")


def test_only_what_can_be_decoded_is_offered(monkeypatch, fresh):
    for name in ABSENT:
        monkeypatch.setitem(sys.modules, name, None)
    assert accept_encoding() == "gzip, deflate"


class _Decompressor:
    """Stands in for a library that this environment need not have: same calls, zlib inside."""

    def __init__(self):
        self._inner = zlib.decompressobj()

    def decompress(self, data: bytes) -> bytes:
        return self._inner.decompress(data)

    process = decompress

    def decompressobj(self):
        return self


@pytest.mark.parametrize(
    ("module", "coding", "name"),
    [
        ("brotli", "br", "Decompressor"),
        ("brotlicffi", "br", "Decompressor"),
        ("compression.zstd", "zstd", "ZstdDecompressor"),
        ("zstandard", "zstd", "ZstdDecompressor"),
    ],
)
def test_an_installed_decoder_is_offered_and_used(monkeypatch, fresh, module, coding, name):
    for other in ABSENT:
        monkeypatch.setitem(sys.modules, other, None)
    library = types.ModuleType(module)
    setattr(library, name, _Decompressor)
    monkeypatch.setitem(sys.modules, module, library)
    if "." in module:
        monkeypatch.setitem(sys.modules, module.split(".", maxsplit=1)[0], types.ModuleType("compression"))
    assert accept_encoding() == f"gzip, deflate, {coding}"
    assert decompress.decoder_for(coding)(zlib.compress(b"text")) == b"text"
