"""`FakeProvider` with a model behind it: it honours what a request asks for, as a good OpenAI-compatible server."""

from __future__ import annotations

import json
from typing import Any

from tests.servers.openai_bytes import PIECES, Reply
from tests.servers.provider import Fail, FakeProvider, last_user_message

from .honest import TOO_LONG, say

WEATHER = {"id": "call-1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
CONTEXT = {"error": {"message": "too many tokens", "type": "invalid_request_error", "code": "context_length_exceeded"}}


def reply(body: dict[str, Any]) -> Reply:
    """The whole answer, cut where the request says."""
    if body.get("tools") and body.get("tool_choice") == "required":
        return Reply(tool_calls=[WEATHER])
    text = _shaped(body)
    if text is None:
        text = say(last_user_message(body) or "x", body.get("temperature") or 0.0, body.get("seed"))
    reason = "stop"
    stops = body.get("stop") or []
    found = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if found:
        text = text[: min(found)[1]]
    words = PIECES.findall(text)
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(words)
    if len(words) > limit:
        text, reason = "".join(words[:limit]), "length"
    return Reply(text, finish_reason=reason)


def _shaped(body: dict[str, Any]) -> str | None:
    asked = body.get("structured_outputs") or {}
    if "choice" in asked:
        return str(asked["choice"][0])
    if "regex" in asked:
        return "abc-12"
    form = body.get("response_format")
    if form or "json" in asked:
        return json.dumps(_object((form or {}).get("json_schema", {}).get("schema") or asked.get("json") or {}))
    return None


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    """What fits the schemas of these tests: a text to choose, one that fits the expression, or something true."""
    answer = schema.get("properties", {}).get("answer", {})
    if "enum" in answer:
        return {"answer": answer["enum"][0]}
    return {"answer": "abc-12"} if "pattern" in answer else {"ok": True}


def model_server(per_token: float = 0.0005) -> FakeProvider:
    """Not yet started. A broken expression never gets this far: the client refuses it."""
    long = Fail(status=400, body=CONTEXT, match=lambda body: last_user_message(body) == TOO_LONG)
    return FakeProvider(reply=reply, per_token=per_token, fail=[long])
