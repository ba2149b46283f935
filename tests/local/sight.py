"""A vision part for the embedded model, made in a moment: a tiny CLIP tower and projector of random weights, as GGUF.

Formats: ggml/docs/gguf.md of the ggml project; names of keys and tensors as tools/mtmd/clip-impl.h of llama.cpp has
them. What it sees means nothing; but another picture is another prompt.
"""

from __future__ import annotations

import random
import struct
import zlib
from array import array

WIDTH, INNER, LAYERS, HEADS, IMAGE, PATCH, MODEL = 32, 64, 2, 2, 32, 16, 128
TOKENS = (IMAGE // PATCH) ** 2


def projector():
    """The bytes of the GGUF file."""
    keys = {
        "general.architecture": "clip",
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": True,
        "clip.vision.image_size": IMAGE,
        "clip.vision.patch_size": PATCH,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": INNER,
        "clip.vision.block_count": LAYERS,
        "clip.vision.projection_dim": MODEL,
        "clip.vision.attention.head_count": HEADS,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5],
    }
    shapes = {
        "v.patch_embd.weight": (PATCH, PATCH, 3, WIDTH),
        "v.position_embd.weight": (WIDTH, TOKENS),
        "v.pre_ln.weight": (WIDTH,),
        "v.pre_ln.bias": (WIDTH,),
        "v.post_ln.weight": (WIDTH,),
        "v.post_ln.bias": (WIDTH,),
        "mm.0.weight": (WIDTH, INNER),
        "mm.0.bias": (INNER,),
        "mm.2.weight": (INNER, MODEL),
        "mm.2.bias": (MODEL,),
    }
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            shapes |= {f"v.blk.{layer}.{name}.weight": (WIDTH, WIDTH), f"v.blk.{layer}.{name}.bias": (WIDTH,)}
        for name in ("ln1", "ln2"):
            shapes |= {f"v.blk.{layer}.{name}.weight": (WIDTH,), f"v.blk.{layer}.{name}.bias": (WIDTH,)}
        for name, sides in (("ffn_up", (WIDTH, INNER)), ("ffn_down", (INNER, WIDTH))):
            shapes |= {f"v.blk.{layer}.{name}.weight": sides, f"v.blk.{layer}.{name}.bias": (sides[1],)}
    return gguf(keys, shapes)


def gguf(keys, shapes):
    """A GGUF file with these keys, and random tensors of these shapes."""
    rng = random.Random(1)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys))
    head += b"".join(_string(key) + _value(value) for key, value in keys.items())
    data = b""
    for name, shape in shapes.items():
        size = 1
        for side in shape:
            size *= side
        norm = name.endswith(("ln.weight", "ln1.weight", "ln2.weight"))
        values = array("f", (1.0 if norm else rng.gauss(0.0, 0.3) for _ in range(size))).tobytes()
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += values + bytes(-len(values) % 32)
    return head + bytes(-len(head) % 32) + data


def _string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def _value(value):
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, list):
        return struct.pack(f"<IIQ{len(value)}f", 9, 6, len(value), *value)
    return struct.pack("<I", 8) + _string(value)


def png(color, size=IMAGE):
    """A picture of one colour."""

    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes(color) * size) * size
    return (
        b"\x89PNG\r\n\x1a\n"
        + part(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
        + part(b"IDAT", zlib.compress(rows))
        + part(b"IEND", b"")
    )
