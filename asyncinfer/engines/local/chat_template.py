"""The chat template that a user names in place of the model's own."""

from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError


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
