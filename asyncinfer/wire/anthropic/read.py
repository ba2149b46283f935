"""The server's side of the Messages format: read a client's request.

Reading is tolerant: unknown fields are left aside, ``null`` means unset, content may be text or blocks everywhere,
system messages may stand between the turns. What the format has and a conversation has not (``cache_control``,
``citations``) is kept as unknown keys of the pieces, so that it goes out again where the format is spoken.

Rule: no clock and no random numbers. No file named in a request is ever read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...conversation import Conversation
from ...errors import BadRequestError, ConfigError
from ...params import GenerationParams
from .models import BUDGETS

_PARAMS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_sequences": "stop_strings",
}
_KNOWN = {
    "model",
    "messages",
    "system",
    "stream",
    "tools",
    "tool_choice",
    "metadata",
    "thinking",
    "output_config",
    *_PARAMS,
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class MessagesRequest(msgspec.Struct):
    """What a client asked for.

    Attributes:
        model: the model's name as the client gave it.
        conversation: messages and tools.
        generation: sampling parameters; only what the client sent is set.
        stream: how the answer is to be written.
        user: the client's own user id (``metadata.user_id``), or None.
        extra: fields that are not understood, as sent (``service_tier``, server tools under ``tools``).
    """

    model: str
    conversation: Conversation
    generation: GenerationParams
    stream: bool = False
    user: str | None = None
    extra: dict[str, Any] = {}


def parse_messages_request(body: bytes) -> MessagesRequest:
    """Read the body of a ``POST /v1/messages``.

    Raises:
        BadRequestError: it is not one; ``status`` 400, and the message names the field.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _bad("the body must be a JSON object")
    model, messages = value.get("model"), value.get("messages")
    if not isinstance(model, str) or not model:
        raise _bad("model: name a model, as text")
    if not isinstance(messages, list) or not messages:
        raise _bad("messages: give a list with at least one message")
    metadata = value.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    extra = {name: field for name, field in value.items() if name not in _KNOWN}
    try:
        return MessagesRequest(
            model=model,
            conversation=_conversation(messages, value, extra),
            generation=_generation(value),
            stream=bool(value.get("stream")),
            user=user if isinstance(user, str) else None,
            extra=extra,
        )
    except ConfigError as error:
        raise _bad(error.message) from error


def _bad(message: str) -> BadRequestError:
    return BadRequestError(message, status=400, code="invalid_request_error")


def _conversation(messages: list[Any], value: dict[str, Any], extra: dict[str, Any]) -> Conversation:
    read: list[dict[str, Any]] = []
    system = value.get("system")
    if system:
        read.append({"role": "system", "content": _content(system, "system")})
    for at, message in enumerate(messages):
        read += _message(message, f"messages[{at}]")
    document: dict[str, Any] = {"messages": read}
    tools = value.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise _bad("tools: give a list")
    own = [_tool(tool, at) for at, tool in enumerate(tools or ()) if _is_own(tool)]
    if own:
        document["tools"] = own
    others = [tool for tool in tools or () if not _is_own(tool)]
    if others:
        extra["tools"] = others
    return Conversation.from_dict(document)


def _is_own(tool: Any) -> bool:
    """Whether the client runs the tool itself: those that the provider runs have a versioned type."""
    return not isinstance(tool, dict) or tool.get("type") in {None, "custom"}


def _tool(tool: Any, at: int) -> dict[str, Any]:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise _bad(f"tools[{at}].name: give the tool a name, as text")
    kept = {key: field for key, field in tool.items() if field is not None}
    function = {"name": kept.pop("name")}
    for theirs, ours in (("description", "description"), ("input_schema", "parameters"), ("strict", "strict")):
        if theirs in kept:
            function[ours] = kept.pop(theirs)
    kept.pop("type", None)
    return {"type": "function", "function": function, **kept}


# -- messages ----------------------------------------------------------------------------------------------------------


def _message(message: Any, where: str) -> list[dict[str, Any]]:
    """One message of the format is one of ours, but for tool results, each of which is a message of its own."""
    if not isinstance(message, dict):
        raise _bad(f"{where}: a message must be an object")
    role, content = message.get("role"), message.get("content")
    if role == "assistant":
        return [_assistant(_blocks(content, where), content, where)]
    if role == "system":
        return [{"role": "system", "content": _content(content, where)}]
    if role != "user":
        raise _bad(f"{where}.role: one of user, assistant, system")
    if not isinstance(content, list):
        return [{"role": "user", "content": _content(content, where)}]
    blocks = _blocks(content, where)
    read = [_tool_result(block, where) for block in blocks if block.get("type") == "tool_result"]
    rest = [block for block in blocks if block.get("type") != "tool_result"]
    if rest or not read:
        read.append({"role": "user", "content": _content(rest, where)})
    return read


