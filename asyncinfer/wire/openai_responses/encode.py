"""From a `Request` to the JSON body of a Responses call.

Rule: as for Chat Completions, only what somebody set is sent; what the dialect has no name for is left out and named by
`unsupported`; a constraint on the answer's form that cannot be sent is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import UnsupportedParameterError
from ..asking import JSON_HEADERS, dropped_params, put
from ..openai_chat.encode import unsupported
from ..protocol import WireRequest
from ..shapes import named_schema, shape_kind
from ..wrapping import as_sent
from .items import write_input

if TYPE_CHECKING:
    from ...dialect import Dialect
    from ...request import Request

_LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED = "reasoning.encrypted_content"
_MERGED = {"reasoning", "text"}  # objects of which extra_body may give one key and leave the others

__all__ = ["encode_request", "request_body", "unsupported"]


def encode_request(request: Request, dialect: Dialect) -> WireRequest:
    """The HTTP request that asks for an answer. Raises `ConfigError` where the format or the provider cannot say it."""
    return WireRequest(dialect.path, msgspec.json.encode(request_body(request, dialect)), dict(JSON_HEADERS))


def request_body(request: Request, dialect: Dialect) -> dict[str, Any]:
    """The body as a dictionary; ``extra_body`` has the last word, within ``reasoning`` and ``text`` key by key."""
    extra = request.asked("extra_body") or {}
    body: dict[str, Any] = {"model": request.model.model_name, "store": False}
    if request.model.adapter_model is not None and dialect.adapter_field is not None:
        body[dialect.adapter_field] = request.model.adapter_model
    stored = bool(extra.get("store"))
    instructions, body["input"] = write_input(request.conversation.messages, dialect, stored=stored)
    if instructions is not None:
        body["instructions"] = instructions
    if request.stream and dialect.streams:
        body["stream"] = True
        if dialect.stream_options is not None:
            body["stream_options"] = dialect.stream_options
    if request.tools:
        body["tools"] = [_tool(tool.function) for tool in request.tools]
    _put_params(body, request, dialect)
    _put_form(body, request, dialect)
    if dialect.user_field is not None and request.remote is not None and request.remote.user_id:
        body[dialect.user_field] = request.remote.user_id
    for name, value in extra.items():
        both = name in _MERGED and isinstance(value, dict) and isinstance(body.get(name), dict)
        body[name] = {**body[name], **value} if both else value
    return body


def _put_params(body: dict[str, Any], request: Request, dialect: Dialect) -> None:
    dropped = dropped_params(request, dialect)
    for name, wire in dialect.fields.items():
        value = request.asked(name)
        if value is None or name in dropped or name in {"logprobs", "top_logprobs"}:
            continue
        if name in {"tool_choice", "parallel_tool_calls"} and not request.tools:
            continue
        put(body, wire, _flat_choice(value) if name == "tool_choice" else value)
    if dialect.default_max_tokens is not None and "max_new_tokens" not in request.chosen:
        put(body, dialect.fields["max_new_tokens"], dialect.default_max_tokens)
    include = []
    top = request.asked("top_logprobs")
    wanted = request.asked("logprobs") or (top is not None and "logprobs" not in request.chosen)
    if wanted and "logprobs" in dialect.fields and "logprobs" not in dropped:
        include.append(_LOGPROBS)
        if top is not None:
            body["top_logprobs"] = top
    if _reasons(request, dialect):
        include.append(_ENCRYPTED)
    if include:
        body["include"] = include


def _reasons(request: Request, dialect: Dialect) -> bool:
    """Whether the model is one that reasons and gives its reasoning in encrypted form; others refuse to be asked for
    it. The dialect has a rule for each of them, and one that refuses efforts does not reason."""
    if dialect.reasoning != "reasoning_details":
        return False
    rule = dialect.rule(request.model.model_name or "")
    return rule is not None and "reasoning_effort" not in rule.drops


def _tool(function: Any) -> dict[str, Any]:
    """Flat, and never without ``strict``: left out, it would mean true here."""
    tool = {name: value for name, value in function.to_dict().items() if value is not None}
    tool.setdefault("parameters", {"type": "object", "properties": {}})
    tool.setdefault("strict", False)
    return {"type": "function", **tool}


def _flat_choice(choice: Any) -> Any:
    """``tool_choice`` in Chat's spelling, without its inner objects."""
    if not isinstance(choice, dict):
        return choice
    kind = choice.get("type", "function")
    inner = choice.get(kind)
    if not isinstance(inner, dict):
        return {"type": kind, **choice}
    flat = {"type": kind, **inner}
    if kind == "allowed_tools":
        flat["tools"] = [_flat_choice(tool) for tool in inner.get("tools") or ()]
    return flat


def _put_form(body: dict[str, Any], request: Request, dialect: Dialect) -> None:
    guided = request.asked("guided_decoding")
    if guided is None:
        return
    guided = as_sent(guided, dialect)
    kind = shape_kind(guided)
    if kind is None:
        return
    place = dialect.guided.get(kind)
    if place == "json_schema":
        named = named_schema(guided, closable=dialect.strict == "closable")
        put(body, "text.format", {"type": "json_schema", "strict": False, **named})
    elif place == "json_object":
        put(body, "text.format", {"type": "json_object"})
    elif place is not None:
        put(body, place, guided.json_schema() if kind == "json" else getattr(guided, kind))
    else:
        raise UnsupportedParameterError(
            f"this provider cannot guide an answer by {kind}; it knows: {', '.join(dialect.guided) or 'none'}",
            path=f"generation.guided_decoding.{kind}",
        )
