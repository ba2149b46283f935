"""From a `Request` to the JSON body of ``/generate``.

The prompt is in the request's ``extra_body`` (``input_ids`` or ``text``): the caller put it there, or
`engines.prompting` did. Rule: as for Chat Completions, only what somebody set is sent; what the dialect has no name for
is left out and named by `unsupported`.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

import msgspec

from ...conversation import ContentItem, Type
from ...errors import ConfigError, UnsupportedParameterError
from ..asking import JSON_HEADERS, put
from ..openai_chat.encode import unsupported
from ..protocol import WireRequest
from ..shapes import alternatives, shape_kind
from .prompt import PROMPTS

if TYPE_CHECKING:
    from ...dialect import Dialect
    from ...request import Request

_IMAGES = {Type.IMAGE_PATH, Type.IMAGE_URL, Type.IMAGE_BINARY}
_AUDIO = {Type.AUDIO_PATH, Type.AUDIO_BINARY}
_FLAGS = {"logprobs", "top_logprobs"}

__all__ = ["encode_request", "request_body", "unsupported"]


def encode_request(request: Request, dialect: Dialect) -> WireRequest:
    """The HTTP request that asks for an answer.

    Raises:
        ConfigError: there is no prompt, or the format cannot say it (tools, documents).
    """
    return WireRequest(dialect.path, msgspec.json.encode(request_body(request, dialect)), dict(JSON_HEADERS))


def request_body(request: Request, dialect: Dialect) -> dict[str, Any]:
    """The body as a dictionary; ``extra_body`` has the last word, its ``sampling_params`` on each of them."""
    if request.tools and request.asked("tool_choice") != "none":
        raise ConfigError(
            "SGLang's /generate answers with plain text and cannot call tools; set remote_params.api_url to the "
            "server's /v1/chat/completions for that",
            path="tools",
        )
    # Unless told, the server would stop at 128 tokens; null is as much as the context holds.
    body: dict[str, Any] = {"sampling_params": {"max_new_tokens": None}}
    if request.stream:
        body["stream"] = True
    if request.model.adapter_model is not None and dialect.adapter_field is not None:
        body[dialect.adapter_field] = request.model.adapter_model
    _put_media(body, request)
    _put_params(body, request, dialect)
    _put_guided(body, request, dialect)
    extra = dict(request.asked("extra_body") or {})
    sampling = extra.pop("sampling_params", None)
    body.update(extra)
    if isinstance(sampling, dict):
        body["sampling_params"].update(sampling)
    if not PROMPTS & body.keys():
        raise ConfigError(
            "/generate takes a prompt, not messages, and none was made of this conversation: give extra_body.text or "
            "extra_body.input_ids",
            path="generation.extra_body",
        )
    return body


def _put_params(body: dict[str, Any], request: Request, dialect: Dialect) -> None:
    for name, wire in dialect.fields.items():
        value = request.asked(name)
        if value is None or name in _FLAGS or (name in {"stop_strings", "stop_token_ids", "logit_bias"} and not value):
            continue
        if name == "top_k" and value == 0:
            value = -1  # zero means all of them here, and is an error there
        elif name == "logit_bias":
            value = {str(token): bias for token, bias in value.items()}
        put(body, wire, value)
    top = request.asked("top_logprobs")
    if request.asked("logprobs") or (top is not None and "logprobs" not in request.chosen):
        body["return_logprob"] = True
        body["return_text_in_logprobs"] = True
        if top:
            body["top_logprobs_num"] = top


def _put_guided(body: dict[str, Any], request: Request, dialect: Dialect) -> None:
    guided = request.asked("guided_decoding")
    kind = None if guided is None else shape_kind(guided)
    if kind is None:
        return
    place = dialect.guided.get(kind)
    if place is None:
        raise UnsupportedParameterError(
            f"this server cannot guide an answer by {kind}; it knows: {', '.join(dialect.guided) or 'none'}",
            path=f"generation.guided_decoding.{kind}",
        )
    if kind == "json":
        value: Any = msgspec.json.encode(guided.json_schema()).decode()
    else:
        value = alternatives(guided.choice) if kind == "choice" else getattr(guided, kind)
    put(body, place, value)


# -- images and the like -----------------------------------------------------------------------------------------------


def _put_media(body: dict[str, Any], request: Request) -> None:
    """Images, sounds and videos in the order in which the prompt has their places."""
    found: dict[str, list[str]] = {}
    for message in request.conversation.messages:
        if isinstance(message.content, list):
            for item in message.content:
                if item.type is not Type.TEXT:
                    found.setdefault(_field(item), []).append(_address(item))
    for name, items in found.items():
        body[name] = items[0] if len(items) == 1 else items


def _field(item: ContentItem) -> str:
    if item.type in _IMAGES:
        return "image_data"
    if item.type in _AUDIO:
        return "audio_data"
    if item.type is Type.VIDEO_URL:
        return "video_data"
    raise ConfigError(f"SGLang's /generate takes no {item.type.value} items", path="messages.content")


def _address(item: ContentItem) -> str:
    """A data URI where the bytes are at hand, else the URL. A path never: it would name a file of the server's."""
    if item.binary is not None:
        encoded = b2a_base64(item.binary, newline=False).decode("ascii")
        return f"data:{item.media_type or 'application/octet-stream'};base64,{encoded}"
    url = item.content or ""
    if item.type in {Type.IMAGE_PATH, Type.AUDIO_PATH} or not url.lower().startswith(("http://", "https://", "data:")):
        raise ConfigError(
            f"the file {url[:200]!r} of a message was not read: put its bytes into the item's binary field",
            path="messages.content",
        )
    return url
