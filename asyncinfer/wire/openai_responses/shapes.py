"""The shapes of Responses events and items: which event says what of which kind of item, and what a failure means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..halves import mended
from ..lenient import parse_json
from ..status import error_from_object

if TYPE_CHECKING:
    from ...errors import AsyncInferError

CALLS = {"function_call", "custom_tool_call"}
"""Kinds of items that call a tool of the caller's."""
_OUR_FAULT = ("invalid_prompt", "invalid_image", "invalid_base64_image", "image_", "unsupported_image", "empty_image")
_POLICY = {"bio_policy", "misalignment_policy_violation", "data_residency_mismatch", "failed_to_download_image"}
PIECES = {
    "response.output_text.delta": "message",
    "response.output_text.done": "message",
    "response.refusal.delta": "message",
    "response.refusal.done": "message",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_text.done": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_summary_text.done": "reasoning",
    "response.reasoning_summary_part.added": "reasoning",
    "response.function_call_arguments.delta": "function_call",
    "response.function_call_arguments.done": "function_call",
    "response.custom_tool_call_input.delta": "custom_tool_call",
    "response.custom_tool_call_input.done": "custom_tool_call",
}
WHOLES = {
    "response.output_text.done": "text",
    "response.refusal.done": "refusal",
    "response.reasoning_text.done": "text",
    "response.reasoning_summary_text.done": "text",
    "response.function_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
}


def parse(data: bytes) -> Any:
    """JSON, with Python's tolerance. Raises `ProtocolError` for what is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return parse_json(data)


def failure(error: Any) -> AsyncInferError:
    """The typed error of a ``response.failed`` or of an ``error`` event."""
    error = error if isinstance(error, dict) else {"message": str(error)}
    said = {name: value for name, value in error.items() if name in {"message", "code", "param", "type"}}
    if said.get("type") == "error":
        del said["type"]
    code = said.get("code")
    ours = isinstance(code, str) and (code.startswith(_OUR_FAULT) or code in _POLICY)
    return error_from_object({"error": said} if said else {}, status=400 if ours else None)


def text_of(value: Any) -> str | None:
    """Text with whole characters, None for anything else."""
    return mended(value) if isinstance(value, str) else None


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a list, none of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def arguments_of(shape: dict[str, Any]) -> str:
    """What a call item has of its arguments."""
    value = shape.get("arguments") if shape.get("type") == "function_call" else shape.get("input")
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return mended(value) if isinstance(value, str) else ""


def extra(shape: dict[str, Any]) -> dict[str, Any] | None:
    """What must travel back with a call."""
    found = {"namespace": shape["namespace"]} if shape.get("namespace") is not None else {}
    if shape.get("type") == "custom_tool_call":
        found["type"] = "custom_tool_call"
    return found or None
