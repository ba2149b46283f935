"""The second way through the model: ``model.generate``, for beams, images, and models that pages cannot hold.

Requests of one kind are computed together, ``batch_size`` at a time, left-padded. Tokens are picked like on the other
way, row by row; ``generate`` only sees scores in which nothing else can win. A beam search is left to the library, one
request at a time, and shows its answers when they are complete: before that, any word may still change.

Rule: the model is computed by one thread at a time. Between two steps others get their turn (``pass_on``).
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

from ...errors import AsyncInferError, EngineClosedError, EngineError
from ..local.several import speak
from ..worker import join_all
from .failures import typed
from .row import Row, advance
from .sampling import Chooser, Picked

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ...events import Event
    from ..local.several import Voice
    from ..worker import Feed
    from .guide import Guide
    from .loading import Loaded

Job = list[Row]
"""The answers to one request: one row, or ``n`` of a beam search."""


class Whole:
    """A thread that computes batches.

    Args:
        loaded: the model.
        exclusive: makes the context in which the model may be used; what it gives has ``pass_on``.
    """

    def __init__(self, loaded: Loaded, exclusive: Callable[[], AbstractContextManager[Any]]) -> None:
        self._loaded = loaded
        self._exclusive = exclusive
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: list[Job] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    # -- any thread --------------------------------------------------------------------------------------------------

    def add(self, job: Job) -> None:
        """Begin answers. Raises `EngineClosedError`."""
        with self._lock:
            if self._closed:
                raise EngineClosedError("the engine is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="asyncinfer-native-whole", daemon=True)
                self._thread.start()
            self._inbox.put(job)

    def close(self) -> None:
        """End every row with `EngineClosedError`, join the thread. Idempotent; blocks."""
        with self._lock:
            self._closed = True
            self._inbox.put(None)
        if self._thread is not None:
            join_all([self._thread])

    @property
    def closed(self) -> bool:
        """Whether nothing more is to be computed."""
        return self._closed

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            self._take_mail(block=not self._waiting)
            batch = self._batch()
            if batch and not self._closed:
                self._compute(batch)
        self._take_mail(block=False)
        error = EngineClosedError("the engine was closed while this call was under way")
        for job in self._waiting:
            _fail(job, error)

    def _take_mail(self, *, block: bool) -> None:
        while True:
            try:
                job = self._inbox.get(block=block)
            except queue.Empty:
                return
            if job is not None:
                self._waiting.append(job)
            elif self._closed:
                return
            block = False

    def _batch(self) -> list[Job]:
        """The longest waiting request, and those that can be computed together with it."""
        self._waiting = [job for job in self._waiting if not all(row.cancelled for row in job)]
        if not self._waiting:
            return []
        first = self._waiting[0]
        if first[0].manner.beams > 1:
            return [self._waiting.pop(0)]
        batch = [job for job in self._waiting if _alike(job[0], first[0])][: first[0].manner.batch]
        self._waiting = [job for job in self._waiting if not any(job is one for one in batch)]
        return batch

    def _compute(self, batch: list[Job]) -> None:
        rows = [row for job in batch for row in job]
        try:
            with self._exclusive() as turns:
                if rows[0].manner.beams > 1:
                    self._search(rows, turns)
                else:
                    self._generate(rows, turns)
        except Exception as error:  # noqa: BLE001 -- every row of the batch is told; the next batch may do better
            _fail(rows, EngineClosedError("the engine is closed") if self._closed else typed(error, "decoding"))
        else:  # whoever has not ended by now never would
            closed = EngineClosedError("the engine was closed while this call was under way")
            _fail(rows, closed if self._closed else EngineError("Transformers ended the answer before its end"))

    def _generate(self, rows: list[Row], turns: Any) -> None:
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        inputs = _inputs(rows, self._loaded)
        self._loaded.model.generate(
            **inputs,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max(row.prepared.limit for row in rows),
                use_cache=rows[0].manner.cache,
                pad_token_id=self._loaded.pad,
            ),
            logits_processor=LogitsProcessorList([_Picks(rows)]),
            stopping_criteria=StoppingCriteriaList([_Stops(self, rows, turns)]),
        )

    def _search(self, rows: list[Row], turns: Any) -> None:
        """A beam search; the rows are its best answers."""
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        first = rows[0]
        ask = first.ask
        inputs = _inputs(rows[:1], self._loaded)
        samples = ask.temperature > 0
        how: dict[str, Any] = {"do_sample": samples}
        if samples:
            how |= {"temperature": ask.temperature, "top_k": ask.top_k, "top_p": ask.top_p}
            how["min_p"] = ask.min_p or None
        encodes = self._loaded.model.config.is_encoder_decoder
        before = 1 if encodes else inputs["input_ids"].shape[1]
        with torch.random.fork_rng(devices=[] if not torch.cuda.is_available() else None):
            if ask.seed is not None:
                torch.manual_seed(ask.seed)
            made = self._loaded.model.generate(
                **inputs,
                generation_config=GenerationConfig(
                    **how,
                    num_beams=first.manner.beams,
                    num_return_sequences=len(rows),
                    max_new_tokens=first.prepared.limit,
                    use_cache=first.manner.cache,
                    pad_token_id=self._loaded.pad,
                    eos_token_id=sorted({*self._loaded.ends, *ask.stop_ids}),
                    stop_strings=list(ask.stop) or None,
                    early_stopping=True,
                ),
                tokenizer=self._loaded.tokenizer,
                logits_processor=LogitsProcessorList([_Edits(first, before)]),
                stopping_criteria=StoppingCriteriaList([_Stops(self, rows, turns)]),
            )
        if self._closed:
            return
        step: list[tuple[Feed | Voice, list[Event], bool]] = []
        for row, tokens in zip(rows, made[:, before:].tolist(), strict=True):
            events: list[Event] = []
            for token in tokens:
                if not row.ended:
                    events += row.take(Picked(token))
            if not row.ended:  # a stop string that `generate` saw, in a word that ends behind it
                row.prepared.limit = row.made
                row.made -= 1
                events += row.take(Picked(tokens[-1]))
            step.append((row.listener, events, row.ended))
        speak(step)


def _alike(one: Row, other: Row) -> bool:
    """Whether two requests can share the steps of ``generate``."""
    same = one.manner.beams == other.manner.beams == 1 and one.manner.cache == other.manner.cache
    if not same or (one.prepared.inputs is None) != (other.prepared.inputs is None):
        return False
    if one.prepared.inputs is None or other.prepared.inputs is None:
        return True
    mine, others = one.prepared.inputs, other.prepared.inputs
    return mine.keys() == others.keys() and all(
        value.shape[1:] == others[name].shape[1:] for name, value in mine.items() if not _spelled(name, value, mine)
    )


def _spelled(name: str, value: Any, inputs: dict[str, Any]) -> bool:
    """Whether an input has one value for each token."""
    return name == "input_ids" or (value.dim() == 2 and value.shape == inputs["input_ids"].shape)


def _inputs(rows: list[Row], loaded: Loaded) -> dict[str, Any]:
    """The rows' prompts as tensors, padded on the left, where the model begins."""
    import torch

    longest = max(len(row.prepared.tokens) for row in rows)
    device = loaded.model.device

    def filled(values: list[Any], pad: int) -> Any:
        return torch.stack([torch.nn.functional.pad(value, (longest - len(value), 0), value=pad) for value in values])

    tokens = [torch.tensor(row.prepared.tokens) for row in rows]
    found = {
        "input_ids": filled(tokens, loaded.pad),
        "attention_mask": filled([torch.ones_like(one) for one in tokens], 0),
    }
    more = rows[0].prepared.inputs or {}
    for name, value in more.items():
        if name in found:
            continue
        parts = [(row.prepared.inputs or {})[name] for row in rows]
        found[name] = filled([part[0] for part in parts], 0) if _spelled(name, value, more) else torch.cat(parts, dim=0)
        if found[name].is_floating_point():
            found[name] = found[name].to(loaded.model.dtype)
    return {name: value.to(device) for name, value in found.items()}


