"""Binding b, the upper half: continuous batching over ``llama-cpp-python``, in one thread.

Each step decodes one token of every running answer and, in the room that is left, a piece of the prompts that wait. A
cancelled answer leaves before the next step; a finished one leaves its memory behind for the next prompt that begins
like it.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from typing import TYPE_CHECKING, Any

from ...errors import AsyncInferError, ContextLengthError, EngineClosedError, EngineError
from ...events import Event, Finish, FinishReason, Start, Usage, UsageUpdate
from ..local.answer import THINK_CLOSE, THINK_OPEN, TOOL_CLOSE, TOOL_OPEN, Answer
from ..worker import join_all
from .grammar import shape
from .library import Library, schema_grammar

if TYPE_CHECKING:
    from ..local.ask import Ask
    from ..worker import Feed
    from .settings import Settings

_log = logging.getLogger("asyncinfer")


class _Running:
    """One answer in the making, in one sequence of the context."""

    __slots__ = (
        "answer",
        "ask",
        "cached",
        "chain",
        "done",
        "feed",
        "limit",
        "made",
        "next",
        "prompt",
        "row",
        "slot",
        "started",
    )

    def __init__(self, ask: Ask, feed: Feed, prompt: list[int], slot: _Slot) -> None:
        self.ask = ask
        self.feed = feed
        self.prompt = prompt
        self.slot = slot
        self.chain: Any = None
        self.answer: Answer
        self.limit: int
        self.cached = 0
        self.done = 0  # prompt tokens decoded
        self.made = 0  # tokens sampled
        self.next = -1  # sampled, not yet decoded
        self.row = -1  # of this step's batch, where its scores are; -1 for none
        self.started = False

    @property
    def usage(self) -> Usage:
        return Usage(input_tokens=len(self.prompt), output_tokens=self.made, cached_tokens=self.cached)


class _Slot:
    """One sequence of the context; ``tokens`` are what its memory holds."""

    __slots__ = ("number", "running", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.tokens: list[int] = []
        self.running: _Running | None = None


class BatchBinding:
    """See `binding.Binding`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inbox: queue.SimpleQueue[tuple[Ask, Feed] | None] = queue.SimpleQueue()
        self._waiting: list[tuple[Ask, Feed]] = []
        self._slots = [_Slot(number) for number in range(settings.slots)]
        self._lock = threading.Lock()
        self._closing = False
        self._dead: str | None = None
        self._library: Library
        self._thread: threading.Thread | None = None

    # -- any thread --------------------------------------------------------------------------------------------------

    def load(self) -> None:
        library = Library(self._settings)
        with self._lock:
            if not self._closing:
                self._library = library
                self._thread = threading.Thread(target=self._run, name="asyncinfer-llamacpp", daemon=True)
                self._thread.start()
                return
        library.close()

    def submit(self, ask: Ask, feed: Feed) -> None:
        with self._lock:
            if self._dead is not None:
                raise EngineError(self._dead)
            if self._closing:
                raise EngineClosedError("the engine is closed")
            self._inbox.put((ask, feed))

    def close(self) -> None:
        with self._lock:
            self._closing = True
        self._inbox.put(None)
        if self._thread is not None:
            join_all([self._thread])

    # -- the decoder's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        error: AsyncInferError = EngineClosedError("the engine was closed while this call was under way")
        try:
            while not self._closing:
                self._admit()
                if self._closing:
                    break
                if any(slot.running is not None for slot in self._slots):
                    self._step()
        except BaseException as crash:  # noqa: BLE001 -- every stream of this thread is told
            _log.exception("the llama.cpp decoder failed")
            error = crash if isinstance(crash, EngineError) else EngineError(f"the engine's decoder failed: {crash!r}")
            with self._lock:
                self._dead = f"the engine has failed and must be closed: {error.message}"
        finally:
            self._end_all(error)
            self._library.close()

    def _end_all(self, error: AsyncInferError) -> None:
        for slot in self._slots:
            if slot.running is not None:
                slot.running.feed.fail(error)
                self._leave(slot.running)
        self._take_mail(block=False)
        for _, feed in self._waiting:
            feed.fail(error)

    def _take_mail(self, *, block: bool) -> None:
        while True:
            try:
                item = self._inbox.get(block=block)
            except queue.Empty:
                return
            if item is not None:
                self._waiting.append(item)
            block = False

    def _admit(self) -> None:
        """Let go of cancelled answers, then give free sequences to who waits; with nothing to do, wait."""
        for slot in self._slots:
            if slot.running is not None and slot.running.feed.cancelled:
                self._leave(slot.running)
        idle = not self._waiting and all(slot.running is None for slot in self._slots)
        self._take_mail(block=idle)
        while self._waiting:
            free = [slot for slot in self._slots if slot.running is None]
            if not free:
                return
            ask, feed = self._waiting.pop(0)
            if feed.cancelled:
                continue
            try:
                self._begin(ask, feed, free)
            except Exception as error:  # noqa: BLE001 -- one bad request must not take the others with it
                feed.fail(_typed(error))

    def _begin(self, ask: Ask, feed: Feed, free: list[_Slot]) -> None:
        library = self._library
        text = library.prompt(ask) if ask.prompt is None else ask.prompt
        prompt = library.tokenize(text) if isinstance(text, str) else library.checked(text)
        room = library.n_ctx - len(prompt)
        if room < 1 or not prompt:
            raise ContextLengthError(
                f"the prompt has {len(prompt)} tokens and the context of one conversation is {library.n_ctx} "
                "(model_kwargs.n_ctx)"
            )
        slot = max(free, key=lambda one: _common(one.tokens, prompt))
        running = _Running(ask, feed, prompt, slot)
        thinks = ask.prompt is None and THINK_CLOSE in library.template
        running.answer = Answer(
            ask.stop,
            tools=bool(ask.tools),
            thinks=thinks,
            thinking=thinks and str(text).rstrip().endswith(THINK_OPEN),
        )
        running.limit = room if ask.max_tokens is None else min(room, ask.max_tokens)
        running.chain = library.sampler(ask, _grammar(ask), prompt)
        running.cached = self._reuse(slot, prompt)
        running.done = running.cached
        slot.running = running

    def _reuse(self, slot: _Slot, prompt: list[int]) -> int:
        """Keep what the sequence's memory has in common with the prompt; at least its last token is decoded anew."""
        common = min(_common(slot.tokens, prompt), len(prompt) - 1)
        if len(slot.tokens) > common and not self._library.keep(slot.number, common):
            self._library.keep(slot.number, 0)
            common = 0
        del slot.tokens[common:]
        return common

    def _leave(self, running: _Running) -> None:
        self._library.free_sampler(running.chain)
        running.slot.running = None

    # -- one step ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        rows: list[tuple[int, int, int, bool]] = []
        active = [slot.running for slot in self._slots if slot.running is not None]
        for one in active:
            one.row = -1
            if one.next >= 0:
                one.row = len(rows)
                rows.append((one.next, len(one.slot.tokens), one.slot.number, True))
                one.slot.tokens.append(one.next)
        for one in active:
            self._add_prompt(one, rows)
        self._library.decode(rows)
        ready: list[tuple[_Running, list[Event], bool]] = []
        for one in active:
            if one.row >= 0:
                try:
                    ready.append((one, *self._advance(one)))
                except Exception as error:  # noqa: BLE001 -- nor one bad answer
                    one.feed.fail(_typed(error))
                    self._leave(one)
        # All events of the step together, so that one wake-up carries them.
        for one, events, ended in ready:
            if ended:
                one.feed.end(events)
                self._leave(one)
            elif events:
                one.feed.send(events)

    def _add_prompt(self, one: _Running, rows: list[tuple[int, int, int, bool]]) -> None:
        left = len(one.prompt) - one.done
        take = min(left, self._library.n_batch - len(rows))
        if take <= 0:
            return
        chunk = one.prompt[one.done : one.done + take]
        one.done += take
        for token in chunk:
            rows.append((token, len(one.slot.tokens), one.slot.number, False))
            one.slot.tokens.append(token)
        if one.done == len(one.prompt):
            one.row = len(rows) - 1
            rows[-1] = (*rows[-1][:3], True)

    def _advance(self, one: _Running) -> tuple[list[Event], bool]:
        """Sample a token; its events, and whether it was the last."""
        library = self._library
        scores = None
        if one.ask.logprobs is not None:
            scores = library.logits(one.row).copy()  # sampling changes them in place
        token = library.sample(one.chain, one.row)
        one.made += 1
        one.next = token
        events: list[Event] = []
        if not one.started:
            one.started = True
            events.append(Start(id=f"chatcmpl-{secrets.token_hex(12)}", model=self._settings.model))
            events.append(UsageUpdate(Usage(input_tokens=len(one.prompt), cached_tokens=one.cached)))
        reason = FinishReason.STOP
        ended = library.ends(token)
        if not ended:
            logprob = None if scores is None else _logprob(library, scores, token, one.ask.logprobs or 0)
            events += one.answer.feed(library.piece(token), logprob)
            ended = one.answer.matched is not None
            if not ended and one.made >= one.limit:
                ended, reason = True, FinishReason.LENGTH
        if ended:
            events += one.answer.close()
            if one.answer.calls and reason is FinishReason.STOP:
                reason = FinishReason.TOOL_CALLS
            events.append(Finish(reason, matched=one.answer.matched))
            events.append(UsageUpdate(one.usage))
        return events, ended


def _typed(error: Exception) -> AsyncInferError:
    if isinstance(error, AsyncInferError):
        return error
    _log.error("llama.cpp failed in one request", exc_info=error)
    return EngineError(f"llama.cpp failed in this request: {error!r}")


def _common(held: list[int], prompt: list[int]) -> int:
    """Length of the common beginning."""
    for at, (one, other) in enumerate(zip(held, prompt, strict=False)):
        if one != other:
            return at
    return min(len(held), len(prompt))


def _grammar(ask: Ask) -> str | None:
    if ask.schema is not None:
        return schema_grammar(ask.schema)
    if not ask.must_call or not ask.tools:
        return shape(ask)
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
        }
        for tool in ask.tools
    ]
    rules = schema_grammar({"anyOf": calls} if len(calls) > 1 else calls[0])
    rules = "\n".join("call" + rule[4:] if rule.startswith("root ") else rule for rule in rules.splitlines())
    return f'root ::= "{TOOL_OPEN}\\n" call "\\n{TOOL_CLOSE}"\n{rules}'


def _logprob(library: Library, scores: Any, token: int, alternatives: int) -> dict[str, Any]:
    """One entry in the OpenAI shape: the logarithm of the model's own probability, before any sampling parameter."""
    import numpy as np

    top = scores.max()
    logs = scores - (top + np.log(np.exp(scores - top).sum()))

    def entry(one: int) -> dict[str, Any]:
        piece = library.piece(one, special=True)
        return {"token": piece.decode("utf-8", "replace"), "logprob": float(logs[one]), "bytes": list(piece)}

    best = np.argsort(-logs, kind="stable")[:alternatives] if alternatives else ()
    return {**entry(token), "top_logprobs": [entry(int(one)) for one in best]}
