"""A chat template in Jinja, applied to a conversation as the Hugging Face libraries do.

The environment is sandboxed: a template is a program that often comes from elsewhere. Variables: ``messages``,
``tools``, ``add_generation_prompt``, the special tokens of the tokenizer (``bos_token`` ...) where ``tokenizer_name``
is a folder that says them, and ``ModelParams.chat_template_kwargs``, which go before all others.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from ..request import Request

_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def render(request: Request, source: str) -> str:
    """The prompt that a template (Jinja, or the name of a file) makes. Reads files: not for an event loop.

    Raises:
        ConfigError: the template is no Jinja, or refuses the conversation.
        MissingDependencyError: jinja2 is not installed.
    """
    from ..wire.sglang.prompt import template_messages

    model = request.model
    template = _compiled(_source(source))
    variables: dict[str, Any] = {
        **_special_tokens(model.tokenizer_name or model.model_name),
        "messages": [_as_templates_read(message) for message in template_messages(request)],
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        **(model.chat_template_kwargs or {}),
    }
    try:
        return str(template.render(**variables))
    except Exception as error:
        raise ConfigError(
            f"model.chat_template cannot write this conversation: {error}", path="model.chat_template"
        ) from error


def _as_templates_read(message: dict[str, Any]) -> dict[str, Any]:
    """Images are parts without data, arguments of calls are objects."""
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        parts = [{"type": "image"} if part.get("type") == "image_url" else part for part in content]
        message = {**message, "content": parts}
    if calls:
        message = {**message, "tool_calls": [{**call, "function": _opened(call["function"])} for call in calls]}
    return message


def _opened(function: dict[str, Any]) -> dict[str, Any]:
    try:
        return {**function, "arguments": json.loads(function["arguments"])}
    except ValueError:
        return function


def _source(given: str) -> str:
    """Jinja source, given as such or as the name of a file."""
    if "{" in given:
        return given
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"model.chat_template: {given[:200]!r} is neither a Jinja template nor the name of a file with one",
            path="model.chat_template",
        ) from error


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingDependencyError("applying model.chat_template needs jinja2: pip install jinja2") from error

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = _now
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ConfigError(f"model.chat_template is no Jinja template: {error}", path="model.chat_template") from error


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """JSON as models have seen it: not escaped for HTML, as Jinja's own filter does."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _now(form: str) -> str:
    from datetime import datetime

    return datetime.now().astimezone().strftime(form)


def folder_template(request: Request) -> str | None:
    """The chat template in the folder of the model's tokenizer, where that is on this machine. Reads files."""
    folder = request.model.tokenizer_name or request.model.model_name
    if not folder or not Path(folder).expanduser().is_dir():
        return None
    file = Path(folder).expanduser() / "chat_template.jinja"
    if file.is_file():
        return str(file)
    try:
        found = json.loads((file.parent / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


@lru_cache(maxsize=16)
def _special_tokens(folder: str | None) -> dict[str, str]:
    if not folder:
        return {}
    try:
        config = json.loads((Path(folder).expanduser() / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found: dict[str, str] = {}
    for name in _TOKENS:
        token = config.get(name) if isinstance(config, dict) else None
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            found[name] = token
    return found
