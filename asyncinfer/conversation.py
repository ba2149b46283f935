"""Conversations: what goes into a model and what comes out of it.

Rule: plain values that read and write JSON faithfully (see `documents`). Messages never change once made; answering a
conversation makes a new one (`Conversation.with_message`). Nothing here opens a file or a connection.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ConfigDict, Field, field_validator, model_validator

from .content import ContentItem, Type
from .documents import Document, Verbatim
from .media import sniff_media_type
from .tools import FunctionCall, FunctionDefinition, ToolCall, ToolDefinition, ToolResult

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ContentItem",
    "Conversation",
    "FunctionCall",
    "FunctionDefinition",
    "Message",
    "MessageContentItemCounts",
    "Role",
    "ToolCall",
    "ToolDefinition",
    "ToolResult",
    "Type",
    "sniff_media_type",
]


class Role(StrEnum):
    """Who speaks. OpenAI's ``developer`` reads as `SYSTEM`, and is written back as it was."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MessageContentItemCounts(NamedTuple):
    """How many pieces a message has."""

    total_items: int
    text_items: int
    image_items: int


class Message(Document):
    """One turn of a conversation. Immutable; unknown keys are kept.

    Attributes:
        role: who speaks.
        content: text, a list of pieces, or None for an assistant that only called tools or only reasoned.
        id: an id of the caller's own.
        name: the name of the speaker, where a provider knows such.
        tool_calls: calls that the assistant makes.
        tool_call_id: on a tool message, the call that it answers.
        reasoning_content: the model's reasoning as text, where the provider shows it.
        reasoning_details: the provider's structured reasoning (signatures, encrypted blocks), verbatim: some providers
            must get it back on the next turn.
    """

    model_config = ConfigDict(frozen=True)

    role: Role
    content: str | list[ContentItem] | None = None
    id: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning_details: list[Any] | None = None

    @classmethod
    def _read(cls, data: dict[str, Any]) -> tuple[dict[str, Any], Verbatim | None]:
        if data.get("role") == "developer":
            return {**data, "role": Role.SYSTEM}, {"role": "developer"}
        return data, None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.content is None and not (
            self.tool_calls
            or (self.role is Role.ASSISTANT and (self.reasoning_content or self.reasoning_details or self.model_extra))
        ):
            raise ValueError("'content' may only be missing or null where an assistant calls tools or reasons")
        return self

    def _keys_in_code(self, data: dict[str, Any]) -> tuple[str, ...]:
        # A turn that only calls tools says so with an explicit null: templates and servers look the key up.
        return tuple(key for key, value in data.items() if value is not None or key == "content") + (
            ("content",) if self.content is None and "content" not in data else ()
        )

    @property
    def text(self) -> str:
        """All text of the message, pieces joined by a space; ``""`` if there is none."""
        return self.compute_flattened_text_content()

    @property
    def content_items(self) -> list[ContentItem]:
        """The content as pieces; text content is one piece."""
        if self.content is None:
            return []
        return [ContentItem(type=Type.TEXT, content=self.content)] if isinstance(self.content, str) else [*self.content]

    @property
    def text_content_items(self) -> list[ContentItem]:
        """The pieces that are text."""
        return [item for item in self.content_items if item.is_text()]

    @property
    def image_content_items(self) -> list[ContentItem]:
        """The pieces that are images."""
        return [item for item in self.content_items if item.is_image()]

    def count_content_items(self) -> MessageContentItemCounts:
        """Number of pieces: all, text, images."""
        items = self.content_items
        texts = sum(item.is_text() for item in items)
        return MessageContentItemCounts(len(items), texts, sum(item.is_image() for item in items))

    def compute_flattened_text_content(self, separator: str = " ") -> str:
        """All text of the message, pieces joined by ``separator``."""
        if isinstance(self.content, str):
            return self.content
        return separator.join(item.content or "" for item in self.content or () if item.is_text())

    def contains_text(self) -> bool:
        """Whether any piece is text."""
        return self.count_content_items().text_items > 0

    def contains_images(self) -> bool:
        """Whether any piece is an image."""
        return self.count_content_items().image_items > 0

    def contains_text_content_items_only(self) -> bool:
        """Whether there are pieces, and all are text."""
        counts = self.count_content_items()
        return 0 < counts.text_items == counts.total_items

    def contains_image_content_items_only(self) -> bool:
        """Whether there are pieces, and all are images."""
        counts = self.count_content_items()
        return 0 < counts.image_items == counts.total_items

    def contains_single_text_content_item_only(self) -> bool:
        """Whether the message is one piece of text and nothing else."""
        counts = self.count_content_items()
        return counts.text_items == counts.total_items == 1

    def contains_single_image_content_item_only(self) -> bool:
        """Whether the message is one image and nothing else."""
        counts = self.count_content_items()
        return counts.image_items == counts.total_items == 1

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a field or unknown key, as in a dictionary."""
        if key in type(self).model_fields:
            value = getattr(self, key)
            return default if value is None else value
        return (self.model_extra or {}).get(key, default)


class Conversation(Document):
    """A list of messages, the tools offered in it, and what the caller wants to remember with it.

    Mutable for the caller; the package never changes one that it was given.

    Attributes:
        messages: the turns, oldest first.
        conversation_id: an id of the caller's own.
        metadata: JSON values of the caller's own; written whenever it is not empty.
        tools: what the model may call: definitions, OpenAI dictionaries or Python callables.
    """

    messages: list[Message]
    conversation_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    tools: list[ToolDefinition] | None = None

    @classmethod
    def _read(cls, data: dict[str, Any]) -> tuple[dict[str, Any], Verbatim | None]:
        if "metadata" in data and data["metadata"] is None:
            return {key: value for key, value in data.items() if key != "metadata"}, {"metadata": None}
        return data, None

    @field_validator("tools", mode="before")
    @classmethod
    def _define_tools(cls, tools: Any) -> Any:
        if isinstance(tools, (list, tuple)):
            return [ToolDefinition.from_callable(tool) if _is_function(tool) else tool for tool in tools]
        return tools

    def written_fields(self) -> dict[str, Any]:
        written = super().written_fields()
        if self.metadata:
            written["metadata"] = self.metadata
        for name in ("conversation_id", "tools"):  # assigned after construction
            value = getattr(self, name)
            if value is not None:
                written.setdefault(name, value)
                written[name] = value
        for key, value in (self.model_extra or {}).items():
            written.setdefault(key, value)
        return written

    def __getitem__(self, index: int) -> Message:
        """The message at ``index``."""
        return self.messages[index]

    def first_message(self, role: Role | None = None) -> Message | None:
        """The first message (of ``role``), or None."""
        return next((m for m in self.messages if role is None or m.role == role), None)

    def last_message(self, role: Role | None = None) -> Message | None:
        """The last message (of ``role``), or None."""
        return next((m for m in reversed(self.messages) if role is None or m.role == role), None)

    def filter_messages(
        self, role: Role | None = None, filter_fn: Callable[[Message], bool] | None = None
    ) -> list[Message]:
        """The messages of ``role`` (any, if None) for which ``filter_fn`` is true (all, if None)."""
        return [m for m in self.messages if (role is None or m.role == role) and (filter_fn is None or filter_fn(m))]

    def append_id_to_string(self, text: str) -> str:
        """``text`` with the conversation's id after it, where it has one: for logs and errors."""
        return f"{text} (conversation id: {self.conversation_id})" if self.conversation_id else text

    def with_message(self, message: Message) -> Conversation:
        """A new conversation with one more message. Messages are shared, this conversation stays as it is."""
        return self.model_copy(update={"messages": [*self.messages, message], "metadata": dict(self.metadata)})


def _is_function(tool: Any) -> bool:
    return callable(tool) and not isinstance(tool, (ToolDefinition, dict))
