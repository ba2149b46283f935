"""Which words of a command line override the configuration. Rule: found before the options are parsed.

``--section.key value``, ``--section.key=value``, ``section.key=value`` and, where one section only has such a key,
``--key value`` may stand anywhere between the documented options. A flag without a value means true, where the key
takes that.
"""

from __future__ import annotations

import difflib
import re

from .. import ConfigError

# fmt: off
OPTIONS = frozenset({
    "--config", "--engine", "--model", "--seed", "--system-prompt", "--system_prompt", "--image",
    "--log-level", "--log_level", "--verbose", "--quiet", "--interactive", "--input_path", "--input-path",
    "--output_path", "--output-path", "--progress_path", "--progress-path", "--overwrite", "--strict",
    "--version", "--help", "--job", "--json", "--interval", "--timeout", "--partial",
    "--resume", "--max_rows", "--max-rows",
})
# fmt: on
"""The long options of all commands; a test compares them with what the commands say."""

_SECTIONS = ("model", "generation", "remote_params")
_TOP_LEVEL = ("engine", "input_path", "output_path", "progress_path")

_ASSIGNMENT = re.compile(rf"((?:{'|'.join(_SECTIONS)})[.\[][\w.\[\]-]*|(?:{'|'.join(_TOP_LEVEL)}))=")
_OPTION = re.compile(r"--?[A-Za-z]")
_ONE_DASH = re.compile(rf"-(?:{'|'.join(_SECTIONS)})[.\[]")
"""A key of the configuration after one dash. The guide writes ``-output_path``: one dash is enough for a long name."""


def split_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Take the overrides out of a command line.

    Returns:
        The other words, in order, and the overrides, each one word. After ``--`` nothing is an override.

    Raises:
        ConfigError: an option that looks like a misspelt documented one.
    """
    rest: list[str] = []
    overrides: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            return [*rest, word, *words[position:]], overrides
        if "-" + word.partition("=")[0] in OPTIONS or _ONE_DASH.match(word):
            word = "-" + word
        name, equals, _ = word.partition("=")
        if not (word.startswith("--") and name not in OPTIONS):
            (overrides if _ASSIGNMENT.match(word) else rest).append(word)
            continue
        if not re.search(r"[.\[]", name):
            _refuse_misspelt(name)
        if not equals:
            flag = position == len(words) or _OPTION.match(words[position])
            word += "" if flag else f"={words[position]}"
            position += not flag
        overrides.append(word)
    return rest, overrides


def _refuse_misspelt(name: str) -> None:
    near = difflib.get_close_matches(name, OPTIONS, 1, cutoff=0.75)
    if near:
        raise ConfigError(f"there is no option {name}; did you mean {near[0]}?", path=name)
