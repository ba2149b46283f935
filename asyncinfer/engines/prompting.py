"""From a conversation to a finished prompt, for formats that take no messages (`Provider.takes_prompt`).

Whose chat template is applied, in this order: the caller's own prompt (``extra_body.text``, ``input_ids``), the
template that ``ModelParams.chat_template`` gives, the server's, that of a tokenizer's folder on this machine. Where
there is none of them the error says what else can be done: a guessed template would give worse answers and no error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import APIError, ConfigError

if TYPE_CHECKING:
    from ..request import Request
    from ..transport.protocol import Transport
    from .endpoint import Endpoint

_CANNOT = {400, 404, 405, 422, 501}
"""Statuses of a server that has no such endpoint, or takes only text there."""
_MAX_BYTES = 64 << 20


async def with_prompt(transport: Transport, endpoint: Endpoint, request: Request) -> Request:
    """The same request with its prompt in ``extra_body``.

    Raises:
        ConfigError: no template is to be had, or the template refuses the conversation.
        APIError, TransportError: the server that was asked for the prompt answered with an error.
    """
    from anyio import to_thread

    from ..wire.sglang.prompt import PROMPTS
    from .template import folder_template, render

    extra = request.asked("extra_body") or {}
    if PROMPTS & extra.keys():
        return request
    prompt: dict[str, Any]
    if request.model.chat_template is not None:
        prompt = {"text": await to_thread.run_sync(render, request, request.model.chat_template)}
    else:
        try:
            prompt = {"input_ids": await _ask_server(transport, endpoint, request)}
        except ConfigError:
            template = await to_thread.run_sync(folder_template, request)
            if template is None:
                raise
            prompt = {"text": await to_thread.run_sync(render, request, template)}
    generation = request.generation.model_copy(update={"extra_body": {**extra, **prompt}})
    return replace(request, generation=generation, chosen=request.chosen | {"extra_body"})


async def _ask_server(transport: Transport, endpoint: Endpoint, request: Request) -> list[int]:
    from ..wire.sglang.prompt import ask_tokens, read_tokens
    from .exchange import read_all

    wire = ask_tokens(request)
    exchange = await transport.open(
        wire.method,
        endpoint.urls.join(wire.path),
        endpoint.headers.plus(wire.headers),
        wire.body,
        connect_timeout=request.timeouts.connect,
    )
    try:
        body = await read_all(exchange, _MAX_BYTES)
        if exchange.status >= 400:
            raise _refused(endpoint, endpoint.codec.error(exchange.status, exchange.headers, body))
        tokens = read_tokens(body)
        await exchange.aclose()
    finally:
        exchange.abort()
    return tokens


def _refused(endpoint: Endpoint, error: Exception) -> Exception:
    """A server that cannot do it is no reason to try again, and the caller can do something about it."""
    if not isinstance(error, APIError):
        return error
    endpoint.blamed(error)
    if error.status not in _CANNOT:
        return error
    return ConfigError(
        f"the server did not turn the conversation into a prompt ({error.message.rstrip('.')}): set "
        "remote_params.api_url to its /v1/chat/completions, or model.chat_template to the model's chat template (or "
        "model.tokenizer_name to a folder that has it)",
        path="remote_params.api_url",
        provider=endpoint.name,
        status=error.status,
    )
