"""From a `Request` to the JSON body of a Messages call.

Rule: as in Chat Completions, only what somebody set explicitly is sent. What the model refuses (`models`) is left out
and named by `unsupported`. ``max_tokens`` is required by the format: unset, it is the model's own maximum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ...errors import ConfigError, UnsupportedParameterError
from ..asking import JSON_HEADERS, put, same
from ..protocol import WireRequest
from ..shapes import class_schema, shape_kind
from ..unwrapping import ANSWER_TOOL, ANSWER_TOOL_DESCRIPTION
from ..wrapping import as_sent
from .blocks import write_turns
from .models import BUDGETS, LADDER, ModelRules, nearest_effort, rules_of
from .schema import closed_schema

if TYPE_CHECKING:
    from ...dialect import Dialect
    from ...request import Request

_WITHOUT_SAMPLING = "2026-10-21"  # from this version of the API on, no model takes sampling parameters
_UNKNOWN_MAX_TOKENS = 4096  # a server's own model: small enough for its context, big enough for an answer
_LEAST_BUDGET = 1024
_NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": None}
_NOT_SENT = {"guided_decoding", "extra_body", "strict_params", "reasoning_effort"}  # handled by themselves
_TOOL_KEYS = ("cache_control", "defer_loading", "eager_input_streaming", "input_examples", "allowed_callers")
_MERGED = {"output_config", "metadata"}
_encode = msgspec.json.Encoder().encode


def encode_request(request: Request, dialect: Dialect) -> WireRequest:
    """The HTTP request that asks for an answer.

    Raises:
        ConfigError: the format or the model cannot say it.
    """
    return WireRequest(dialect.path, _encode(request_body(request, dialect)), dict(JSON_HEADERS))


def request_body(request: Request, dialect: Dialect) -> dict[str, Any]:
    """The body as a dictionary; ``extra_body`` has the last word on every key (``output_config`` and ``metadata`` are
    merged, so that an effort does not take away a schema)."""
    model = request.model
    rules = rules_of(model.model_name or "")
    turns = write_turns(
        request.conversation.messages,
        dialect,
        system_turns=dialect.system_turns and rules.system_turns,
        unsigned=not rules.prefixes,
    )
    body: dict[str, Any] = {
        "model": model.model_name,
        "max_tokens": request.asked("max_new_tokens") or _max_tokens(rules, dialect),
        "messages": turns.messages,
    }
    if model.adapter_model is not None and dialect.adapter_field is not None:
        body[dialect.adapter_field] = model.adapter_model
    if turns.system:
        plain = len(turns.system) == 1 and turns.system[0].keys() == {"type", "text"}
        body["system"] = turns.system[0]["text"] if plain else turns.system
    if request.stream and dialect.streams:
        body["stream"] = True
    _put_sampling(body, request, dialect, rules)
    _put_thinking(body, request, rules)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        choice = _tool_choice(request)
        if choice is not None:
            body["tool_choice"] = choice
    guided = request.asked("guided_decoding")
    if guided is not None:
        _put_guided(body, guided, request, dialect, rules)
    if dialect.user_field is not None and request.remote is not None and request.remote.user_id:
        put(body, dialect.user_field, request.remote.user_id)
    for key, value in (request.asked("extra_body") or {}).items():
        merged = key in _MERGED and isinstance(value, dict) and isinstance(body.get(key), dict)
        body[key] = {**body[key], **value} if merged else value
    return body


def unsupported(request: Request, dialect: Dialect) -> list[str]:
    """Names of the parameters that were set to something other than their default and do not reach the provider."""
    generation = request.generation
    rules = rules_of(request.model.model_name or "")
    dropped = _dropped(request, rules)
    fields = type(generation).model_fields
    names = []
    for name in sorted(request.chosen - _NOT_SENT):
        value = getattr(generation, name)
        if name in dropped:
            if not same(value, dropped[name]):
                names.append(name)
        elif name not in dialect.fields and not same(value, fields[name].get_default(call_default_factory=True)):
            names.append(name)
    effort = request.asked("reasoning_effort")
    if effort is not None and not _thinking(effort, rules, 1 << 20).honoured:
        names.append("reasoning_effort")
    return names


def _max_tokens(rules: ModelRules, dialect: Dialect) -> int:
    return rules.max_tokens or dialect.default_max_tokens or _UNKNOWN_MAX_TOKENS


# -- sampling and thinking ---------------------------------------------------------------------------------------------


def _dropped(request: Request, rules: ModelRules) -> dict[str, Any]:
    """Parameters that are refused, with the values that mean the same as leaving them out."""
    if not rules.sampling or _version(request) >= _WITHOUT_SAMPLING or _thinks(request, rules):
        return _NEUTRAL
    return {}


def _version(request: Request) -> str:
    headers = request.remote.extra_headers if request.remote is not None else {}
    return next((value for name, value in headers.items() if name.lower() == "anthropic-version"), "")


def _thinks(request: Request, rules: ModelRules) -> bool:
    asked = (request.asked("extra_body") or {}).get("thinking")
    if isinstance(asked, dict):
        return asked.get("type") != "disabled"
    effort = request.asked("reasoning_effort")
    return effort not in {None, "none"} and rules.thinking is not None


def _put_sampling(body: dict[str, Any], request: Request, dialect: Dialect, rules: ModelRules) -> None:
    dropped = _dropped(request, rules)
    for name, wire in dialect.fields.items():
        value = request.asked(name)
        if value is None or name in dropped or name in _OWN_WAY:
            continue
        if name == "top_k" and value <= 0:  # our word for all tokens; theirs is silence
            continue
        if name == "top_p" and value == 1.0 and "temperature" in request.chosen:
            continue  # some models take one of the two, and this one says nothing
        if name == "stop_strings" and not value:
            continue
        put(body, wire, value)


_OWN_WAY = {"max_new_tokens", "tool_choice", "parallel_tool_calls", "reasoning_effort"}


class _Thinking(NamedTuple):
    """What an effort becomes: ``thinking``, ``output_config.effort``, and whether it was heard at all."""

    config: dict[str, Any] | None
    effort: str | None
    honoured: bool = True


def _thinking(word: str, rules: ModelRules, max_tokens: int) -> _Thinking:
    word = word.lower()
    if word == "none":
        if rules.disable:
            return _Thinking({"type": "disabled"}, None)
        return _Thinking(None, nearest_effort("low", rules.efforts) if rules.always else None, not rules.always)
    if word not in LADDER:
        raise ConfigError(
            f"reasoning_effort: {word!r} is not one of none, {', '.join(LADDER)}", path="generation.reasoning_effort"
        )
    effort = nearest_effort(word, rules.efforts)
    if rules.thinking == "adaptive":
        return _Thinking({"type": "adaptive", "display": "summarized"}, effort)
    if rules.thinking is None:
        return _Thinking(None, effort, effort is not None)
    if max_tokens <= _LEAST_BUDGET:
        raise ConfigError(
            f"max_new_tokens {max_tokens} leaves no room to think: this model needs more than {_LEAST_BUDGET}, or "
            "reasoning_effort unset",
            path="generation.max_new_tokens",
        )
    budget = min(BUDGETS[word], max(_LEAST_BUDGET, max_tokens // 2))
    return _Thinking({"type": "enabled", "budget_tokens": budget}, effort)


def _put_thinking(body: dict[str, Any], request: Request, rules: ModelRules) -> None:
    word = request.asked("reasoning_effort")
    if word is None:
        return
    thinking = _thinking(word, rules, body["max_tokens"])
    if thinking.config is not None:
        body["thinking"] = thinking.config
    if thinking.effort is not None:
        put(body, "output_config.effort", thinking.effort)


# -- tools and the form of the answer ----------------------------------------------------------------------------------


def _tool(tool: Any) -> dict[str, Any]:
    function = tool.function
    schema = function.parameters or {"type": "object", "properties": {}}
    written: dict[str, Any] = {"name": function.name}
    if function.description:
        written["description"] = function.description
    if function.strict:
        written["strict"] = True
        schema = closed_schema(schema)
    written["input_schema"] = schema if "type" in schema else {"type": "object", **schema}
    for extra in (function.model_extra, tool.model_extra):
        if extra:
            written.update({key: extra[key] for key in _TOOL_KEYS if key in extra})
    return written


def _tool_choice(request: Request) -> dict[str, Any] | None:
    asked = request.asked("tool_choice")
    choice: dict[str, Any] | None = None
    if isinstance(asked, dict):
        function = asked.get("function")
        name = function.get("name") if isinstance(function, dict) else asked.get("name")
        if name is None:
            raise ConfigError(
                'tool_choice: name the function, {"type": "function", "function": {"name": ...}}',
                path="generation.tool_choice",
            )
        choice = {"type": "tool", "name": name}
    elif asked is not None:
        choice = {"type": {"required": "any"}.get(asked, asked)}
    if request.asked("parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return choice


def _put_guided(body: dict[str, Any], guided: Any, request: Request, dialect: Dialect, rules: ModelRules) -> None:
    kind = shape_kind(guided)
    if kind is None:
        return
    place = dialect.guided.get(kind)
    if place is None:
        raise UnsupportedParameterError(
            f"this provider cannot guide an answer by {kind}; it knows: {', '.join(dialect.guided) or 'none'}",
            path=f"generation.guided_decoding.{kind}",
        )
    guided = as_sent(guided, dialect)
    shape = guided.json
    if rules.structured:
        schema = _class_schema(shape) if isinstance(shape, type) else closed_schema(guided.json_schema())
        put(body, dialect.guided["json"], {"type": "json_schema", "schema": schema})
        return
    schema = class_schema(shape) if isinstance(shape, type) else guided.json_schema()
    if not answers_by_call(request) or schema.get("type") != "object":
        raise UnsupportedParameterError(
            f"{request.model.model_name} follows a JSON schema only as the input of a tool: of an object, without "
            "thinking, and without tools of your own; Claude 4.5 and later models follow any",
            path=f"generation.guided_decoding.{kind}",
        )
    body["tools"] = [{"name": ANSWER_TOOL, "description": ANSWER_TOOL_DESCRIPTION, "input_schema": schema}]
    body["tool_choice"] = {"type": "tool", "name": ANSWER_TOOL, "disable_parallel_tool_use": True}


def answers_by_call(request: Request) -> bool:
    """Whether the answer must come as a call of a tool of ours: there is a shape, the model follows schemas in no other
    way, and nothing that was asked for stands against it."""
    guided = request.asked("guided_decoding")
    if guided is None or shape_kind(guided) is None:
        return False
    rules = rules_of(request.model.model_name or "")
    own = request.tools or (request.asked("extra_body") or {}).keys() & {"tools", "tool_choice"}
    return not rules.structured and rules.tools and not own and not _thinks(request, rules)


@lru_cache(maxsize=64)
def _class_schema(kind: Any) -> dict[str, Any]:
    """A class's schema, made once: it takes longer than everything else in a request."""
    from ...params.guided import schema_of

    closed: dict[str, Any] = closed_schema(schema_of(kind))
    return closed
