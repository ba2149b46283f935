"""From a `Request` to the arguments of Converse or ConverseStream, as a dictionary with blobs as bytes.

Rule: only what somebody set explicitly is sent, at the place that the dialect has for it. What a vendor's models want
beyond Converse's own fields goes below ``additionalModelRequestFields`` (`families`), ``ModelParams.model_kwargs``
too. ``extra_body`` has the last word: guardrails, service tier, latency, metadata, prompt variables come that way.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import ConfigError, UnsupportedParameterError
from ..asking import put
from ..shapes import schema_name, shape_kind
from ..unwrapping import ANSWER_TOOL, ANSWER_TOOL_DESCRIPTION
from ..wrapping import as_sent, only_told
from . import families
from .blocks import uses_tools, write_conversation

if TYPE_CHECKING:
    from ...conversation import ToolDefinition
    from ...dialect import Dialect
    from ...request import Request

_EXTRA = "additionalModelRequestFields"
_NOT_SENT = {"guided_decoding", "extra_body", "strict_params"}  # handled by themselves
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.\-]{0,256}")
_ONLY_STREAMED = "streamProcessingMode"


def encode_request(request: Request, dialect: Dialect) -> dict[str, Any]:
    """The arguments of the call, ``modelId`` included.

    Raises:
        ConfigError: the format cannot say it; names the parameter.
    """
    model = request.model.model_name
    if not model:
        raise ConfigError(
            "model_name: name a model of Bedrock, an inference profile or an ARN", path="model.model_name"
        )
    system, turns = write_conversation(request.conversation.messages)
    body: dict[str, Any] = {"modelId": model, "messages": turns}
    if system:
        body["system"] = system
    _put_tools(body, request, turns)
    _put_params(body, request, dialect)
    _put_form(body, request, dialect)
    if request.remote is not None and request.remote.user_id and dialect.user_field is not None:
        put(body, dialect.user_field, _checked_user(request.remote.user_id))
    _put_thinking(body, request)
    if request.model.model_kwargs:
        _merge(body, {_EXTRA: request.model.model_kwargs})
    extra = request.asked("extra_body")
    if extra:
        _merge(body, extra)
    guardrail = body.get("guardrailConfig")
    if not request.stream and isinstance(guardrail, dict):
        guardrail.pop(_ONLY_STREAMED, None)
    return body


def unsupported(request: Request, dialect: Dialect) -> list[str]:
    """Names of the parameters that were set to something other than their default and do not reach the model."""
    generation, asked = request.generation, request.chosen
    fields = type(generation).model_fields
    names = []
    dropped = _dropped(request)
    for name in sorted(asked - _NOT_SENT):
        value = getattr(generation, name)
        if name in dropped:
            # One and all are what a model that takes no such parameter does anyway.
            if value not in {None, 0, -1} if name == "top_k" else value not in {None, 1.0}:
                names.append(name)
        elif name not in dialect.fields and value != fields[name].get_default(call_default_factory=True):
            names.append(name)
    return names + only_told(request, dialect)


def _dropped(request: Request) -> frozenset[str]:
    """Parameters that this model refuses."""
    model, effort = request.model.model_name or "", request.asked("reasoning_effort")
    dropped = families.refused(model, effort)
    if families.top_k_path(model) is None:
        dropped |= {"top_k"}
    if effort is not None and families.thinking(model, effort, request.asked("max_new_tokens")) is None:
        dropped = (dropped - families.refused(model, effort)) | families.refused(model, None) | {"reasoning_effort"}
    return dropped


def _put_params(body: dict[str, Any], request: Request, dialect: Dialect) -> None:
    dropped = _dropped(request)
    for name, wire in dialect.fields.items():
        if name in {"tool_choice", "reasoning_effort", "top_k"} or name in dropped:
            continue
        value = request.asked(name)
        if value is not None and value != []:
            put(body, wire, value)
    top_k = request.asked("top_k")
    if "top_k" in dialect.fields and "top_k" not in dropped and top_k is not None and top_k > 0:
        put(body, f"{_EXTRA}.{families.top_k_path(request.model.model_name or '')}", top_k)


def _put_thinking(body: dict[str, Any], request: Request) -> None:
    effort = request.asked("reasoning_effort")
    if effort is None:
        return
    found = families.thinking(request.model.model_name or "", effort, request.asked("max_new_tokens"))
    if found:
        _merge(body, {_EXTRA: found})


# -- tools -------------------------------------------------------------------------------------------------------------


def _put_tools(body: dict[str, Any], request: Request, turns: list[dict[str, Any]]) -> None:
    choice = request.asked("tool_choice")
    earlier = uses_tools(turns)
    if choice == "none" and earlier:
        raise UnsupportedParameterError(
            "tool_choice: Bedrock cannot forbid tools in a conversation that has called some already; use auto, or "
            "leave those turns out",
            path="generation.tool_choice",
        )
    tools = [] if choice == "none" else [_tool(tool) for tool in request.tools or ()]
    if not tools:
        if earlier:  # blocks of tools are refused where no tool is defined
            specs = [{"name": name, "inputSchema": {"json": {"type": "object"}}} for name in earlier]
            body["toolConfig"] = {"tools": [{"toolSpec": spec} for spec in specs]}
        return
    body["toolConfig"] = {"tools": tools}
    written = _choice(choice)
    if written is not None:
        body["toolConfig"]["toolChoice"] = written


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function = tool.function
    schema = function.parameters or {"type": "object", "properties": {}}
    spec: dict[str, Any] = {"name": function.name, "inputSchema": {"json": schema}}
    if function.description:
        spec["description"] = function.description
    if function.strict is not None:
        spec["strict"] = function.strict
    return {"toolSpec": spec}


def _choice(choice: Any) -> dict[str, Any] | None:
    if choice is None or isinstance(choice, str):
        return {"auto": {"auto": {}}, "required": {"any": {}}}.get(choice or "")
    named = choice.get("function")
    name = named.get("name") if isinstance(named, dict) else choice.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(
            'tool_choice: expected {"type": "function", "function": {"name": ...}}', path="generation.tool_choice"
        )
    return {"tool": {"name": name}}


# -- the form of the answer --------------------------------------------------------------------------------------------


def _put_form(body: dict[str, Any], request: Request, dialect: Dialect) -> None:
    guided = request.asked("guided_decoding")
    kind = shape_kind(guided)
    if guided is None or kind is None:
        return
    place = dialect.guided.get(kind)
    if place is None:
        raise UnsupportedParameterError(
            f"Converse cannot guide an answer by {kind}; it knows: {', '.join(dialect.guided)}",
            path=f"generation.guided_decoding.{kind}",
        )
    guided = as_sent(guided, dialect)
    schema = guided.json_schema()
    assert schema is not None
    if not families.structured(request.model.model_name or ""):
        _put_answer_tool(body, request, schema, kind)
        return
    written = {
        "name": schema_name(guided.json, schema),
        "schema": msgspec.json.encode(_closed(schema, every=guided.strict)).decode(),
    }
    if isinstance(schema.get("description"), str):
        written["description"] = schema["description"]
    put(body, dialect.guided["json"], {"type": "json_schema", "structure": {"jsonSchema": written}})


def answers_by_call(request: Request) -> bool:
    """Whether the answer must come as a call of a tool of ours: there is a shape, the model follows schemas in no other
    way, and nothing that was asked for stands against it."""
    guided, model = request.asked("guided_decoding"), request.model.model_name or ""
    if guided is None or shape_kind(guided) is None or families.structured(model):
        return False
    own = request.tools or "toolConfig" in (request.asked("extra_body") or {})
    return not own and not _thinks(request) and families.takes_tools(model)


def _thinks(request: Request) -> bool:
    """Whether thinking was asked for, in our words or in the model's own."""
    extra = request.asked("extra_body") or {}
    named = {**(request.model.model_kwargs or {}), **(extra.get(_EXTRA) or {})}.get("thinking")
    if isinstance(named, dict):
        return named.get("type") != "disabled"
    effort = request.asked("reasoning_effort")
    if effort is None:
        return False
    found = families.thinking(request.model.model_name or "", effort, request.asked("max_new_tokens")) or {}
    return bool(found.get("thinking", {}).get("type", "disabled") != "disabled")


