"""Binding a: ``xllamacpp``, an in-process llama-server. It batches; we give it one thread for each active stream.

What was measured of it, and is therefore done here:

* Destroying a server that never served a request hangs: it serves one token while it is being loaded.
* Destroying it while a thread is inside aborts the process: `close` stops every stream, joins every thread, and only
  then lets the server go. A thread that does not come back keeps the server alive for good.
* Its callback is asked only when there is something to report: ``return_progress`` makes it report every batch of a
  prompt too, so that a cancelled prefill stops after one batch.
* It opens an HTTP listener that cannot be switched off: on loopback, behind a random key that nobody knows.
* It keeps up to 8 GiB of old prompts in memory unless told not to.
* ``tool_choice`` with a name is read as "auto": `ask` narrows the tools instead.
"""

from __future__ import annotations

import logging
import secrets
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import (
    AsyncInferError,
    BadRequestError,
    ContextLengthError,
    EngineClosedError,
    EngineError,
)
from ...events import (
    Event,
    Finish,
    FinishReason,
    ReasoningDelta,
    Start,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from ..worker import Crew
from .gguf import context_length
from .settings import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from ..worker import Feed
    from .ask import Ask
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_stuck: list[Any] = []
"""Servers that a thread never came back from: they live until the process ends, for destroying them would abort it."""


class _Job:
    __slots__ = ("body", "feed")

    def __init__(self, body: str, feed: Feed) -> None:
        self.body = body
        self.feed = feed


class ServerBinding:
    """See `binding.Binding`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: Any = None
        self._context = 0
        self._lock = threading.Lock()
        self._closing = False
        self._crew: Crew[_Job] = Crew("asyncinfer-llamacpp", settings.slots, self._serve, _died)

    def load(self) -> None:
        settings = self._settings
        path = settings.file()
        trained = context_length(path)
        context = settings.n_ctx or min(DEFAULT_CONTEXT, trained or DEFAULT_CONTEXT)
        try:
            server = _start(settings, str(path), context)
        except Exception as error:
            raise EngineError(
                f"{path} could not be loaded by xllamacpp: {error} (model_kwargs={{'verbose': True}} shows why)"
            ) from error
        with self._lock:
            if not self._closing:
                self._context = context
                self._server = server

    def submit(self, ask: Ask, feed: Feed) -> None:
        self._crew.submit(_Job(msgspec.json.encode(request_body(ask, self._context)).decode(), feed))

    def close(self) -> None:
        with self._lock:
            self._closing = True
            server, self._server = self._server, None
        try:
            for job in self._crew.close():
                job.feed.fail(EngineClosedError("the engine was closed before this call began"))
        except EngineError:
            _stuck.append(server)
            raise

    # -- on a thread of the crew -------------------------------------------------------------------------------------

    def _serve(self, job: _Job) -> None:
        feed = job.feed
        server = self._server
        if server is None or self._closing:
            feed.fail(EngineClosedError("the engine is closed"))
            return
        if feed.cancelled:
            return
        reader = ChunkReader()
        broken: list[AsyncInferError] = []

        def on_chunk(chunk: str) -> bool:
            """True stops the stream. An exception would be swallowed by the library."""
            if feed.cancelled or self._closing:
                return True
            try:
                events = reader.feed(chunk)
            except AsyncInferError as error:
                broken.append(error)
                return True
            except Exception as error:  # noqa: BLE001 -- crosses as a typed error below
                broken.append(EngineError(f"a chunk of llama.cpp could not be read: {error!r}"))
                return True
            if events:
                feed.send(events)
            return False

        try:
            server.handle_chat_completions(job.body, on_chunk)
        except (ValueError, RuntimeError) as error:
            broken.append(BadRequestError(f"llama.cpp refuses the request: {error}"))
        if broken:
            feed.fail(broken[0])
        elif reader.finished:
            feed.end()
        else:
            feed.fail(
                EngineClosedError("the engine was closed while this call was under way")
                if self._closing
                else EngineError("llama.cpp ended the answer without a reason")
            )


def _died(job: _Job, error: BaseException) -> None:
    _log.error("a llama.cpp thread failed", exc_info=error)
    job.feed.fail(EngineError(f"the engine's thread failed: {error!r}"))


def _start(settings: Settings, path: str, context: int) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {settings.model}
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * context
    params.kv_unified = False
    params.n_batch = settings.n_batch
    params.n_ubatch = settings.n_ubatch
    params.n_gpu_layers = settings.n_gpu_layers
    params.main_gpu = settings.main_gpu
    if settings.tensor_split:
        shares = params.tensor_split
        params.tensor_split = settings.tensor_split + [0.0] * (len(shares) - len(settings.tensor_split))
    params.cpuparams.n_threads = settings.n_threads
    params.cpuparams_batch.n_threads = settings.n_threads_batch
    if settings.flash_attn is not None:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type(int(settings.flash_attn))
    params.load_mode = xllamacpp.llama_load_mode(int(settings.use_mmap) + 2 * int(settings.use_mlock))
    params.rope_freq_base = settings.rope_freq_base
    params.rope_freq_scale = settings.rope_freq_scale
    if settings.adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(settings.adapter), 1.0)]
    if settings.chat_template is not None:
        params.chat_template = settings.chat_template
    params.cache_ram_mib = 0
    params.api_keys = [secrets.token_urlsafe(32)]
    params.hostnames = ["127.0.0.1"]
    params.n_threads_http = 1
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 3 if settings.verbose else -1
    server = xllamacpp.Server(params)
    server.handle_completions({"prompt": "a", "max_tokens": 1})
    return server


# -- what goes in ------------------------------------------------------------------------------------------------------


def request_body(ask: Ask, context: int) -> dict[str, Any]:
    """The request in the words of llama-server (tools/server/README.md of llama.cpp); every default is spelled out.

    ``context`` is the number of tokens that penalties look back on.
    """
    body: dict[str, Any] = {
        "messages": ask.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "max_tokens": -1 if ask.max_tokens is None else ask.max_tokens,
        "temperature": ask.temperature,
        "top_k": ask.top_k,
        "top_p": ask.top_p,
        "min_p": ask.min_p,
        "frequency_penalty": ask.frequency_penalty,
        "presence_penalty": ask.presence_penalty,
        "repeat_penalty": ask.repetition_penalty,
        "repeat_last_n": context,
    }
    if ask.seed is not None:
        body["seed"] = ask.seed
    if ask.stop:
        body["stop"] = list(ask.stop)
        body["verbose"] = True  # the last chunk then says which one it was
    if ask.logit_bias:
        body["logit_bias"] = [[token, bias] for token, bias in ask.logit_bias.items()]
    if ask.logprobs is not None:
        body["logprobs"] = True
        body["top_logprobs"] = ask.logprobs
    if ask.tools:
        body["tools"] = ask.tools
        body["tool_choice"] = "required" if ask.must_call else "auto"
    if ask.schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": ask.schema}}
    if ask.grammar is not None:
        body["grammar"] = ask.grammar
    if ask.template_kwargs:
        body["chat_template_kwargs"] = ask.template_kwargs
    return body


# -- what comes out ----------------------------------------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None


class _Progress(msgspec.Struct, gc=False):
    total: int = 0
    cache: int = 0


class _Error(msgspec.Struct, gc=False):
    message: str = ""
    type: str = ""
    code: int | None = None


class _Verbose(msgspec.Struct, gc=False):
    stopping_word: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    id: str = ""
    model: str = ""
    choices: list[_Choice] = []
    usage: _Usage | None = None
    prompt_progress: _Progress | None = None
    error: _Error | None = None
    verbose: _Verbose | None = msgspec.field(default=None, name="__verbose")


_decode = msgspec.json.Decoder(_Chunk).decode

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
}


class ChunkReader:
    """The chunks of one answer of llama-server as events.

    Attributes:
        finished: the chunk with the finish reason was seen.
    """

    __slots__ = ("_prompt", "_started", "finished")

    def __init__(self) -> None:
        self._started = False
        self._prompt = False
        self.finished = False

    def feed(self, text: str) -> list[Event]:
        """The events of one chunk; none is usual while the prompt is read. Raises `AsyncInferError` for an error."""
        chunk = _decode(text)
        if chunk.error is not None:
            raise _refusal(chunk.error)
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(Start(id=chunk.id, model=chunk.model))
        progress = chunk.prompt_progress
        if progress is not None and not self._prompt:
            self._prompt = True  # known before the first token, for a call that does not live to see its last
            events.append(UsageUpdate(Usage(input_tokens=progress.total, cached_tokens=progress.cache)))
        for choice in chunk.choices:
            self._choice(choice, chunk.verbose, events)
        if chunk.usage is not None:
            details = chunk.usage.prompt_tokens_details
            events.append(
                UsageUpdate(
                    Usage(
                        input_tokens=chunk.usage.prompt_tokens,
                        output_tokens=chunk.usage.completion_tokens,
                        cached_tokens=details.cached_tokens if details is not None else 0,
                    )
                )
            )
        return events

    def _choice(self, choice: _Choice, verbose: _Verbose | None, events: list[Event]) -> None:
        delta = choice.delta
        logprobs = choice.logprobs.content if choice.logprobs is not None else None
        if delta.reasoning_content:
            events.append(ReasoningDelta(delta.reasoning_content))
        if delta.content or logprobs:
            events.append(TextDelta(delta.content or "", logprobs=logprobs))
        for call in delta.tool_calls or ():
            function = call.function
            events.append(
                ToolCallDelta(
                    call=call.index,
                    id=call.id,
                    name=function.name if function is not None else None,
                    arguments=(function.arguments or "") if function is not None else "",
                )
            )
        if choice.finish_reason is not None:
            self.finished = True
            matched = (verbose.stopping_word or None) if verbose is not None else None
            reason = _REASONS.get(choice.finish_reason, FinishReason.UNKNOWN)
            events.append(Finish(reason, matched=matched, raw=choice.finish_reason))


def _refusal(error: _Error) -> AsyncInferError:
    if error.type == "exceed_context_size_error":
        return ContextLengthError(
            f"the prompt does not fit: {error.message} (model_kwargs.n_ctx is the context of one conversation)",
            code=error.type,
        )
    if error.code is not None and 400 <= error.code < 500:
        return BadRequestError(f"llama.cpp refuses the request: {error.message}", code=error.type)
    return EngineError(f"llama.cpp failed: {error.message}", code=error.type)
