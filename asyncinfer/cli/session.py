"""What a chat remembers. Rule: pure state; nothing here prints, asks a model or waits.

An answer that was stopped or broke off stays in the history, because the next turn refers to it, and is marked: in the
listing, and in a saved file under ``metadata.interrupted`` (positions of such messages).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .. import ConfigError, Conversation, Message, Role


@dataclass(slots=True)
class Session:
    """One conversation with a person.

    Attributes:
        system: the system prompt, or None.
        messages: the turns, without the system prompt.
        interrupted: positions in ``messages`` of answers that are not whole.
        images: what goes along with the next prompt: paths or URLs.
    """

    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    interrupted: set[int] = field(default_factory=set)
    images: list[str] = field(default_factory=list)

    def conversation(self) -> Conversation:
        """What a model is asked: everything so far."""
        system = [Message(role=Role.SYSTEM, content=self.system)] if self.system else []
        return Conversation(messages=[*system, *self.messages])

    def add(self, message: Message, *, interrupted: bool = False) -> None:
        """One more turn."""
        if interrupted:
            self.interrupted.add(len(self.messages))
        self.messages.append(message)

    def clear(self) -> None:
        """Forget the turns; the system prompt stays."""
        self.messages.clear()
        self.interrupted.clear()
        self.images.clear()

    def drop_answer(self) -> bool:
        """Forget what came after the last prompt of the user; False if there is no prompt."""
        last = max((n for n, message in enumerate(self.messages) if message.role is Role.USER), default=None)
        if last is None:
            return False
        self._cut(last + 1)
        return True

    def undo(self) -> bool:
        """Forget the last prompt and its answer; False if there is none."""
        found = self.drop_answer()
        if found:
            self._cut(len(self.messages) - 1)
        return found

    def _cut(self, length: int) -> None:
        del self.messages[length:]
        self.interrupted = {position for position in self.interrupted if position < length}

    def transcript(self) -> list[str]:
        """The turns as lines for a person."""
        lines = [f"system: {self.system}"] if self.system else []
        for position, message in enumerate(self.messages):
            mark = " [interrupted]" if position in self.interrupted else ""
            images = "[image] " * len(message.image_content_items)
            lines.append(f"{message.role}{mark}: {images}{message.text}")
        return lines

    def save(self, path: Path) -> None:
        """Write the conversation as one line of JSONL, whole or not at all. Raises `ConfigError`."""
        conversation = self.conversation()
        if self.interrupted:
            shift = 1 if self.system else 0
            conversation.metadata["interrupted"] = sorted(position + shift for position in self.interrupted)
        fresh = path.with_name(f".{path.name}.new")
        try:
            fresh.write_text(conversation.to_json() + "\n", encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error

    def load(self, path: Path) -> None:
        """Go on with a saved conversation (the first row of the file). Raises `ConfigError`."""
        try:
            with path.open(encoding="utf-8-sig") as file:
                line = next((line for line in file if line.strip()), None)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8") from error
        if line is None:
            raise ConfigError(f"{path} holds no conversation")
        conversation = Conversation.from_json(line)
        messages = list(conversation.messages)
        shift = 0
        self.system = None
        if messages and messages[0].role is Role.SYSTEM:
            self.system = messages.pop(0).text
            shift = 1
        marked = conversation.metadata.get("interrupted")
        self.messages = messages
        self.interrupted = {n - shift for n in marked if isinstance(n, int)} if isinstance(marked, list) else set()
        self.images.clear()
