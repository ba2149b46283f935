"""From a `Request` to the JSON body of a ``generateContent`` call.

Rule: only what somebody set explicitly is sent, under the name that the dialect has for it; what the dialect has no
name for is left out and named by `unsupported`, so that the engine can say so. A constraint on the answer's form that
cannot be sent is an error: an answer of another form is worth nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from ...errors import ConfigError, UnsupportedParameterError
from ..asking import JSON_HEADERS
from ..protocol import WireRequest
from ..shapes import class_schema, shape_kind
from ..wrapping import as_sent
from .contents import write_contents
from .thinking import needs_signatures, thinking_config, thinks

if TYPE_CHECKING:
    from ...dialect import Dialect
    from ...params import GuidedDecodingParams
    from ...request import Request

_NOT_SENT = {"guided_decoding", "extra_body", "strict_params"}  # handled by themselves
_BY_ITSELF = {"tool_choice", "reasoning_effort", "logprobs", "top_logprobs"}
_MODES = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
_encode = msgspec.json.Encoder().encode


def encode_request(request: Request, dialect: Dialect) -> WireRequest:
    """The HTTP request that asks for an answer.

    Raises:
        ConfigError: the format or the provider cannot say it.
    """
    streaming = request.stream and dialect.streams
    method = "streamGenerateContent?alt=sse" if streaming else "generateContent"
    path = f"{model_path(request.model.model_name or '', dialect.path)}:{method}"
    return WireRequest(path, _encode(request_body(request, dialect)), dict(JSON_HEADERS))


def model_path(model: str, collection: str) -> str:
    """Where a model lives below the base URL.

    Args:
        model: ``"gemini-x"``, ``"models/gemini-x"``, ``"tunedModels/mine"``, ``"endpoints/123"``, or with the
            publisher in front (``"google/gemini-x"``).
        collection: the dialect's path, ``"/models/"`` or ``"/publishers/google/models/"``.
    """
    if not model:
        raise ConfigError("model.model_name is not set: name the model, for example gemini-2.5-flash", path="model")
    name = quote(model.strip("/").removeprefix("models/"), safe="/")
    owner, slash, rest = name.partition("/")
    if not slash:
        return collection + name
    if owner in {"tunedModels", "endpoints", "publishers"}:
        return "/" + name
    return collection.replace("/publishers/google/", f"/publishers/{owner}/") + rest.removeprefix("models/")


def request_body(request: Request, dialect: Dialect) -> dict[str, Any]:
    """The body as a dictionary; ``extra_body`` is merged into it and has the last word on every leaf."""
    model = request.model.model_name or ""
    contents, system = write_contents(request.conversation.messages, signatures=needs_signatures(model))
    if not contents:
        raise ConfigError("the conversation has only system messages: Gemini needs a user message", path="messages")
    body: dict[str, Any] = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool.to_dict()) for tool in request.tools]}]
        choice = request.asked("tool_choice")
        if choice is not None and "tool_choice" in dialect.fields:
            body["toolConfig"] = {"functionCallingConfig": _calling(choice)}
    config = _config(request, dialect)
    guided = request.asked("guided_decoding")
    if guided is not None:
        _put_guided(config, guided, dialect)
    if config:
        body["generationConfig"] = config
    extra = request.asked("extra_body")
    if extra:
        _merge(body, extra)
    return body


def unsupported(request: Request, dialect: Dialect) -> list[str]:
    """Names of the parameters that were set to something other than their default and do not reach the provider."""
    generation = request.generation
    fields = type(generation).model_fields
    names = []
    for name in sorted(request.chosen - _NOT_SENT):
        if name in dialect.fields:
            if name == "reasoning_effort" and not thinks(request.model.model_name or ""):
                names.append(name)
            continue
        value, default = getattr(generation, name), fields[name].get_default(call_default_factory=True)
        if value != default and (value or default or isinstance(value, (int, float))):
            names.append(name)
    return names


def _config(request: Request, dialect: Dialect) -> dict[str, Any]:
    asked, generation = request.chosen, request.generation
    config: dict[str, Any] = {}
    for name, wire in dialect.fields.items():
        if name not in asked or name in _BY_ITSELF:
            continue
        value = getattr(generation, name)
        if value is None or (name == "stop_strings" and not value) or (name == "top_k" and value <= 0):
            continue
        config[wire] = value
    effort = request.asked("reasoning_effort")
    if effort is not None and "reasoning_effort" in dialect.fields:
        thinking = thinking_config(effort, request.model.model_name or "")
        if thinking is not None:
            config[dialect.fields["reasoning_effort"]] = thinking
    top = request.asked("top_logprobs")
    if "logprobs" in dialect.fields and (
        request.asked("logprobs") or (top is not None and "logprobs" not in request.chosen)
    ):
        config[dialect.fields["logprobs"]] = True
        if top and "top_logprobs" in dialect.fields:
            config[dialect.fields["top_logprobs"]] = top
    if dialect.default_max_tokens is not None and "max_new_tokens" not in asked:
        config[dialect.fields["max_new_tokens"]] = dialect.default_max_tokens
    return config


# -- tools -------------------------------------------------------------------------------------------------------------


def _declaration(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    written: dict[str, Any] = {"name": function["name"]}
    if function.get("description"):
        written["description"] = function["description"]
    if function.get("parameters"):
        written["parametersJsonSchema"] = function["parameters"]
    return written


def _calling(choice: Any) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"mode": _MODES[choice]}
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else choice.get("name")
    if not isinstance(name, str):
        raise ConfigError(
            'a tool_choice that names a function is written {"type": "function", "function": {"name": ...}}',
            path="generation.tool_choice",
        )
    return {"mode": "ANY", "allowedFunctionNames": [name]}


# -- the form of the answer --------------------------------------------------------------------------------------------


def _put_guided(config: dict[str, Any], guided: GuidedDecodingParams, dialect: Dialect) -> None:
    kind = shape_kind(guided)
    if kind is None:
        return
    if kind not in dialect.guided:
        possible = ", ".join(dialect.guided) or "none"
        raise UnsupportedParameterError(
            f"this provider cannot guide an answer by {kind}; it knows: {possible}",
            path=f"generation.guided_decoding.{kind}",
        )
    if dialect.guided[kind] == "wrapped":
        shape = as_sent(guided, dialect).json
        config["responseMimeType"] = "application/json"
        config[dialect.guided["choice"]] = _as_schema(shape)
    elif kind == "choice":
        config["responseMimeType"] = "text/x.enum"
        config[dialect.guided["choice"]] = {"type": "STRING", "enum": guided.choice}
    else:
        config["responseMimeType"] = "application/json"
        shape = guided.json
        config[dialect.guided["json"]] = class_schema(shape) if isinstance(shape, type) else guided.json_schema()


def _as_schema(shape: dict[str, Any]) -> dict[str, Any]:
    """The object of `wrapping` in the API's own `Schema`, which knows patterns; its JSON Schemas do not."""
    named = {name: {**inner, "type": "STRING"} for name, inner in shape["properties"].items()}
    return {"type": "OBJECT", "properties": named, "required": shape["required"]}


def _merge(body: dict[str, Any], extra: dict[str, Any]) -> None:
    """Put ``extra`` over ``body``: objects key by key, ``tools`` one after the other, everything else replaced."""
    for key, value in extra.items():
        held = body.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            body[key] = merged = dict(held)
            _merge(merged, value)
        elif key == "tools" and isinstance(held, list) and isinstance(value, list):
            body[key] = [*held, *value]
        else:
            body[key] = value