def _put_answer_tool(body: dict[str, Any], request: Request, schema: dict[str, Any], kind: str) -> None:
    if not answers_by_call(request) or schema.get("type") != "object":
        raise UnsupportedParameterError(
            f"{request.model.model_name} follows a JSON schema only as the input of a tool: of an object, without "
            "thinking, and without tools of your own; Claude 4.5 and later models follow any",
            path=f"generation.guided_decoding.{kind}",
        )
    spec = {"name": ANSWER_TOOL, "description": ANSWER_TOOL_DESCRIPTION, "inputSchema": {"json": schema}}
    earlier = [tool for tool in body.get("toolConfig", {}).get("tools", ()) if tool["toolSpec"]["name"] != ANSWER_TOOL]
    body["toolConfig"] = {"tools": [*earlier, {"toolSpec": spec}], "toolChoice": {"tool": {"name": ANSWER_TOOL}}}


_NAMED = {"properties", "$defs", "definitions", "patternProperties"}  # maps from names to schemas
_VERBATIM = {"enum", "const", "default", "examples", "required"}  # values, not schemas


def _closed(schema: Any, *, every: bool) -> Any:
    """A copy whose objects allow no further properties, which the service insists on; with ``every``, all required."""
    if isinstance(schema, list):
        return [_closed(item, every=every) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            closed[key] = {name: _closed(item, every=every) for name, item in value.items()}
        else:
            closed[key] = value if key in _VERBATIM else _closed(value, every=every)
    if schema.get("type") == "object" or "properties" in schema:
        closed.setdefault("additionalProperties", False)
        if every and isinstance(schema.get("properties"), dict):
            closed["required"] = list(schema["properties"])
    return closed


def _checked_user(user: str) -> str:
    if _METADATA.fullmatch(user):
        return user
    raise ConfigError(
        "user_id: Bedrock takes at most 256 letters, digits, spaces and :_@$#=/+,.- in its request metadata",
        path="remote_params.user_id",
    )


# -- dictionaries ------------------------------------------------------------------------------------------------------


def _merge(body: dict[str, Any], more: dict[str, Any]) -> None:
    """Put ``more`` over ``body``: objects key by key, everything else whole. ``more`` is copied."""
    for key, value in more.items():
        known = body.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            _merge(known, value)
        else:
            body[key] = deepcopy(value)
