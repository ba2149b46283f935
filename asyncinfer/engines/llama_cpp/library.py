"""Binding b, the lower half: the C functions of ``llama-cpp-python`` behind a few Python methods.

Rule: everything here is called by one thread at a time (the model, its context and its samplers are not thread-safe).
The high-level ``Llama`` class is not used: it holds one sequence, and aborts when two threads touch it.
"""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING, Any

from ...errors import BadRequestError, ConfigError, EngineError
from ..local.messages import for_templates
from .gguf import context_length
from .settings import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..local.ask import Ask
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For models that bring no chat template of their own."""

_quiet: Any = None
"""The C callback that swallows the library's log; the library keeps its address, so it must never be collected."""


def _set_log(lib: Any, verbose: bool) -> None:
    global _quiet
    if verbose:
        lib.llama_log_set(None, ctypes.c_void_p(0))
        return
    if _quiet is None:
        _quiet = lib.llama_log_callback(lambda _level, _text, _data: None)
    lib.llama_log_set(_quiet, ctypes.c_void_p(0))


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
        trained = context_length(path)
        self.n_ctx = settings.n_ctx or min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
        self.n_batch = settings.n_batch
        self._model: Any = None
        self._ctx: Any = None
        self._batch: Any = None
        self._adapter: Any = None
        self._pieces: dict[tuple[int, bool], bytes] = {}
        _set_log(llama_cpp, settings.verbose)
        llama_cpp.llama_backend_init()
        try:
            self._open(settings, str(path))
        except BaseException:
            self.close()
            raise
        self._prepare_chat(settings)

    def _open(self, settings: Settings, path: str) -> None:
        lib = self._lib
        self._split = (ctypes.c_float * 128)(*settings.tensor_split)
        how = lib.llama_model_default_params()
        how.n_gpu_layers = settings.n_gpu_layers
        how.main_gpu = settings.main_gpu
        how.load_mode = int(settings.use_mmap) + 2 * int(settings.use_mlock)
        if settings.tensor_split:
            how.tensor_split = self._split
        self._model = lib.llama_model_load_from_file(path.encode(), how)
        if not self._model:
            raise EngineError(
                f"{path} could not be loaded by llama-cpp-python (model_kwargs={{'verbose': True}} shows why)"
            )
        what = lib.llama_context_default_params()
        what.n_ctx = settings.slots * self.n_ctx
        what.n_seq_max = settings.slots
        what.kv_unified = False
        what.n_batch = settings.n_batch
        what.n_ubatch = settings.n_ubatch
        what.n_threads = settings.n_threads
        what.n_threads_batch = settings.n_threads_batch
        what.rope_freq_base = settings.rope_freq_base
        what.rope_freq_scale = settings.rope_freq_scale
        what.no_perf = True
        if settings.flash_attn is not None:
            what.flash_attn_type = int(settings.flash_attn)
        self._ctx = lib.llama_init_from_model(self._model, what)
        if not self._ctx:
            raise EngineError(
                f"no memory for {settings.slots} sequences of {self.n_ctx} tokens; lower model_kwargs.n_ctx or "
                "n_parallel"
            )
        if settings.adapter is not None:
            self._adapter = lib.llama_adapter_lora_init(self._model, str(settings.adapter).encode())
            if not self._adapter:
                raise EngineError(f"the adapter {settings.adapter} does not fit the model {path}")
            adapters = (lib.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            lib.llama_set_adapters_lora(self._ctx, adapters, 1, (ctypes.c_float * 1)(1.0))
        self.n_ctx = int(lib.llama_n_ctx_seq(self._ctx))
        self._memory = lib.llama_get_memory(self._ctx)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))
        self._batch = lib.llama_batch_init(settings.n_batch, 0, 1)

    def close(self) -> None:
        """Free everything, in the order that the library wants."""
        lib = self._lib
        if self._batch is not None:
            lib.llama_batch_free(self._batch)
        if self._ctx:
            lib.llama_free(self._ctx)
        if self._model:
            lib.llama_model_free(self._model)  # and its adapter
        self._batch = self._ctx = self._model = self._adapter = None

    # -- chat template -----------------------------------------------------------------------------------------------

    def _prepare_chat(self, settings: Settings) -> None:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        lib = self._lib
        own = lib.llama_model_chat_template(self._model, None)
        template = settings.chat_template or (own.decode("utf-8", "replace") if own else None)
        if template is None:
            _log.warning("%s has no chat template; ChatML is used", settings.model)
            template = _CHATML
        self.template = template
        self._bos = self._special(lib.llama_vocab_bos(self._vocab))
        try:
            self._format = Jinja2ChatFormatter(
                template=template, eos_token=self._special(lib.llama_vocab_eos(self._vocab)), bos_token=self._bos
            )
        except Exception as error:
            self.close()
            raise EngineError(f"the chat template of {settings.model} is not valid Jinja: {error}") from error

    def _special(self, token: int) -> str:
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def prompt(self, ask: Ask) -> str:
        """The conversation as text. Raises `BadRequestError` if the template refuses it."""
        try:
            answer = self._format(
                messages=for_templates(ask.messages),
                tools=ask.tools,
                **ask.template_kwargs,
            )
        except Exception as error:
            raise BadRequestError(f"the model's chat template refuses the conversation: {error}") from error
        return str(answer.prompt)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a prompt, with a first token where the model wants one and the template has none."""
        lib = self._lib
        add = bool(lib.llama_vocab_get_add_bos(self._vocab)) and not (self._bos and text.startswith(self._bos))
        data = text.encode()
        room = len(data) + 8
        while True:
            ids = (lib.llama_token * room)()
            count = lib.llama_tokenize(self._vocab, data, len(data), ids, room, add, True)
            if count >= 0:
                return list(ids[:count])
            room = -count

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

    def ends(self, token: int) -> bool:
        """Whether the token ends an answer."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

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
        """Drop a sequence's memory from position ``length`` on; False if this kind of model cannot."""
        return bool(self._lib.llama_memory_seq_rm(self._memory, sequence, length, -1))

    def logits(self, row: int) -> Any:
        """The raw scores at a row, a numpy view that the next step overwrites."""
        import numpy as np

        return np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._ctx, row), shape=(self.n_vocab,))

    # -- sampling ----------------------------------------------------------------------------------------------------

    def sampler(self, ask: Ask, grammar: str | None, prompt: Sequence[int]) -> Any:
        """A chain of samplers for one answer. Raises `ConfigError` for a grammar that is none."""
        lib = self._lib
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        try:
            for stage in self._stages(ask, grammar, prompt):
                lib.llama_sampler_chain_add(chain, stage)
        except BaseException:
            lib.llama_sampler_free(chain)
            raise
        return chain

    def _stages(self, ask: Ask, grammar: str | None, prompt: Sequence[int]) -> Any:
        lib = self._lib
        if ask.logit_bias:
            biases = (lib.llama_logit_bias * len(ask.logit_bias))(*ask.logit_bias.items())
            yield lib.llama_sampler_init_logit_bias(self.n_vocab, len(biases), biases)
        if ask.repetition_penalty != 1.0 or ask.frequency_penalty or ask.presence_penalty:
            penalties = lib.llama_sampler_init_penalties(
                self.n_vocab, self.n_ctx, ask.repetition_penalty, ask.frequency_penalty, ask.presence_penalty
            )
            for token in prompt:  # as llama-server does
                lib.llama_sampler_accept(penalties, token)
            yield penalties
        if grammar is not None:
            compiled = lib.llama_sampler_init_grammar(self._vocab, grammar.encode(), b"root")
            if not compiled:
                raise ConfigError("the grammar is not valid GBNF", path="generation.guided_decoding")
            yield compiled
        if ask.temperature <= 0:
            yield lib.llama_sampler_init_greedy()
            return
        if ask.top_k > 0:
            yield lib.llama_sampler_init_top_k(ask.top_k)
        if ask.top_p < 1:
            yield lib.llama_sampler_init_top_p(ask.top_p, 1)
        if ask.min_p > 0:
            yield lib.llama_sampler_init_min_p(ask.min_p, 1)
        yield lib.llama_sampler_init_temp(ask.temperature)
        yield lib.llama_sampler_init_dist(lib.LLAMA_DEFAULT_SEED if ask.seed is None else ask.seed & 0xFFFFFFFF)

    def sample(self, chain: Any, row: int) -> int:
        """The next token, chosen and taken note of."""
        return int(self._lib.llama_sampler_sample(chain, self._ctx, row))

    def free_sampler(self, chain: Any) -> None:
        """Give a chain's memory back."""
        self._lib.llama_sampler_free(chain)


def schema_grammar(schema: Any) -> str:
    """A JSON schema as GBNF, by the library's own converter. Raises `ConfigError` for one that it cannot convert."""
    import json

    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(json.dumps(schema)))
    except Exception as error:
        raise ConfigError(
            f"generation.guided_decoding.json cannot be made a grammar: {error}", path="generation.guided_decoding.json"
        ) from error
