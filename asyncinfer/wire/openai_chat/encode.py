"""From a `Request` to the JSON body of a Chat Completions call.

Rule: only what somebody set explicitly is sent, under the name that the dialect has for it; what the dialect has no
name for is left out and named by `unsupported`, so that the engine can say so. A constraint on the answer's form that
cannot be sent is an error: an answer of another form is worth nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import UnsupportedParameterError
from ..protocol import WireRequest
from .messages import write_messages

if TYPE_CHECKING:
    from ...dialect import Dialect
    from ...request import Request

_HEADERS = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
_NOT_SENT = {"guided_decoding", "extra_body", "strict_params"}  # handled by themselves
_KINDS = ("json", "regex", "choice", "grammar")
_encode = msgspec.json.Encoder().encode


def encode_request(request: Request, dialect: Dialect) -> WireRequest:
    """The HTTP request that asks for an answer.

    Raises:
        ConfigError: the format or the provider cannot say it.
    """
    return WireRequest(dialect.path, _encode(request_body(request, dialect)), dict(_HEADERS))


def request_body(request: Request, dialect: Dialect) -> dict[str, Any]:
    """The body as a dictionary; ``extra_body`` has the last word on every key."""
    model = request.model
    body: dict[str, Any] = {
        "model": model.model_name,
        "messages": write_messages(request.conversation.messages, dialect),
    }
    if model.adapter_model is not None and dialect.adapter_field is not None:
        body[dialect.adapter_field] = model.adapter_model
    if request.stream and dialect.streams:
        body["stream"] = True
        if dialect.stream_options is not None:
            body["stream_options"] = dialect.stream_options
    if request.tools:
        body["tools"] = [_tool(tool.to_dict()) for tool in request.tools]
    _put_params(body, request, dialect)
    guided = request.asked("guided_decoding")
    if guided is not None:
        _put_guided(body, guided, dialect)
    if model.chat_template_kwargs and dialect.template_kwargs:
        body["chat_template_kwargs"] = model.chat_template_kwargs
    if dialect.user_field is not None and request.remote is not None and request.remote.user_id:
        body[dialect.user_field] = request.remote.user_id
    extra = request.asked("extra_body")
    if extra:
        body.update(extra)
    return body


def unsupported(request: Request, dialect: Dialect) -> list[str]:
    """Names of the parameters that were set to something other than their default and do not reach the provider.

    ``guided_decoding.json`` is named where the provider only promises JSON, not the schema.
    """
    generation = request.generation
    asked = request.chosen
    dropped = _dropped(request, dialect)
    fields = type(generation).model_fields
    names = []
    for name in sorted(asked - _NOT_SENT):
        value = getattr(generation, name)
        if name in dropped:
            if not _same(value, dropped[name]):
                names.append(name)
        elif name == "top_logprobs" and dialect.logprobs_count:
            continue
        elif name not in dialect.fields and not _same(value, fields[name].get_default(call_default_factory=True)):
            names.append(name)
    guided = request.asked("guided_decoding")
    if guided is not None:
        kind = _kind(guided)
        if kind is not None and dialect.guided.get(kind, "json_object") == "json_object":
            names.append(f"guided_decoding.{kind}")
    return names


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) or (not value and not other and not isinstance(value, (int, float)))


def _dropped(request: Request, dialect: Dialect) -> dict[str, Any]:
    """Parameters that the model refuses, with the values that mean the same as leaving them out."""
    rule = dialect.rule(request.model.model_name or "") if dialect.model_rules else None
    if rule is None:
        return {}
    effort = request.asked("reasoning_effort")
    active = {"always": True, "unless_none": effort != "none", "if_effort": effort not in {None, "none"}}
    return rule.drops if active[rule.when] else {}


def _put_params(body: dict[str, Any], request: Request, dialect: Dialect) -> None:
    asked, generation = request.chosen, request.generation
    dropped = _dropped(request, dialect)
    for name, wire in dialect.fields.items():
        if name not in asked or name in dropped:
            continue
        value = getattr(generation, name)
        if value is None or (name in {"stop_strings", "stop_token_ids", "logit_bias"} and not value):
            continue
        if name in {"tool_choice", "parallel_tool_calls"} and not request.tools:
            continue
        _put(body, wire, value)
    if dialect.default_max_tokens is not None and "max_new_tokens" not in asked:
        _put(body, dialect.fields["max_new_tokens"], dialect.default_max_tokens)
    _put_logprobs(body, request, dialect, dropped)


def _put_logprobs(body: dict[str, Any], request: Request, dialect: Dialect, dropped: dict[str, Any]) -> None:
    """``top_logprobs`` implies ``logprobs``; some providers have one number in the place of both."""
    if "logprobs" not in dialect.fields or "logprobs" in dropped:
        return
    top = request.asked("top_logprobs")
    wanted = bool(request.asked("logprobs")) or (top is not None and "logprobs" not in request.chosen)
    if dialect.logprobs_count:
        body.pop(dialect.fields["logprobs"], None)
        if wanted:
            _put(body, dialect.fields["logprobs"], max(1, top or 0))
    elif wanted:
        _put(body, dialect.fields["logprobs"], True)
    else:
        body.pop(dialect.fields.get("top_logprobs", ""), None)


def _put(body: dict[str, Any], path: str, value: Any) -> None:
    """Set a value below a dotted path."""
    *outer, last = path.split(".")
    for name in outer:
        body = body.setdefault(name, {})
    body[last] = value


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    tool["type"] = "function"
    tool["function"] = {name: value for name, value in function.items() if value is not None}
    return tool


# -- the form of the answer --------------------------------------------------------------------------------------------


def _kind(guided: Any) -> str | None:
    return next((kind for kind in _KINDS if getattr(guided, kind, None) is not None), None)


def _put_guided(body: dict[str, Any], guided: Any, dialect: Dialect) -> None:
    kind = _kind(guided)
    if kind is None:
        return
    place = dialect.guided.get(kind)
    if place is None:
        possible = ", ".join(dialect.guided) or "none"
        raise UnsupportedParameterError(
            f"this provider cannot guide an answer by {kind}; it knows: {possible}",
            path=f"generation.guided_decoding.{kind}",
        )
    if place == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif place == "json_schema":
        body["response_format"] = {"type": "json_schema", "json_schema": _named_schema(guided)}
    else:
        value = guided.json_schema() if kind == "json" else getattr(guided, kind)
        last = place.rpartition(".")[2]
        if kind == "choice" and last == "regex":
            value = _alternatives(value)
        elif kind == "choice" and last in {"grammar", "ebnf"}:
            value = _gbnf(value)
        if place == "response_format.grammar":
            body["response_format"] = {"type": "grammar", "grammar": value}
        else:
            _put(body, place, value)


def _named_schema(guided: Any) -> dict[str, Any]:
    shape = guided.json
    schema = _class_schema(shape) if isinstance(shape, type) else guided.json_schema()
    title = shape.__name__ if isinstance(shape, type) else schema.get("title")
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", title)[:64] if isinstance(title, str) and title else "response"
    if guided.strict:
        return {"name": name, "schema": _closed(schema), "strict": True}
    return {"name": name, "schema": schema}


@lru_cache(maxsize=64)
def _class_schema(kind: Any) -> dict[str, Any]:
    """A class's schema, made once: it takes longer than everything else in a request."""
    from ...params.guided import schema_of

    return schema_of(kind)


