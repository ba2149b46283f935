"""The server's side of Gemini's format: events as a stream of chunks or as one document, errors as Google writes them.

Rule: no clock and no random numbers: ids come from the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import APIError, AsyncInferError, ConfigError, DeadlineError
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

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORDS = {
    FinishReason.STOP: "STOP",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.CONTEXT_OVERFLOW: "MAX_TOKENS",
    FinishReason.CONTENT_FILTER: "SAFETY",
    FinishReason.REFUSAL: "SAFETY",
    FinishReason.CONTINUATION: "CONTINUATION",
    FinishReason.ERROR: "MALFORMED_RESPONSE",
}
_STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_json = msgspec.json.Encoder().encode


class GeminiEncoder:
    """Writes one answer, as a stream (`encode` ... `close`) or as one `document`.

    Args:
        answer_id: ``responseId``, constant over the answer.
        model: ``modelVersion``.

    The format knows calls only whole: their pieces are held until the next event of another kind.
    """

    def __init__(self, answer_id: str, model: str) -> None:
        self._base = {"modelVersion": model, "responseId": answer_id}
        self._usage: Usage | None = None
        self._calls: dict[tuple[int, int], ToolCallDelta] = {}

    def encode(self, event: Event) -> bytes:
        """The bytes of one event; empty for what is written later."""
        if isinstance(event, Start):
            return b""
        if isinstance(event, UsageUpdate):
            self._usage = event.usage
            return b""
        if isinstance(event, ToolCallDelta):
            self._hold(event)
            return b""
        held = self._release()
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": ""}]}, "index": event.index}
        if isinstance(event, Finish):
            candidate["finishReason"] = finish_word(event)
            return held + self._chunk([candidate], last=True)
        candidate["content"]["parts"] = _parts(event)
        if isinstance(event, TextDelta) and event.logprobs is not None:
            candidate["logprobsResult"] = _logprobs(event.logprobs)
        return held + self._chunk([candidate])

    def close(self) -> bytes:
        """The end of a stream: what was still held. The format has no marker of its own."""
        return self._release()

    def error(self, error: AsyncInferError) -> bytes:
        """The end of a stream that failed after its head was sent: bare JSON."""
        return msgspec.json.format(error_response(error)[2], indent=2) + b"\n"

    def document(self, events: Iterable[Event]) -> bytes:
        """The whole answer as one JSON document."""
        answers: dict[int, dict[str, Any]] = {}
        for event in events:
            if isinstance(event, UsageUpdate):
                self._usage = event.usage
                continue
            if isinstance(event, Start):
                continue
            empty = {"content": {"role": "model", "parts": []}, "index": event.index}
            answer = answers.setdefault(event.index, empty)
            parts = answer["content"]["parts"]
            if isinstance(event, ToolCallDelta):
                self._hold(event)
                continue
            parts.extend(_call_part(call) for key, call in sorted(self._calls.items()) if key[0] == event.index)
            self._calls = {key: call for key, call in self._calls.items() if key[0] != event.index}
            if isinstance(event, Finish):
                answer["finishReason"] = finish_word(event)
            else:
                _join(parts, _parts(event))
                if isinstance(event, TextDelta) and event.logprobs is not None:
                    result = answer.setdefault("logprobsResult", {"chosenCandidates": [], "topCandidates": []})
                    for name, entries in _logprobs(event.logprobs).items():
                        result[name].extend(entries)
        return _json(self._body([answer for _, answer in sorted(answers.items())], usage=True))

    def _hold(self, event: ToolCallDelta) -> None:
        key = (event.index, event.call)
        held = self._calls.get(key)
        if held is None:
            self._calls[key] = ToolCallDelta(
                event.call, event.id, event.name, event.arguments, event.index, event.extra
            )
            return
        held.id, held.name = event.id or held.id, event.name or held.name
        held.arguments += event.arguments
        held.extra = event.extra or held.extra

    def _release(self) -> bytes:
        calls, self._calls = self._calls, {}
        by_index: dict[int, list[Any]] = {}
        for (index, _), call in sorted(calls.items()):
            by_index.setdefault(index, []).append(_call_part(call))
        return b"".join(
            self._chunk([{"content": {"role": "model", "parts": parts}, "index": index}])
            for index, parts in by_index.items()
        )

    def _chunk(self, candidates: list[dict[str, Any]], *, last: bool = False) -> bytes:
        return b"data: %b\r\n\r\n" % _json(self._body(candidates, usage=last))

    def _body(self, candidates: list[dict[str, Any]], *, usage: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"candidates": candidates}
        if usage and self._usage is not None:
            body["usageMetadata"] = write_usage(self._usage)
        return {**body, **self._base}


def finish_word(finish: Finish) -> str:
    """The reason in the words of this format."""
    return _WORDS.get(finish.reason, "OTHER")


def write_usage(usage: Usage) -> dict[str, Any]:
    """``usageMetadata``."""
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": max(0, usage.output_tokens - usage.reasoning_tokens),
        "totalTokenCount": usage.total_tokens,
    }
    if usage.cached_tokens:
        counts["cachedContentTokenCount"] = usage.cached_tokens
    if usage.reasoning_tokens:
        counts["thoughtsTokenCount"] = usage.reasoning_tokens
    return counts


def _parts(event: TextDelta | ReasoningDelta) -> list[dict[str, Any]]:
    if isinstance(event, TextDelta):
        return [{"text": event.text}]
    details = event.details if isinstance(event.details, list) else [event.details] if event.details else []
    parts: list[dict[str, Any]] = []
    signature = None
    for detail in details:
        kind = detail.get("type") if isinstance(detail, dict) else None
        if kind == "google.part":
            parts.append(detail["part"])
        elif kind == "google.text_signature":
            parts.append({"text": "", "thoughtSignature": detail["signature"]})
        elif kind == "google.thought_signature":
            signature = detail["signature"]
    if event.text or signature is not None:
        thought: dict[str, Any] = {"text": event.text, "thought": True}
        if signature is not None:
            thought["thoughtSignature"] = signature
        parts.insert(0, thought)
    return parts


def _join(parts: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    """Add parts; plain text goes on with plain text of the same kind."""
    for part in more:
        last = parts[-1] if parts else {}
        if part.keys() <= {"text", "thought"} and last.keys() == part.keys():
            parts[-1] = {**last, "text": last["text"] + part["text"]}
        else:
            parts.append(part)


def _call_part(call: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"name": call.name or "", "args": msgspec.json.decode(call.arguments or "{}")}
    if call.id:
        function["id"] = call.id
    part: dict[str, Any] = {"functionCall": function}
    google = call.extra.get("google") if isinstance(call.extra, dict) else None
    if isinstance(google, dict) and google.get("thought_signature"):
        part["thoughtSignature"] = google["thought_signature"]
    return part


def _logprobs(entries: list[Any]) -> dict[str, list[Any]]:
    return {
        "chosenCandidates": [_token(entry) for entry in entries],
        "topCandidates": [{"candidates": [_token(top) for top in entry.get("top_logprobs", ())]} for entry in entries],
    }


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logProbability": entry["logprob"]}


def error_response(error: AsyncInferError) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that tell a client of an error."""
    status = 500
    if isinstance(error, APIError) and error.status is not None and error.status >= 400:
        status = error.status
    elif isinstance(error, ConfigError):
        status = 400
    elif isinstance(error, DeadlineError):
        status = 504
    body: dict[str, Any] = {
        "code": status,
        "message": error.message,
        "status": _STATUS_WORDS.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT"),
    }
    if error.retry_after is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        body["details"] = [{"@type": kind, "retryDelay": f"{error.retry_after:g}s"}]
    return status, {"content-type": "application/json; charset=UTF-8"}, _json({"error": body})
