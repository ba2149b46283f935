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
from collections import deque
from typing import TYPE_CHECKING

from ...errors import AsyncInferError, BadRequestError, ContextLengthError, EngineClosedError, EngineError
from ...events import Event, Finish, FinishReason, Start, Usage, UsageUpdate
from ..local.answer import THINK_CLOSE, THINK_OPEN, Answer
from ..local.several import Several, Voice, speak
from ..worker import join_all
from .library import Library
from .running import Running, Slot, common_length, prompt_length
from .sampling import logprob_entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..local.ask import Ask
    from ..worker import Feed
    from .settings import Settings
    from .sight import Picture

_log = logging.getLogger("asyncinfer")

_WORTH_COPYING = 16
"""Tokens of a prompt in another sequence's memory from which on they are copied rather than decoded again."""


class BatchBinding:
    """See `binding.Binding`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inbox: queue.SimpleQueue[tuple[Ask, Feed | Voice] | None] = queue.SimpleQueue()
        self._waiting: deque[tuple[Ask, Feed | Voice]] = deque()
        self._slots = [Slot(number) for number in range(settings.slots)]
        self._active: list[Running] = []
        self._lock = threading.Lock()
        self._closing = False
        self.sees = False
        self._dead: str | None = None
        self._library: Library
        self._thread: threading.Thread | None = None

    # -- any thread --------------------------------------------------------------------------------------------------

    def load(self) -> None:
        library = Library(self._settings)
        with self._lock:
            if not self._closing:
                self._library = library
                self.sees = library.sight is not None
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
            for item in [(ask, feed)] if ask.n == 1 else Several(feed, ask.n).asks(ask):
                self._inbox.put(item)

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
                if self._active and not self._closing:
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
        for one in self._active[:]:
            one.feed.fail(error)
            self._leave(one)
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
        for one in [one for one in self._active if one.feed.cancelled]:
            self._leave(one)
        idle = not (self._waiting or self._active)
        if idle or not self._inbox.empty():
            self._take_mail(block=idle)
        for _ in range(len(self._waiting)):
            free = [slot for slot in self._slots if slot.running is None]
            if not free:
                return
            ask, feed = self._waiting.popleft()
            if feed.cancelled:
                continue
            if isinstance(feed, Voice) and feed.index and not feed.together.prompt_read:
                self._waiting.append((ask, feed))  # it will find the prompt in the memory of the first answer
                continue
            try:
                self._begin(ask, feed, free)
            except Exception as error:  # noqa: BLE001 -- one bad request must not take the others with it
                feed.fail(_typed(error))

    def _begin(self, ask: Ask, feed: Feed | Voice, free: list[Slot]) -> None:
        library = self._library
        text = library.prompt(ask) if ask.prompt is None else ask.prompt
        parts = deque(library.read(ask, text))
        try:
            running = self._prepare(ask, feed, free, parts)
        except BaseException:
            self._forget(parts)
            raise
        thinks = ask.prompt is None and ask.free and THINK_CLOSE in library.template
        running.answer = Answer(
            ask.stop,
            tools=bool(ask.tools),
            thinks=thinks,
            thinking=thinks and str(text).rstrip().endswith(THINK_OPEN),
        )
        running.slot.running = running
        self._active.append(running)

    def _prepare(self, ask: Ask, feed: Feed | Voice, free: list[Slot], parts: deque[list[int] | Picture]) -> Running:
        library = self._library
        size = prompt_length(parts)
        room = library.n_ctx - size
        if room < 1 or not size:
            raise ContextLengthError(
                f"the prompt has {size} tokens and the context of one conversation is {library.n_ctx} "
                "(model_kwargs.n_ctx)"
            )
        if not isinstance(parts[-1], list):
            raise BadRequestError("the prompt ends with a picture; llama.cpp needs text behind the last one")
        first = parts[0] if isinstance(parts[0], list) else []
        slot = max(free, key=lambda one: common_length(one.tokens, first))
        running = Running(ask, feed, slot, parts)
        running.limit = room if ask.max_tokens is None else min(room, ask.max_tokens)
        running.chain = library.sampler(ask, [token for part in parts if isinstance(part, list) for token in part])
        running.cached = running.position = self._reuse(slot, first, alone=len(parts) == 1)
        if running.cached:
            parts[0] = first[running.cached :]
            if not parts[0]:
                parts.popleft()
        return running

    def _reuse(self, slot: Slot, prompt: list[int], *, alone: bool) -> int:
        """Keep what the sequence's memory has in common with the prompt, or take it from another that has more.

        ``alone``: the prompt is nothing else; then at least its last token is decoded anew.
        """
        most = len(prompt) - alone
        best = max(self._slots, key=lambda one: common_length(one.tokens, prompt))
        common = min(common_length(slot.tokens, prompt), most)
        if min(common_length(best.tokens, prompt), most) - common >= _WORTH_COPYING:
            self._library.keep(slot.number, 0)
            self._library.copy(best.number, slot.number)
            slot.tokens = best.tokens[:]
            common = min(common_length(slot.tokens, prompt), most)
        if not self._library.keep(slot.number, common):
            self._library.keep(slot.number, 0)
            common = 0
        del slot.tokens[common:]
        slot.seen = False
        return common

    def _forget(self, parts: Iterable[list[int] | Picture]) -> None:
        for part in parts:
            if not isinstance(part, list) and self._library.sight is not None:
                self._library.sight.free(part)

    def _leave(self, running: Running) -> None:
        self._library.free_sampler(running.chain)
        self._forget(running.todo)
        running.slot.running = None
        self._active.remove(running)

    # -- one step ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        rows: list[tuple[int, int, int, bool]] = []
        self._show_picture()
        active = self._active[:]
        for one in active:
            one.row = -1
            if one.next >= 0:
                one.row = len(rows)
                self._put(one, one.next, rows)
        for one in active:
            self._add_prompt(one, rows)
        if not rows:
            return
        self._library.decode(rows)
        step: list[tuple[Feed | Voice, Sequence[Event], bool]] = []
        for one in active:
            if one.row < 0:
                continue
            try:
                events, ended = self._advance(one)
            except Exception as error:  # noqa: BLE001 -- nor one bad answer
                one.feed.fail(_typed(error))
                self._leave(one)
                continue
            if ended:
                self._leave(one)
            if ended or events:
                step.append((one.feed, events, ended))
        speak(step)

    def _show_picture(self) -> None:
        """One picture in each step, for it holds up everybody."""
        for one in self._active:
            picture = one.todo[0] if one.todo else []
            if not isinstance(picture, list):
                one.todo.popleft()
                one.slot.seen = True
                try:
                    one.position = self._library.show(picture, one.slot.number, one.position)
                except Exception as error:  # noqa: BLE001 -- nor one bad picture
                    one.feed.fail(_typed(error))
                    self._leave(one)
                finally:
                    self._forget([picture])
                return

    def _put(self, one: Running, token: int, rows: list[tuple[int, int, int, bool]], *, wanted: bool = True) -> None:
        rows.append((token, one.position, one.slot.number, wanted))
        one.position += 1
        one.slot.hold(token)

    def _add_prompt(self, one: Running, rows: list[tuple[int, int, int, bool]]) -> None:
        if not one.todo:
            return
        part = one.todo[0]
        if not isinstance(part, list):
            return
        take = min(len(part), self._library.n_batch - len(rows))
        last = take == len(part) and len(one.todo) == 1
        for at in range(take):
            self._put(one, part[at], rows, wanted=last and at == take - 1)
        if take < len(part):
            one.todo[0] = part[take:]
            return
        one.todo.popleft()
        if last:
            one.row = len(rows) - 1
            if isinstance(one.feed, Voice):
                one.feed.together.prompt_read = True

    def _advance(self, one: Running) -> tuple[list[Event], bool]:
        """Sample a token; its events, and whether it was the last."""
        library = self._library
        scores = None
        if one.ask.logprobs is not None:
            scores = library.logits(one.row).copy()  # sampling changes them in place
        if one.made < one.ask.min_tokens and one.ask.free:  # a shape that is complete allows nothing but the end
            library.forbid_ending(one.row, one.ask.stop_ids)
        token = library.sample(one.chain, one.row)
        one.made += 1
        one.next = token
        events: list[Event] = []
        if not one.started:
            one.started = True
            events.append(Start(id=f"chatcmpl-{secrets.token_hex(12)}", model=self._settings.model))
            events.append(UsageUpdate(Usage(input_tokens=one.prompt_tokens, cached_tokens=one.cached)))
        reason = FinishReason.STOP
        named = token in one.ask.stop_ids
        ended = named or library.ends(token)
        if not ended:
            logprob = None if scores is None else logprob_entry(library.shown, scores, token, one.ask.logprobs or 0)
            events += one.answer.feed(library.piece(token, special=not one.ask.skip_special), logprob)
            ended = one.answer.matched is not None
            if not ended and one.made >= one.limit:
                ended, reason = True, FinishReason.LENGTH
        if ended:
            events += one.answer.close()
            if one.answer.calls and reason is FinishReason.STOP:
                reason = FinishReason.TOOL_CALLS
            events.append(Finish(reason, matched=token if named else one.answer.matched))
            events.append(UsageUpdate(one.usage))
        return events, ended


def _typed(error: Exception) -> AsyncInferError:
    if isinstance(error, AsyncInferError):
        return error
    _log.error("llama.cpp failed in one request", exc_info=error)
    return EngineError(f"llama.cpp failed in this request: {error!r}")
