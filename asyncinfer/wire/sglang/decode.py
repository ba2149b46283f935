"""From the bytes of a ``/generate`` answer to events: streams and single documents alike.

Every event of a stream holds the whole answer so far, unless the server was started with incremental streaming: then
it holds what is new. Nothing in an event says which. The first event after some text decides, by its token ids where
it has them (as many as were generated in all, or only the rest), else by whether its text begins with the earlier one.

A stop string is cut off by the server when the answer is whole, but its beginning may be streamed before: what may
become one of the request's stop strings is held back here until that is decided.

When an answer is complete: every one of the ``n`` asked for had its finish reason. The body may break off after that.
``[DONE]`` before a finish reason is `FinishReason.UNKNOWN`; a body that ends before either is a `StreamTruncated`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import ProtocolError, StreamTruncated
from ...events import Event, Finish, FinishReason, Start, TextDelta, Usage, UsageUpdate
from ..bodies import BodyDecoder
from ..halves import mended
from ..lenient import MOST_TOKENS, count, parse_json
from ..sse import MAX_EVENT_BYTES
from ..status import error_from_object

if TYPE_CHECKING:
    from collections.abc import Sequence

_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH, "abort": FinishReason.ABORT}
_COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


class _Answer:
    """What must be remembered of one choice."""

    __slots__ = ("counts", "finish", "held", "ids", "logprobs", "repeats", "text")

    def __init__(self) -> None:
        self.text = ""  # all that the server has sent
        self.held = ""  # the end of it that was not handed on
        self.ids: list[Any] = []  # the token ids of the last event, until it is known what events hold
        self.repeats: list[str] = []  # texts that may be new pieces, likewise
        self.logprobs = 0
        self.counts: dict[str, int] = {}
        self.finish: Finish | None = None


class GenerateDecoder(BodyDecoder):
    """Decoder of one response body. See `wire.protocol.Decoder`.

    Args:
        choices: how many answers were asked for.
        stops: the stop strings that were asked for.
        model: name of the model, which the answers do not have.
        max_event_bytes: bound of one streamed event; a document may be four times as big.
    """

    __slots__ = ("_answers", "_cumulative", "_expected", "_flushed", "_model", "_started", "_stops")

    def __init__(
        self, choices: int = 1, *, stops: Sequence[str] = (), model: str = "", max_event_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        super().__init__(max_event_bytes)
        self._expected = choices
        self._stops = tuple(stop for stop in stops if stop)
        self._model = model
        self._answers: dict[int, _Answer] = {}
        self._cumulative: bool | None = None
        self._started = False
        self._flushed = False

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, even if the body were cut here: `close` would not raise."""
        if self._broken is not None or not self._answers:
            return False
        finished = all(answer.finish is not None for answer in self._answers.values())
        return self.done or (finished and len(self._answers) >= self._expected)

    # -- one event -----------------------------------------------------------------------------------------------------

    def _read_document(self, data: bytes, out: list[Event]) -> None:
        if data.rstrip()[-1:] not in {b"}", b"]"}:
            raise self._truncated("The answer broke off in the middle of its JSON document")
        value = _parse(data)
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            self._item(item, index, out)
        if not self._answers:
            raise ProtocolError("The server's answer is empty.")
        self.done = True

    def _event(self, data: bytes, out: list[Event]) -> None:
        if self.done:
            return
        text = data.strip()
        if text.startswith(b"[DONE]"):
            self.done = True
            self._end(out)
        elif text:
            self._item(_parse(text), 0, out)

    # -- one object ----------------------------------------------------------------------------------------------------

    def _item(self, value: Any, position: int, out: list[Event]) -> None:
        if not isinstance(value, dict):
            raise ProtocolError("The server sent JSON that is not an object.")
        meta = value.get("meta_info")
        if not isinstance(meta, dict):
            if value.get("error") or value.get("object") == "error" or value.get("detail"):
                raise error_from_object(value)
            raise ProtocolError("The server sent an answer without meta_info; is api_url SGLang's /generate?")
        if not self._started:
            self._started = True
            out.append(Start(str(meta.get("id") or ""), self._model))
        index = value.get("index")
        index = index if type(index) is int else position
        answer = self._answers.setdefault(index, _Answer())
        if answer.finish is not None:
            return
        for name in _COUNTS:
            found = meta.get(name)
            if found is None:
                continue
            if type(found) is int and 0 <= found <= MOST_TOKENS:  # as good as always: not worth a call
                answer.counts[name] = found
            elif (number := count(found)) is not None:
                answer.counts[name] = number
        finish = _finish(meta.get("finish_reason"), index)
        text = self._text(answer, value, finish)
        logprobs = self._logprobs(answer, meta)
        if text or logprobs:
            out.append(TextDelta(text, index, logprobs))
        answer.finish = finish
        if finish is not None:
            _raise_abort(meta["finish_reason"])

    def _text(self, answer: _Answer, value: dict[str, Any], finish: Finish | None) -> str:
        """What is new in an event's text and may be shown."""
        text = value.get("text")
        text = text if isinstance(text, str) else ""
        new = self._new(answer, text, value.get("output_ids"))
        if not self._stops:
            return mended(new)
        new = answer.held + new
        answer.held = ""
        if finish is None:
            keep = _may_become(new, self._stops)
            new, answer.held = new[: len(new) - keep], new[len(new) - keep :]
            return mended(new)
        if self._cumulative is not False:  # this text is the answer: what was held counts only if it is in there
            return mended(text[len(answer.text) - len(new) :])
        matched = finish.matched
        if isinstance(matched, str) and matched:
            cut = new.find(matched)
            keep = len(new) - cut if cut >= 0 else _may_become(new, (matched,))
            return mended(new[: len(new) - keep])
        return mended(new)

    def _new(self, answer: _Answer, text: str, ids: Any) -> str:
        """The part of ``text`` that was not in the events before."""
        before = answer.text
        if self._cumulative is None:
            ids = ids if isinstance(ids, list) else []
            if before or answer.ids:
                self._cumulative = self._decide(answer, text, ids)
            answer.ids = ids
            if self._cumulative is None:
                if before:  # the same text again: nothing new, or the same piece a second time
                    answer.repeats.append(text)
                    return ""
                answer.text = text
                return text
        if self._cumulative:
            if len(text) > len(before):
                answer.text = text
            return text[len(before) :]
        new = "".join([*answer.repeats, text])
        answer.repeats.clear()
        answer.text = " "  # that there was some is all that counts from here on
        return new

    def _decide(self, answer: _Answer, text: str, ids: list[Any]) -> bool | None:
        """Whether events hold the whole answer; None where this one does not tell."""
        known, total = answer.ids, answer.counts.get("completion_tokens")
        if known and ids:
            if ids[: len(known)] != known:
                return False
            if len(ids) > len(known) or len(ids) == total:
                return True
            if total == len(ids) + len(known):  # the same token once more
                return False
        if text == answer.text:
            return None
        return text.startswith(answer.text) or (bool(text) and bool(self._stops) and answer.text.startswith(text))

    def _logprobs(self, answer: _Answer, meta: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Entries in OpenAI's shape for the tokens that are new."""
        tokens = meta.get("output_token_logprobs")
        if not isinstance(tokens, list) or not tokens:
            return None
        tops = meta.get("output_top_logprobs")
        tops = tops if isinstance(tops, list) else []
        done, answer.logprobs = answer.logprobs, answer.logprobs + len(tokens)
        if self._cumulative is not False and len(tokens) >= done:
            answer.logprobs = len(tokens)
            tokens, tops = tokens[done:], tops[done:]
        entries = []
        for at, token in enumerate(tokens):
            entry = _entry(token)
            if entry is not None:
                top = tops[at] if at < len(tops) and isinstance(tops[at], list) else []
                entry["top_logprobs"] = [found for found in map(_entry, top) if found is not None]
                entries.append(entry)
        return entries or None

    # -- the end -------------------------------------------------------------------------------------------------------

    def _end(self, out: list[Event]) -> None:
        if self._flushed:
            return
        if not self.complete:
            raise self._truncated("The stream ended before the answer did")
        self._flushed = True
        usage = self._usage()
        if usage is not None:
            out.append(UsageUpdate(usage))
        for index, answer in sorted(self._answers.items()):
            if answer.finish is None and answer.held:
                out.append(TextDelta(mended(answer.held), index))
            out.append(answer.finish or Finish(FinishReason.UNKNOWN, index))

    def _usage(self) -> Usage | None:
        """Tokens of all answers together; their prompt counts once."""
        counts = [answer.counts for answer in self._answers.values() if answer.counts]
        if not counts:
            return None
        return Usage(
            input_tokens=max(one.get("prompt_tokens", 0) for one in counts),
            output_tokens=sum(one.get("completion_tokens", 0) for one in counts),
            cached_tokens=min(one.get("cached_tokens", 0) for one in counts),
            reasoning_tokens=sum(one.get("reasoning_tokens", 0) for one in counts),
        )

    @staticmethod
    def _truncated(what: str) -> StreamTruncated:
        return StreamTruncated(f"{what}: no finish reason and no [DONE] was seen.")


def _parse(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return parse_json(data)


def _finish(value: Any, index: int) -> Finish | None:
    """``{"type": "stop", "matched": ...}``, or the bare word of older servers."""
    if not value:
        return None
    raw = value if isinstance(value, str) else value.get("type") if isinstance(value, dict) else None
    raw = raw if isinstance(raw, str) else str(value)
    matched = value.get("matched") if isinstance(value, dict) else None
    if isinstance(matched, bool) or not isinstance(matched, (str, int)):
        matched = None
    return Finish(_REASONS.get(raw.lower(), FinishReason.UNKNOWN), index, matched, raw)


def _raise_abort(reason: Any) -> None:
    """An abort with a status is the error that the server would have answered with, had it not begun to stream."""
    status = reason.get("status_code") if isinstance(reason, dict) and reason.get("type") == "abort" else None
    if type(status) is int and 400 <= status <= 599:
        said = {"message": reason.get("message") or "Aborted", "type": reason.get("err_type"), "code": status}
        raise error_from_object({"error": said}, status=status)


def _entry(token: Any) -> dict[str, Any] | None:
    """``[logprob, id, text]`` in OpenAI's shape, with the id beside it."""
    if not isinstance(token, list) or len(token) < 2 or not isinstance(token[0], (int, float)):
        return None
    text = token[2] if len(token) > 2 and isinstance(token[2], str) else ""
    return {"token": text, "logprob": token[0], "bytes": list(text.encode("utf-8", "replace")), "token_id": token[1]}


def _may_become(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that one of ``stops`` may still grow from, or is."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop), len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest
