"""Binding a: what llama-server is told and what it says, as values. Pure; `server` carries it.

The words are those of tools/server/README.md of llama.cpp.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import AsyncInferError, BadRequestError, ConfigError, ContextLengthError, EngineError, ProtocolError
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
from ..local.answer import Answer
from .forced import forced

if TYPE_CHECKING:
    from ..local.ask import Ask

# -- what goes in ------------------------------------------------------------------------------------------------------


def request_body(ask: Ask, context: int) -> dict[str, Any]:
    """The request as llama-server wants it; its own defaults differ from ours, so every value is spelled out.

    ``context`` is that of one conversation, in tokens: penalties look back on all of it, and no answer is longer (the
    server counts in 32 bits).
    """
    body: dict[str, Any] = {
        "messages": _with_images(ask),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "max_tokens": -1 if ask.max_tokens is None else min(ask.max_tokens, context),
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
    if ask.logprobs is not None or ask.stop_ids:  # the entry of a token says its id
        body["logprobs"] = True
        body["top_logprobs"] = max(1, ask.logprobs or 0)  # with none there are no entries at all
    grammar = forced(ask)
    if grammar is not None:
        body["grammar"] = grammar
        body["reasoning_format"] = "none"  # what is forced is no thought, even where the template opens one
    if ask.prompt is not None:
        _as_completion(body, ask)
        return body
    told = dict(ask.template_kwargs)
    if ask.tools and ask.must_call:
        told["tools"] = ask.tools  # for the template alone: the server itself lets a model talk before it calls
    elif ask.tools:
        _offer(body, ask)
    if told:
        body["chat_template_kwargs"] = told
    return body


def _offer(body: dict[str, Any], ask: Ask) -> None:
    """Tools that the model may call. Raises `ConfigError`."""
    if ask.stop_ids:
        raise ConfigError(
            "xllamacpp does not say the ids of tokens where tools are offered, and so cannot stop at stop_token_ids; "
            "use stop_strings, or model_kwargs={'binding': 'llama-cpp-python'}",
            path="generation.stop_token_ids",
        )
    body["tools"] = ask.tools
    body["tool_choice"] = "auto"


def _with_images(ask: Ask) -> list[dict[str, Any]]:
    """The messages with every picture in its place, as a data: URL."""
    if not ask.images:
        return ask.messages
    pictures = iter(ask.images)

    def part(item: dict[str, Any]) -> dict[str, Any]:
        if item["type"] != "image":
            return item
        url = "data:image/png;base64," + b64encode(next(pictures)).decode("ascii")  # (the server looks at the bytes)
        return {"type": "image_url", "image_url": {"url": url}}

    return [
        {**message, "content": [part(item) for item in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in ask.messages
    ]


def _as_completion(body: dict[str, Any], ask: Ask) -> None:
    """What ``/v1/completions`` calls otherwise than ``/v1/chat/completions``."""
    if ask.images:  # (the server keeps its word for a picture's place to itself)
        raise ConfigError(
            "xllamacpp takes images in conversations only; for a bare Prompt with images use "
            "model_kwargs={'binding': 'llama-cpp-python'}",
            path="prompt.multi_modal_data",
        )
    del body["messages"]
    body["prompt"] = ask.prompt
    if "top_logprobs" in body:
        body["n_probs"] = body.pop("top_logprobs")


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
    delta: _Delta | None = None
    text: str | None = None  # in place of a delta, where a bare prompt is completed
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

    Args:
        ask: whose answer.

    Attributes:
        finished: the answer is complete.
        stopped: one of the request's own stop tokens has ended it, which the server does not know: stop it there.
    """

    __slots__ = ("_ask", "_call", "_made", "_progress", "_started", "finished", "stopped")

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        # A call that the server was not told of comes as text.
        self._call = Answer((), tools=True, thinks=False, thinking=False) if ask.must_call else None
        self._started = False
        self._progress: _Progress | None = None
        self._made = 0
        self.finished = False
        self.stopped = False

    def feed(self, text: str) -> list[Event]:
        """The events of one chunk; none is usual while the prompt is read.

        Raises:
            AsyncInferError: the server reports an error, or its chunk cannot be read.
        """
        try:
            chunk = _decode(text)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"llama.cpp sent a chunk that cannot be read: {error}: {text[:200]}") from error
        if chunk.error is not None:
            raise _refusal(chunk.error)
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(Start(id=chunk.id, model=chunk.model))
        progress = chunk.prompt_progress
        if progress is not None and self._progress is None:
            self._progress = progress  # known before the first token, for a call that does not live to see its last
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
        delta = choice.delta or _Delta(content=choice.text)
        logprobs = choice.logprobs.content if choice.logprobs is not None else None
        if logprobs:
            self._made += len(logprobs)
            if any(entry.get("id") in self._ask.stop_ids for entry in logprobs):
                self._stop(logprobs[-1]["id"], events)
                return
            logprobs = self._wanted(logprobs)
        if delta.reasoning_content:
            events.append(ReasoningDelta(delta.reasoning_content))
        if self._call is not None:
            events += self._called(delta.content or "", logprobs or [])
        elif delta.content or logprobs:
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
            events += self._finish(reason, matched, choice.finish_reason)

    def _called(self, text: str, logprobs: list[dict[str, Any]]) -> list[Event]:
        assert self._call is not None
        events = [event for entry in logprobs[:-1] for event in self._call.feed_text("", entry)]
        return events + self._call.feed_text(text, logprobs[-1] if logprobs else None)

    def _finish(self, reason: FinishReason, matched: str | int | None, raw: str | None = None) -> list[Event]:
        events: list[Event] = []
        if self._call is not None:
            events += self._call.close()
            if self._call.calls and reason is FinishReason.STOP:
                reason = FinishReason.TOOL_CALLS
        return [*events, Finish(reason, matched=matched, raw=raw)]

    def _stop(self, token: int, events: list[Event]) -> None:
        self.finished = self.stopped = True
        events += self._finish(FinishReason.STOP, token)
        read = self._progress or _Progress()
        usage = Usage(input_tokens=read.total, output_tokens=self._made, cached_tokens=read.cache)
        events.append(UsageUpdate(usage))

    def _wanted(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        if self._ask.logprobs is None:
            return None
        return [{**entry, "top_logprobs": entry["top_logprobs"][: self._ask.logprobs]} for entry in entries]


def _refusal(error: _Error) -> AsyncInferError:
    if error.type == "exceed_context_size_error":
        return ContextLengthError(
            f"the prompt does not fit: {error.message} (model_kwargs.n_ctx is the context of one conversation)",
            code=error.type,
        )
    if error.code is not None and 400 <= error.code < 500:
        return BadRequestError(f"llama.cpp refuses the request: {error.message}", code=error.type)
    return EngineError(f"llama.cpp failed: {error.message}", code=error.type)
