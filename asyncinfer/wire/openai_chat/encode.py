"""From a `Request` to the JSON body of a Chat Completions call.

Rule: only what somebody set explicitly is sent, under the name that the dialect has for it; what the dialect has no
name for is left out and named by `unsupported`, so that the engine can say so. A constraint on the answer's form that
cannot be sent is an error: an answer of another form is worth nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import UnsupportedParameterError
from ..asking import JSON_HEADERS, dropped_params, put, same
from ..protocol import WireRequest
from ..shapes import alternatives, gbnf_choice, named_schema, shape_kind
from ..wrapping import as_sent, only_told
from .messages import write_messages

if TYPE_CHECKING:
    from ...dialect import Dialect
    from ...request import Request

_NOT_SENT = {"guided_decoding", "extra_body", "strict_params"}  # handled by themselves
_encode = msgspec.json.Encoder().encode


def encode_request(request: Request, dialect: Dialect) -> WireRequest:
    """The HTTP request that asks for an answer.

    Raises:
        ConfigError: the format or the provider cannot say it.
    """
    return WireRequest(dialect.path, _encode(request_body(request, dialect)), dict(JSON_HEADERS))


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

    ``guided_decoding.json`` is named where the provider only promises JSON, not the schema; likewise ``.regex`` where
    the provider's schemas know no ``pattern``.
    """
    generation = request.generation
    asked = request.chosen
    dropped = dropped_params(request, dialect)
    fields = type(generation).model_fields
    names = []
    for name in sorted(asked - _NOT_SENT):
        value = getattr(generation, name)
        if name in dropped:
            if not same(value, dropped[name]):
                names.append(name)
        elif name == "top_logprobs" and dialect.logprobs_count:
            continue
        elif name not in dialect.fields and not same(value, fields[name].get_default(call_default_factory=True)):
            names.append(name)
    guided = request.asked("guided_decoding")
    if guided is not None:
        kind = shape_kind(guided)
        sent = shape_kind(as_sent(guided, dialect))
        if sent is not None and dialect.guided.get(sent) == "json_object":  # without a place it is an error
            names.append(f"guided_decoding.{kind}")
    return names + only_told(request, dialect)


def _put_params(body: dict[str, Any], request: Request, dialect: Dialect) -> None:
    asked, generation = request.chosen, request.generation
    dropped = dropped_params(request, dialect)
    for name, wire in dialect.fields.items():
        if name not in asked or name in dropped:
            continue
        value = getattr(generation, name)
        if value is None or (name in {"stop_strings", "stop_token_ids", "logit_bias"} and not value):
            continue
        if name in {"tool_choice", "parallel_tool_calls"} and not request.tools:
            continue
        put(body, wire, value)
    if dialect.default_max_tokens is not None and "max_new_tokens" not in asked:
        put(body, dialect.fields["max_new_tokens"], dialect.default_max_tokens)
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
            put(body, dialect.fields["logprobs"], max(1, top or 0))
    elif wanted:
        put(body, dialect.fields["logprobs"], True)
    else:
        body.pop(dialect.fields.get("top_logprobs", ""), None)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    tool["type"] = "function"
    tool["function"] = {name: value for name, value in function.items() if value is not None}
    return tool


# -- the form of the answer --------------------------------------------------------------------------------------------


def _tell_schema(messages: list[dict[str, Any]], guided: Any) -> None:
    """Say what the answer must be, after the system's own words: a provider that promises no more than JSON is never
    shown the schema, and may refuse to answer in JSON where nobody speaks of it."""
    schema = _encode(named_schema(guided)["schema"]).decode()
    at = next((at for at, turn in enumerate(messages) if turn["role"] not in {"system", "developer"}), len(messages))
    said = f"Answer with nothing but JSON that is valid against this JSON Schema:\n{schema}"
    messages.insert(at, {"role": "system", "content": said})


def _named(guided: Any, dialect: Dialect) -> dict[str, Any]:
    return named_schema(guided, closable=dialect.strict == "closable")


def _put_guided(body: dict[str, Any], guided: Any, dialect: Dialect) -> None:
    guided = as_sent(guided, dialect)
    kind = shape_kind(guided)
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
        _tell_schema(body["messages"], guided)
    elif place == "json_schema":
        body["response_format"] = {"type": "json_schema", "json_schema": _named(guided, dialect)}
    else:
        value = guided.json_schema() if kind == "json" else getattr(guided, kind)
        last = place.rpartition(".")[2]
        if kind == "choice" and last == "regex":
            value = alternatives(value)
        elif kind == "choice" and last in {"grammar", "ebnf"}:
            value = gbnf_choice(value)
        if place == "response_format.grammar":
            body["response_format"] = {"type": "grammar", "grammar": value}
        else:
            put(body, place, value)
