"""Binding b, the lower half: the C functions of ``llama-cpp-python`` behind a few Python methods.

Rule: everything here is called by one thread at a time (the model, its context and its samplers are not thread-safe).
The high-level ``Llama`` class is not used: it holds one sequence, and aborts when two threads touch it.
"""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING, Any

from ...errors import BadRequestError, EngineError
from ..local.chat_template import chosen
from ..local.messages import for_templates
from .gguf import context_length
from .loading import apply_adapters, load_model, make_context, set_log
from .sampling import make_chain
from .sight import PLACE, Sight

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..local.ask import Ask
    from .settings import Settings
    from .sight import Picture

_log = logging.getLogger("asyncinfer")

_LACKING = dict.fromkeys(
    ("draft", "draft_n_max", "draft_n_min", "draft_p_min"),
    "model_kwargs={'binding': 'xllamacpp'} has speculative decoding",
)


class Library:
    """A loaded model, its context for ``slots`` sequences, and one batch.

    Attributes:
        n_ctx: tokens of context of each sequence.
        n_vocab: size of the vocabulary.
        template: Jinja source of the chat template.
    """

    def __init__(self, settings: Settings) -> None:
        import llama_cpp

        self._lib: Any = llama_cpp
        path = settings.file()
        projector = settings.projector_file(path)
        self.n_ctx = settings.context(context_length(path))
        self.n_batch = settings.n_batch
        self.sight: Sight | None = None
        self._model: Any = None
        self._ctx: Any = None
        self._batch: Any = None
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self._ending: dict[int, bool] = {}
        set_log(llama_cpp, settings.verbose)
        settings.lacks("llama-cpp-python", _LACKING)
        llama_cpp.llama_backend_init()
        try:
            self._open(settings, str(path))
            self._look(settings, projector)
            self._prepare_chat(settings)
        except BaseException:
            self.close()
            raise

    def _open(self, settings: Settings, path: str) -> None:
        lib = self._lib
        self._model = load_model(lib, settings, path)
        self._ctx = make_context(lib, settings, self._model, self.n_ctx)
        apply_adapters(lib, settings, self._model, self._ctx)
        self.n_ctx = int(lib.llama_n_ctx_seq(self._ctx))
        self._window = self.n_ctx if settings.penalty_window is None else settings.penalty_window
        self._memory = lib.llama_get_memory(self._ctx)
        # Of a model whose layers look back only so far, the memory beyond is gone: 0 where every layer sees everything.
        self._reach = 0 if settings.swa_full else int(lib.llama_model_n_swa(self._model))
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))
        self._batch = lib.llama_batch_init(settings.n_batch, 0, 1)

    def _look(self, settings: Settings, projector: Path | None) -> None:
        if projector is None:
            return
        try:
            self.sight = Sight(settings, projector, self._model)
        except EngineError as error:
            if settings.projector is not None:  # it was asked for, not only found
                raise
            _log.warning("%s reads text only: %s", settings.model, error)

    def close(self) -> None:
        """Free everything, in the order that the library wants."""
        lib = self._lib
        if self.sight is not None:
            self.sight.close()
        if self._batch is not None:
            lib.llama_batch_free(self._batch)
        if self._ctx:
            lib.llama_free(self._ctx)
        if self._model:
            lib.llama_model_free(self._model)  # and its adapters
        self._batch = self._ctx = self._model = self.sight = None

    # -- chat template -----------------------------------------------------------------------------------------------

    def _prepare_chat(self, settings: Settings) -> None:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        lib = self._lib
        own = lib.llama_model_chat_template(self._model, None)
        template = chosen(settings.chat_template, own and own.decode("utf-8", "replace"), settings.model)
        self.template: str = template
        self._bos = self._special(lib.llama_vocab_bos(self._vocab))
        try:
            self._format = Jinja2ChatFormatter(
                template=template, eos_token=self._special(lib.llama_vocab_eos(self._vocab)), bos_token=self._bos
            )
        except Exception as error:
            raise EngineError(f"the chat template of {settings.model} is not valid Jinja: {error}") from error

    def _special(self, token: int) -> str:
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def prompt(self, ask: Ask) -> str:
        """The conversation as text. Raises `BadRequestError` if the template refuses it."""
        try:
            answer = self._format(
                messages=self._marked(for_templates(ask.messages)),
                tools=ask.tools,
                **ask.template_kwargs,
            )
        except Exception as error:
            raise BadRequestError(f"the model's chat template refuses the conversation: {error}") from error
        return str(answer.prompt)

    def _marked(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same messages with a marker, which is text to the template, in the place of each picture."""
        if self.sight is None:
            return messages
        marker = self.sight.marker
        return [
            {**message, "content": "".join(part.get("text", marker) for part in message["content"])}
            if isinstance(message["content"], list)
            else message
            for message in messages
        ]

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a prompt, with a first token where the model wants one and the template has none."""
        lib = self._lib
        add = self._wants_first(text)
        data = text.encode()
        room = len(data) + 8
        while True:
            ids = (lib.llama_token * room)()
            count = lib.llama_tokenize(self._vocab, data, len(data), ids, room, add, True)
            if count >= 0:
                return list(ids[:count])
            room = -count

    def _wants_first(self, text: str) -> bool:
        return bool(self._lib.llama_vocab_get_add_bos(self._vocab)) and not (self._bos and text.startswith(self._bos))

    def read(self, ask: Ask, text: str | list[int]) -> list[list[int] | Picture]:
        """A prompt as runs of tokens and pictures. Raises `BadRequestError`."""
        if not isinstance(text, str):
            return [self.checked(text)]
        if self.sight is None or not ask.images:
            return [self.tokenize(text)]
        if ask.prompt is not None:
            text = text.replace(PLACE, self.sight.marker)
            text = text if self.sight.marker in text else self.sight.marker * len(ask.images) + text
        return self.sight.read(text, ask.images, add_special=self._wants_first(text))

    def checked(self, tokens: list[int]) -> list[int]:
        """The tokens of a prompt, all of which the model knows: the library would abort. Raises `BadRequestError`."""
        strange = next((token for token in tokens if not 0 <= token < self.n_vocab), None)
        if strange is not None:
            raise BadRequestError(f"the prompt has the token {strange}; the model knows 0 to {self.n_vocab - 1}")
        return tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token; none for a control token unless ``special``."""
        known = self._pieces.get((token, special))
        if known is None:
            size = 64
            while True:
                buffer = ctypes.create_string_buffer(size)
                count = self._lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
                if count >= 0:
                    break
                size = -count
            known = self._pieces[token, special] = buffer.raw[:count]
        return known

    def shown(self, token: int) -> bytes:
        """The bytes of a token, a special one too."""
        return self.piece(token, special=True)

    def ends(self, token: int) -> bool:
        """Whether the token ends an answer."""
        known = self._ending.get(token)
        if known is None:
            known = self._ending[token] = bool(self._lib.llama_vocab_is_eog(self._vocab, token))
        return known

    def forbid_ending(self, row: int, further: Sequence[int]) -> None:
        """Let no token that ends an answer be sampled at a row, nor one of ``further``."""
        if len(self._ending) < self.n_vocab:
            for token in range(self.n_vocab):
                self.ends(token)
            self._endings = [token for token, ends in self._ending.items() if ends]
        scores = self.logits(row)
        scores[self._endings] = -float("inf")
        scores[[token for token in further if 0 <= token < self.n_vocab]] = -float("inf")

    # -- decoding ----------------------------------------------------------------------------------------------------

    def decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """One step. Rows are (token, position, sequence, wants logits). Raises `EngineError`."""
        batch = self._batch
        tokens, positions, counts, sequences, logits = (
            batch.token,
            batch.pos,
            batch.n_seq_id,
            batch.seq_id,
            batch.logits,
        )
        for row, (token, position, sequence, wanted) in enumerate(rows):
            tokens[row] = token
            positions[row] = position
            counts[row] = 1
            sequences[row][0] = sequence
            logits[row] = wanted
        batch.n_tokens = len(rows)
        code = self._lib.llama_decode(self._ctx, batch)
        if code != 0:
            raise EngineError(f"llama.cpp could not decode a batch of {len(rows)} tokens (code {code})")

    def keep(self, sequence: int, length: int) -> bool:
        """Drop a sequence's memory from position ``length`` on; False if this kind of model cannot go back there."""
        lib = self._lib
        if not lib.llama_memory_seq_rm(self._memory, sequence, length, -1):
            return False
        if length and self._reach:
            return bool(lib.llama_memory_seq_pos_min(self._memory, sequence) <= max(0, length - self._reach))
        return True

    def copy(self, source: int, sequence: int) -> None:
        """Give a sequence, whose own memory is empty, the memory of another."""
        self._lib.llama_memory_seq_cp(self._memory, source, sequence, -1, -1)

    def show(self, picture: Picture, sequence: int, position: int) -> int:
        """Decode a picture into a sequence; the position behind it. Raises `EngineError`."""
        assert self.sight is not None
        return self.sight.show(self._ctx, picture, sequence, position)

    def logits(self, row: int) -> Any:
        """The raw scores at a row, a numpy view that the next step overwrites."""
        import numpy as np

        return np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._ctx, row), shape=(self.n_vocab,))

    # -- sampling ----------------------------------------------------------------------------------------------------

    def sampler(self, ask: Ask, prompt: Sequence[int]) -> Any:
        """A chain of samplers for one answer. Raises `ConfigError` for a grammar that is none."""
        return make_chain(self._lib, self._vocab, ask, prompt, n_vocab=self.n_vocab, window=self._window)

    def sample(self, chain: Any, row: int) -> int:
        """The next token, chosen and taken note of."""
        return int(self._lib.llama_sampler_sample(chain, self._ctx, row))

    def free_sampler(self, chain: Any) -> None:
        """Give a chain's memory back."""
        self._lib.llama_sampler_free(chain)
