"""What begins with a slash in a chat. Rule: a command is a method whose docstring is its help."""

from __future__ import annotations

import difflib
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from .. import ConfigError
from .exits import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from .session import Session


class Next(Enum):
    """What the chat does after a command."""

    READ = "read the next line"
    ASK = "ask the model again"
    LEAVE = "leave"


class Commands:
    """The commands of a chat.

    Args:
        session: what they change.
        switch: makes another model answer; gets ``provider:model`` or a model's name.
        describe: says which model answers.
        account: says what has been used.
    """

    def __init__(
        self,
        session: Session,
        switch: Callable[[str], None],
        describe: Callable[[], str],
        account: Callable[[], str],
    ) -> None:
        self._session = session
        self._switch = switch
        self._describe = describe
        self._account = account
        self._table = {
            name.removeprefix("do_"): getattr(self, name) for name in sorted(dir(self)) if name.startswith("do_")
        }

    def run(self, line: str) -> Next:
        """Run ``/name argument``. What goes wrong is said, and the chat goes on."""
        name, _, argument = line[1:].partition(" ")
        name = {"quit": "exit", "q": "exit", "new": "clear", "?": "help", "": "help"}.get(name, name)
        command = self._table.get(name)
        if command is None:
            near = difflib.get_close_matches(name, self._table, 1)
            hint = f"did you mean /{near[0]}?" if near else "/help lists the commands"
            say(f"there is no command /{name}; {hint} (a prompt that begins with a slash: put a space before it)")
            return Next.READ
        try:
            following: Next | None = command(argument.strip())
        except ConfigError as error:
            say(f"error: {error}")
            return Next.READ
        return following or Next.READ

    def do_help(self, _: str) -> None:
        """/help: this list."""
        for command in self._table.values():
            say(f"  {command.__doc__}")
        say('  A line ending with \\ goes on in the next; """ begins and ends a longer text.')
        say("  Ctrl-C stops an answer (its beginning stays, marked as interrupted); Ctrl-D leaves.")

    def do_exit(self, _: str) -> Next:
        """/exit (or /quit, Ctrl-D): leave."""
        return Next.LEAVE

    def do_clear(self, _: str) -> None:
        """/clear: forget the conversation; the system prompt stays."""
        self._session.clear()
        say("a new conversation")

    def do_system(self, text: str) -> None:
        """/system [TEXT | none]: show, set or remove the system prompt."""
        if text:
            self._session.system = None if text.lower() == "none" else text
        say(f"system prompt: {self._session.system or 'none'}")

    def do_history(self, _: str) -> None:
        """/history: the conversation so far."""
        for line in self._session.transcript() or ["nothing said yet"]:
            say(line)

    def do_save(self, path: str) -> None:
        """/save FILE: write the conversation as JSONL; /load or a batch can read it."""
        self._session.save(_path(path, "/save"))
        say(f"saved {len(self._session.messages)} messages to {path}")

    def do_load(self, path: str) -> None:
        """/load FILE: go on with a saved conversation."""
        self._session.load(_path(path, "/load"))
        say(f"loaded {len(self._session.messages)} messages; /history shows them")

    def do_retry(self, _: str) -> Next | None:
        """/retry: ask the last prompt again; its answer so far is forgotten."""
        if self._session.drop_answer():
            return Next.ASK
        say("there is no prompt to ask again")
        return None

    def do_undo(self, _: str) -> None:
        """/undo: forget the last prompt and its answer."""
        say("forgotten" if self._session.undo() else "there is nothing to forget")

    def do_image(self, source: str) -> None:
        """/image FILE-OR-URL: attach an image to the next prompt."""
        if not source:
            raise ConfigError("/image needs a path or a URL")
        self._session.images.append(source)
        say("it goes along with your next prompt")

    def do_model(self, name: str) -> None:
        """/model [PROVIDER:MODEL | MODEL]: show or change the model; the conversation stays."""
        if name:
            self._switch(name)
        say(self._describe())

    def do_usage(self, _: str) -> None:
        """/usage: tokens and times of this chat."""
        say(self._account())


def _path(text: str, command: str) -> Path:
    if not text:
        raise ConfigError(f"{command} needs a file name")
    return Path(text).expanduser()
