"""Messages of a conversation as ``contents``: turns of ``user`` and ``model``, each a list of parts.

System messages go to ``systemInstruction``, tool messages become ``functionResponse`` parts of a user turn of their
own. What a model sent with its answer (signatures, parts that are neither text nor calls) goes back at the very place
where it stood.

Rule: no file is opened here. A piece that is named by path must have its bytes in ``binary`` already (`engines.files`
reads them); bytes go out with their real media type, URLs as ``fileData`` for the service to fetch.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

import msgspec

from ...conversation import ContentItem, Message, Role, Type
from ...errors import ConfigError
from ..lenient import arguments_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...conversation import ToolCall

_FOREIGN = "skip_thought_signature_validator"
"""Google's documented stand-in for the signature of a call that another model made."""
_PATHS = {Type.IMAGE_PATH, Type.DOCUMENT_PATH, Type.AUDIO_PATH}


def write_contents(
    messages: Sequence[Message], *, signatures: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The ``contents`` of a request, and the parts of its ``systemInstruction``.

    Args:
        messages: the conversation.
        signatures: whether the model refuses calls of the current turn without a signature.

    Raises:
        ConfigError: a piece cannot be sent, or a tool message answers no call.
    """
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    pending: list[ToolCall] = []
    current = max((at for at, message in enumerate(messages) if message.role is Role.USER), default=-1)
    for at, message in enumerate(messages):
        if message.role is Role.SYSTEM:
            system.extend(_parts(message))
        elif message.role is Role.ASSISTANT:
            pending = list(message.tool_calls or ())
            names.update((call.id, call.function.name) for call in pending)
            _append(turns, "model", _model_parts(message, signatures=signatures and at > current))
        elif message.role is Role.TOOL:
            _append(turns, "user", [_response(message, names, pending)])
        else:
            _append(turns, "user", _parts(message))
    return turns, system


def _append(turns: list[dict[str, Any]], role: str, parts: list[dict[str, Any]]) -> None:
    """Add a turn; neighbours of one kind are one turn. Answers to calls stay apart from what the user says."""
    if not parts:
        return
    last = turns[-1] if turns else None
    if last is not None and last["role"] == role and _answers(last["parts"]) == _answers(parts):
        last["parts"].extend(parts)
    else:
        turns.append({"role": role, "parts": parts})


def _answers(parts: list[dict[str, Any]]) -> bool:
    return "functionResponse" in parts[-1]


# -- what users say ----------------------------------------------------------------------------------------------------


def _parts(message: Message) -> list[dict[str, Any]]:
    content = message.content
    if content is None:
        return []
    return [{"text": content}] if isinstance(content, str) else [_part(item) for item in content]


def _part(item: ContentItem) -> dict[str, Any]:
    if item.type is Type.TEXT:
        return {"text": item.content}
    data = item.data
    if data is None and item.type in _PATHS:
        raise ConfigError(
            f"the file {(item.content or '')[:200]!r} of a message was not read: put its bytes into the item's binary "
            "field",
            path="messages.content",
        )
    if data is not None:
        return {"inlineData": {"mimeType": item.media_type or _USUAL.get(item.type, _BYTES), "data": _base64(data)}}
    place: dict[str, Any] = {"fileUri": item.content}
    if item.media_type is not None:
        place["mimeType"] = item.media_type
    return {"fileData": place}


_BYTES = "application/octet-stream"
_USUAL = {
    Type.IMAGE_BINARY: "image/png",
    Type.IMAGE_PATH: "image/png",
    Type.IMAGE_URL: "image/png",
    Type.DOCUMENT_BINARY: "application/pdf",
    Type.DOCUMENT_PATH: "application/pdf",
    Type.AUDIO_BINARY: "audio/wav",
    Type.AUDIO_PATH: "audio/wav",
}
"""What bytes are taken for when neither they nor their name tell."""


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _response(message: Message, names: dict[str, str], pending: list[ToolCall]) -> dict[str, Any]:
    """A tool message as ``functionResponse``. The call is found by its id, else it is the next one unanswered."""
    call_id = message.tool_call_id
    name = names.get(call_id or "") or message.name
    if name is None and pending and not call_id:
        name = pending[0].function.name
    if name is None:
        raise ConfigError(
            f"a tool message answers the call {call_id!r}, which no assistant message before it makes: Gemini needs "
            "the function's name (put it into the message's name)",
            path="messages.tool_call_id",
        )
    pending[:] = [call for call in pending if call.id != call_id] if call_id else pending[1:]
    response: dict[str, Any] = {"name": name, "response": _result(message)}
    if call_id:
        response["id"] = call_id
    media = [_part(item) for item in message.content_items if not item.is_text()]
    if media:
        response["parts"] = media
    return {"functionResponse": response}


def _result(message: Message) -> dict[str, Any]:
    """A tool's result as the object that it must be; what failed stands under the documented ``error``."""
    text = message.text
    try:
        value = msgspec.json.decode(text) if text[:1] in {"{", "["} else text
    except (msgspec.DecodeError, RecursionError):
        value = text
    if message.get("is_error"):
        return value if isinstance(value, dict) and "error" in value else {"error": value}
    return value if isinstance(value, dict) else {"output": value}


# -- what the model said -----------------------------------------------------------------------------------------------


def _model_parts(message: Message, *, signatures: bool) -> list[dict[str, Any]]:
    if isinstance(message.content, list):
        spoken = [_part(item) for item in message.content]
        text = "".join(part.get("text", "") for part in spoken)
        if any("text" not in part for part in spoken):  # written by hand: images of its own
            return [*spoken, *_calls(message, signatures=signatures)]
    else:
        text = message.content or ""
    return _replayed(text, message, _calls(message, signatures=signatures))


def _calls(message: Message, *, signatures: bool) -> list[dict[str, Any]]:
    parts = []
    for call in message.tool_calls or ():
        function: dict[str, Any] = {"name": call.function.name, "args": arguments_object(call.function.arguments)}
        if call.id:
            function["id"] = call.id
        part: dict[str, Any] = {"functionCall": function}
        signature = _signature(call)
        if signature is not None:
            part["thoughtSignature"] = signature
        parts.append(part)
    if signatures and parts and "thoughtSignature" not in parts[0]:  # only the first of a step carries one
        parts[0]["thoughtSignature"] = _FOREIGN
    return parts


def _signature(call: ToolCall) -> str | None:
    extra = (call.model_extra or {}).get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    found = google.get("thought_signature") if isinstance(google, dict) else None
    return found if isinstance(found, str) else None


def _replayed(text: str, message: Message, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Text and calls with everything that ``reasoning_details`` kept put back between them, in its order."""
    thought = message.reasoning_content or ""
    parts: list[dict[str, Any]] = []
    written = called = 0
    for detail in message.reasoning_details or ():
        if not isinstance(detail, dict) or detail.get("type") not in _KEPT:
            continue
        # A place beyond the end is the end: text that came in an object has become shorter (`wire.unwrapping`).
        at, length = min(_count(detail, "text_at"), len(text)), _count(detail, "length")
        if written < at:
            parts.append({"text": text[written:at]})
            written = at
        upto = min(_count(detail, "calls_at"), len(calls))
        parts.extend(calls[called:upto])
        called = max(called, upto)
        if detail["type"] == "google.part":
            if isinstance(detail.get("part"), dict):
                parts.append(detail["part"])
            continue
        signature = detail.get("signature")
        if detail["type"] == "google.thought_signature":
            start = _count(detail, "thought_at")
            parts.append({"text": thought[start : start + length], "thought": True, "thoughtSignature": signature})
        else:
            parts.append({"text": text[written : written + length], "thoughtSignature": signature})
            written = min(written + length, len(text))
    if written < len(text):
        parts.append({"text": text[written:]})
    return [*parts, *calls[called:]]


_KEPT = {"google.part", "google.text_signature", "google.thought_signature"}


def _count(detail: dict[str, Any], name: str) -> int:
    value = detail.get(name)
    return value if isinstance(value, int) and value >= 0 else 0
