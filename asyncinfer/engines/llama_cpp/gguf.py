"""The head of a GGUF file: enough to refuse what is none, and to know what no binding says of a model.

Format: ggml/docs/gguf.md of the ggml project. For the context only the keys before the vocabulary are read, a few
hundred bytes.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from ...errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAGIC = b"GGUF"
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY, _INT32 = 8, 9, 5
_CONTROL = 3
"""Type of a token that stands for no text (``LLAMA_TOKEN_TYPE_CONTROL``)."""
_TYPES = "tokenizer.ggml.token_type"
_ENDINGS = {f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")}
_LONGEST = 1 << 24
_ENCODERS = {
    **dict.fromkeys(("t5", "t5encoder"), "it has an encoder, and llama.cpp would abort; the Native engine runs it"),
    **dict.fromkeys(
        ("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert"),
        "it makes embeddings, not text",
    ),
    "gemma-embedding": "it makes embeddings, not text",
    "wavtokenizer-dec": "it makes sound, not text",
    "clip": "it is the vision part of a model (model_kwargs.mmproj)",
}
"""Architectures that do not write text from left to right, and why."""
_PARTS = {
    "adapter": "it is an adapter (model.adapter_model); model_name names the model it is made for",
    "mmproj": "it is the vision part of a model (model_kwargs.mmproj); model_name names the model itself",
}
"""Kinds of files that are no whole model."""
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    30: (1, 2),  # F32, F16, BF16
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),  # Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),  # Q2_K ... Q6_K
}
"""Type of a tensor -> values in a block, and bytes of it (``ggml_type``)."""


def check(path: Path) -> None:
    """Refuse what is no model that writes text: the library would abort the process, or say nothing of why.

    Raises:
        EngineError: it is none, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            why = _obstacle(file)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError) as error:
        raise EngineError(f"{path} is not a complete GGUF model: {error}") from error
    if why is not None:
        raise EngineError(f"model_name is {str(path)!r}: llama.cpp cannot answer with this file: {why}")


def _obstacle(file: BinaryIO) -> str | None:
    """Why the file is no model that writes text, or None."""
    for key, value in _keys(file):
        if key == "general.type" and value in _PARTS:
            return _PARTS[value]
        if key == "general.architecture" and value in _ENCODERS:
            return f"{value}: {_ENCODERS[value]}"
        if key.endswith(".attention.causal") and value is False:
            return "it looks at a text from both sides, and does not go on with it"
        if key.startswith("tokenizer."):
            return None
    return None


def context_length(path: Path) -> int | None:
    """Tokens of context that the model was trained with, or None if the file does not say.

    Raises:
        EngineError: the file cannot be read, or is not GGUF.
    """
    try:
        with path.open("rb") as file:
            return _context_length(file)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError) as error:
        raise EngineError(f"{path} is not a complete GGUF model: {error}") from error


def silent_tokens(path: Path) -> frozenset[int]:
    """Tokens that stand for no text and, as far as the file says, do not end an answer. Raises as `context_length`."""
    try:
        with path.open("rb") as file:
            kinds: list[int] = []
            endings: set[int] = set()
            for key, value in _keys(file):
                if key == _TYPES:
                    kinds = value or []
                elif key in _ENDINGS:
                    endings.add(int(value))
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from error
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{path} is not a complete GGUF model: {error}") from error
    return frozenset(token for token, kind in enumerate(kinds) if kind == _CONTROL) - endings


def damage(path: Path) -> str | None:
    """What is wrong with a file that a binding could not load, as far as its own head tells."""
    try:
        with path.open("rb") as file:
            needed = _needed(file)
    except (OSError, struct.error, ValueError, KeyError) as error:
        return f"its head is damaged: {error}"
    size = path.stat().st_size
    return f"it has {size:,} bytes, and its weights need {needed:,}: it was not copied whole" if size < needed else None


def _needed(file: BinaryIO) -> int:
    """Bytes that the file must have, by the list of its tensors; fewer than that for types that are not known here."""
    alignment = 32
    for key, value in _keys(file):
        if key == "general.alignment":
            alignment = int(value)
    head = file.tell()
    file.seek(8)
    (count,) = struct.unpack("<Q", file.read(8))
    file.seek(head)
    end = 0
    for _ in range(count):
        _string(file)
        (dimensions,) = struct.unpack("<I", file.read(4))
        shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
        kind, offset = struct.unpack("<IQ", file.read(12))
        values, size = _BLOCKS.get(kind, (1, 0))
        end = max(end, offset + math.prod(shape) // values * size)
    begin = -(-file.tell() // alignment) * alignment
    return begin + end


def _keys(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    if file.read(4) != _MAGIC:
        raise ValueError("it does not begin with the letters GGUF")
    _, _, count = struct.unpack("<IQQ", file.read(20))
    for _ in range(count):
        key = _string(file)
        yield key, _value(file, struct.unpack("<I", file.read(4))[0])


def _context_length(file: BinaryIO) -> int | None:
    for key, value in _keys(file):
        if key.endswith(".context_length"):
            return int(value)
        if key.startswith("tokenizer."):
            return None
    return None


def _string(file: BinaryIO) -> str:
    (size,) = struct.unpack("<Q", file.read(8))
    if size > _LONGEST:
        raise ValueError(f"a string of {size} bytes in its head")
    return file.read(size).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        inner, count = struct.unpack("<IQ", file.read(12))
        if inner == _INT32:
            return list(struct.unpack(f"<{count}i", file.read(4 * count))) if count <= _LONGEST else None
        for _ in range(count):
            _value(file, inner)
        return None
    form = _SCALARS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]
