"""Which chat template is used: the one that a user names, the model's own, or the usual one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ...errors import ConfigError

_log = logging.getLogger("asyncinfer")

_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For models that bring no chat template of their own."""


def template(given: str | None) -> str | None:
    """A chat template, given as Jinja source or as the name of a file with it.

    Raises:
        ConfigError: a file is named that is not there, or cannot be read.
    """
    if not given or "{" in given:
        return given
    try:
        return Path(given).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"model.chat_template is {given!r}: no Jinja source, which has braces, and no file with one ({why})",
            path="model.chat_template",
        ) from error


def chosen(given: str | None, own: Any, model: str) -> Any:
    """The template to use.

    Args:
        given: Jinja source that a user wants used.
        own: what the model brings along: Jinja source, for some tokenizers several by name; None for none.
        model: its name, for the warning that a model without a template of its own gets ChatML.
    """
    if given or own:
        return given or own
    _log.warning("%s has no chat template; ChatML is used", model)
    return _CHATML