def _blocks(content: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise _bad(f"{where}.content: give text, or a list of content blocks")
    return content


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    items = [_item(block, where) for block in _blocks(content, where)]
    if len(items) == 1 and items[0].keys() == {"type", "content"} and items[0]["type"] == "text":
        return str(items[0]["content"])
    return items


def _item(block: dict[str, Any], where: str) -> dict[str, Any]:
    kind = block.get("type")
    kept = {key: field for key, field in block.items() if key not in {"type", "text", "source"} and field is not None}
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise _bad(f"{where}.content: a text block needs its text")
        return {"type": "text", "content": block["text"], **kept}
    if kind in {"image", "document"}:
        return {**_source(kind, block.get("source"), where), **kept}
    raise _bad(f"{where}.content: a block of type {str(kind)[:40]!r} cannot stand here")


def _source(kind: str, source: Any, where: str) -> dict[str, Any]:
    sort = source.get("type") if isinstance(source, dict) else None
    if sort == "base64":
        return {"type": f"{kind}_binary", "binary": source.get("data")}
    if sort == "url":
        return {"type": f"{kind}_url", "content": source.get("url")}
    if sort == "text" and kind == "document":
        return {"type": "document_binary", "binary": _as_base64(source.get("data"))}
    if sort == "file" and kind == "document":
        return {"type": "document_id", "content": source.get("file_id")}
    raise _bad(f"{where}.content: a source of type {str(sort)[:40]!r} cannot be read; send base64 or url")


def _as_base64(text: Any) -> str:
    from base64 import b64encode

    return b64encode(str(text).encode("utf-8", "replace")).decode("ascii")


def _tool_result(block: dict[str, Any], where: str) -> dict[str, Any]:
    content = block.get("content")
    read: dict[str, Any] = {
        "role": "tool",
        "content": "" if content is None or content == [] else _content(content, where),
        "tool_call_id": block.get("tool_use_id"),
    }
    read.update({key: block[key] for key in ("is_error", "cache_control") if block.get(key) is not None})
    return read


def _assistant(blocks: list[dict[str, Any]], content: Any, where: str) -> dict[str, Any]:
    read: dict[str, Any] = {"role": "assistant", "content": None}
    texts = [str(block.get("text") or "") for block in blocks if block.get("type") == "text"]
    calls = [_call(block, where) for block in blocks if block.get("type") == "tool_use"]
    details = [block for block in blocks if block.get("type") in {"thinking", "redacted_thinking"}]
    if texts or not (calls or details):
        read["content"] = "".join(texts)
    if calls:
        read["tool_calls"] = calls
    if details:
        read["reasoning_content"] = "".join(str(block.get("thinking") or "") for block in details)
        read["reasoning_details"] = details
    if isinstance(content, list) and not _plain(blocks):
        read["reasoning_details"] = blocks  # an order of its own: kept whole, as the decoder does
    return read


def _plain(blocks: list[dict[str, Any]]) -> bool:
    """Whether thinking, one text and calls, in this order, say all of it."""
    order = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}
    places = [order.get(str(block.get("type")), -1) for block in blocks]
    return -1 not in places and places == sorted(places) and (places.count(1) < 2 or places == [1] * len(places))


def _call(block: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(block.get("name"), str) or not isinstance(block.get("id"), str):
        raise _bad(f"{where}.content: a tool_use needs id and name")
    arguments = msgspec.json.encode(block.get("input") or {}).decode()
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


# -- parameters --------------------------------------------------------------------------------------------------------


def _generation(value: dict[str, Any]) -> GenerationParams:
    asked = {ours: value[theirs] for theirs, ours in _PARAMS.items() if value.get(theirs) is not None}
    choice = value.get("tool_choice")
    if isinstance(choice, dict):
        if choice.get("type") == "tool":
            asked["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
        elif choice.get("type") in _CHOICES:
            asked["tool_choice"] = _CHOICES[choice["type"]]
        if choice.get("disable_parallel_tool_use"):
            asked["parallel_tool_calls"] = False
    output = value.get("output_config")
    shape = output.get("format") if isinstance(output, dict) else None
    if isinstance(shape, dict) and shape.get("schema") is not None:
        if not isinstance(shape["schema"], dict):
            raise _bad("output_config.format.schema: give a JSON Schema, an object")
        asked["guided_decoding"] = {"json": shape["schema"], "strict": True}
    effort = _effort(value.get("thinking"), output.get("effort") if isinstance(output, dict) else None)
    if effort is not None:
        asked["reasoning_effort"] = effort
    return GenerationParams(**asked)


def _effort(thinking: Any, effort: Any) -> str | None:
    """One word for how much to think, from the format's two fields."""
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind == "disabled":
        return "none"
    if isinstance(effort, str):
        return effort
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        amount = budget if isinstance(budget, int) else 0
        return next((word for word, least in BUDGETS.items() if amount <= least), "max")
    return "high" if kind == "adaptive" else None