def _closed(schema: Any) -> Any:
    """A copy in which every object names all its properties as required and allows no others: what strict mode asks."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: (
            {name: _closed(item) for name, item in value.items()}
            if key in _NAMED and isinstance(value, dict)
            else value
        )
        if key in _NAMED or key in _VERBATIM
        else _closed(value)
        for key, value in schema.items()
    }
    if schema.get("type") == "object" or "properties" in schema:
        closed.setdefault("additionalProperties", False)
        if isinstance(schema.get("properties"), dict):
            closed["required"] = list(schema["properties"])
    return closed


_NAMED = {"properties", "$defs", "definitions", "patternProperties"}  # maps from names to schemas
_VERBATIM = {"enum", "const", "default", "examples", "required"}  # values, not schemas


def _alternatives(choices: list[str]) -> str:
    """A regular expression for exactly these texts."""
    return "(" + "|".join(re.sub(r"([\\.^$*+?()\[\]{}|])", r"\\\1", choice) for choice in choices) + ")"


def _gbnf(choices: list[str]) -> str:
    """A grammar, in the notation of llama.cpp, for exactly these texts."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    quoted = ('"' + "".join(escapes.get(letter, letter) for letter in choice) + '"' for choice in choices)
    return "root ::= " + " | ".join(quoted)
