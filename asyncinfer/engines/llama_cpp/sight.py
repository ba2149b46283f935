"""Binding b: pictures, through the multimodal part of llama.cpp (``mtmd``), where ``llama-cpp-python`` has it.

A prompt with pictures is cut into runs of tokens, which are decoded like any others, and pictures, each of which the
library encodes and decodes in one call of its own. Rule: called by the decoder's thread only.
"""

from __future__ import annotations

import ctypes
import secrets
from typing import TYPE_CHECKING, Any

from ...errors import BadRequestError, EngineError
from .loading import set_log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .settings import Settings

NEEDED = (
    "this build of llama-cpp-python cannot see (it was compiled with LLAVA_BUILD=OFF); reinstall it with "
    "pip install --force-reinstall --no-cache-dir llama-cpp-python, or use model_kwargs={'binding': 'xllamacpp'}"
)

PLACE = "<__media__>"
"""What stands for a picture in the text of a bare prompt: the word that llama.cpp's own programs use."""

_TEXT = 0
"""``MTMD_INPUT_CHUNK_TYPE_TEXT``"""


class Picture:
    """A picture's place in a prompt: how many tokens of memory it takes, and what the library knows it by."""

    __slots__ = ("chunk", "tokens")

    def __init__(self, chunk: Any, tokens: int) -> None:
        self.chunk = chunk
        self.tokens = tokens


class Sight:
    """The vision part of a loaded model.

    Attributes:
        marker: what stands for a picture in the text of a prompt; a word that nobody can guess.
    """

    def __init__(self, settings: Settings, file: Path, model: Any) -> None:
        try:
            from llama_cpp import mtmd_cpp
        except (ImportError, FileNotFoundError, RuntimeError, OSError) as error:
            raise EngineError(f"{file.name} is there, but {NEEDED}") from error
        import llama_cpp

        self._lib: Any = mtmd_cpp
        quiet = set_log(llama_cpp, settings.verbose)
        mtmd_cpp.mtmd_log_set(quiet, ctypes.c_void_p(0))
        mtmd_cpp.mtmd_helper_log_set(quiet, ctypes.c_void_p(0))
        how = mtmd_cpp.mtmd_context_params_default()
        how.use_gpu = settings.n_gpu_layers != 0
        how.print_timings = False
        how.n_threads = settings.n_threads_batch
        how.warmup = False
        self.marker = f"<__media_{secrets.token_hex(8)}__>"
        self._marker = self.marker.encode()  # the library may keep its address
        how.media_marker = self._marker
        self._n_batch = settings.n_batch
        self._context = mtmd_cpp.mtmd_init_from_file(str(file).encode(), model, how)
        if not self._context:
            raise EngineError(
                f"{file} could not be loaded as the vision part of {settings.model}; "
                "model_kwargs.mmproj names another, or none with false"
            )
        if not mtmd_cpp.mtmd_support_vision(self._context):
            self.close()
            raise EngineError(f"{file} lets the model hear, not see; model_kwargs.mmproj names another")

    def close(self) -> None:
        """Free the vision part; before the model."""
        if self._context:
            self._lib.mtmd_free(self._context)
        self._context = None

    def read(self, text: str, pictures: Sequence[bytes], *, add_special: bool) -> list[list[int] | Picture]:
        """A prompt, whose pictures stand at the markers, as runs of tokens and pictures, to be given to `free`.

        Raises:
            BadRequestError: a picture cannot be read, or there are not as many as places for them.
        """
        lib = self._lib
        chunks = lib.mtmd_input_chunks_init()
        bitmaps: list[Any] = []
        try:
            for number, picture in enumerate(pictures):
                data = (ctypes.c_uint8 * len(picture)).from_buffer_copy(picture)
                bitmap = lib.mtmd_helper_bitmap_init_from_buf(self._context, data, len(picture), False)
                if not bitmap:
                    raise BadRequestError(
                        f"picture {number} of the conversation cannot be read; PNG, JPEG, BMP and GIF can"
                    )
                bitmaps.append(bitmap)
            encoded = text.encode()
            words = lib.mtmd_input_text(encoded, len(encoded), add_special, True)
            handles = (lib.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
            if lib.mtmd_tokenize(self._context, chunks, ctypes.byref(words), handles, len(bitmaps)):
                raise BadRequestError(
                    f"the conversation has {len(bitmaps)} pictures, and the prompt made of it has "
                    f"{text.count(self.marker)} places for them"
                )
            return self._parts(chunks)
        finally:
            for bitmap in bitmaps:
                lib.mtmd_bitmap_free(bitmap)
            lib.mtmd_input_chunks_free(chunks)

    def _parts(self, chunks: Any) -> list[list[int] | Picture]:
        lib = self._lib
        parts: list[list[int] | Picture] = []
        for at in range(lib.mtmd_input_chunks_size(chunks)):
            chunk = lib.mtmd_input_chunks_get(chunks, at)
            if lib.mtmd_input_chunk_get_type(chunk) != _TEXT:
                parts.append(Picture(lib.mtmd_input_chunk_copy(chunk), lib.mtmd_input_chunk_get_n_tokens(chunk)))
                continue
            count = ctypes.c_size_t()
            tokens = list(lib.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))[: count.value])
            if parts and isinstance(parts[-1], list):
                parts[-1].extend(tokens)
            else:
                parts.append(tokens)
        return parts

    def show(self, context: Any, picture: Picture, sequence: int, position: int) -> int:
        """Encode a picture and decode it into a sequence; the position behind it. Raises `EngineError`."""
        after = ctypes.c_int32(position)
        code = self._lib.mtmd_helper_eval_chunk_single(
            self._context, context, picture.chunk, position, sequence, self._n_batch, False, ctypes.byref(after)
        )
        if code:
            raise EngineError(f"llama.cpp could not decode a picture (code {code})")
        return after.value

    def free(self, picture: Picture) -> None:
        """Give a picture's memory back."""
        if picture.chunk:
            self._lib.mtmd_input_chunk_free(picture.chunk)
        picture.chunk = None