def _fail(rows: list[Row], error: AsyncInferError) -> None:
    for row in rows:
        row.fail(error)


class _Picks:
    """A logits processor that leaves each row no choice."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def __call__(self, _ids: Any, scores: Any) -> Any:
        import torch

        scores = scores.float()
        alive = [(at, row) for at, row in enumerate(self._rows) if not row.ended and not row.cancelled]
        if not alive:
            return scores
        numbers = [number for number, _ in alive]
        picked = advance([row for _, row in alive], scores[numbers])
        for number, one in zip(numbers, picked, strict=True):
            if one is not None:
                scores[number, one.token] = torch.inf
        return scores


class _Edits:
    """A logits processor for a beam search: all that a request says about tokens, for each beam by what it has said."""

    def __init__(self, row: Row, before: int) -> None:
        self._row = row
        self._before = before
        self._guides: dict[tuple[int, ...], Guide] = {}

    def __call__(self, ids: Any, scores: Any) -> Any:
        row = self._row
        guides: dict[tuple[int, ...], Guide] = {}
        for number, words in enumerate(ids[:, self._before :].tolist()):
            said = tuple(words)
            guide = self._guide(said) if row.chooser.guide is not None else None
            if guide is not None:
                guides[said] = guide
            chooser = Chooser(row.ask, row.prepared.tokens, row.chooser.ends, guide)
            if not chooser.edits:
                break
            chooser.repeat(said)
            chooser.edit(scores[number])
        self._guides = guides
        return scores

    def _guide(self, said: tuple[int, ...]) -> Guide | None:
        guide = self._guides.get(said[:-1]) if said else None
        if guide is not None:
            guide = guide.copy()
            guide.accept(said[-1])
            return guide
        first = self._row.chooser.guide
        guide = first.copy() if first is not None else None
        for token in said:
            if guide is not None:
                guide.accept(token)
        return guide


class _Stops:
    """A stopping criterion: rows that have ended, or that nobody waits for. Called once after each step."""

    def __init__(self, whole: Whole, rows: list[Row], turns: Any) -> None:
        self._whole = whole
        self._rows = rows
        self._turns = turns

    def __call__(self, ids: Any, _scores: Any, **_: Any) -> Any:
        import torch

        done = [self._whole.closed or row.ended or row.cancelled for row in self._rows]
        if len(done) != ids.shape[0]:  # beams: all of them belong to one request
            done = [all(done)] * ids.shape[0]
        if not all(done):
            self._turns.pass_on()
        return torch.tensor(done, device=ids.device)
