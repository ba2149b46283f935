"""A prompt as it goes into a model: text or tokens that pass no chat template, with images where the model can see.

Rule: a value, checked where it is made. Nothing here opens a file or a connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any, Self

from .errors import ConfigError

if TYPE_CHECKING:
    from .conversation import Conversation

_KNOWN = {"prompt", "prompt_token_ids", "multi_modal_data"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model completes, word for word. Any engine that runs in your process takes one in a conversation's place.

    Markup of special tokens in the text (``"<|im_start|>"``) means these tokens; a model that wants a first token gets
    it. The answer is plain text: marks of thinking and of tool calls stay in it.

    Attributes:
        text: the text; None if there are ``token_ids``.
        token_ids: the tokens, exactly as the model is to see them; None if there is text.
        images: encoded images (PNG, JPEG ...), in the order of their places in the text. Where the text has no places
            for them, they stand before it.

    Raises:
        ConfigError: no text and no tokens, both, or something else in their place.
    """

    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    images: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if (self.text is None) == (self.token_ids is None):
            raise ConfigError("a prompt is either text or token ids", path="prompt")
        if self.text is not None:
            _check_text(self.text)
        else:
            object.__setattr__(self, "token_ids", _checked(self.token_ids))
        object.__setattr__(self, "images", tuple(_encoded(image) for image in self.images))

    @classmethod
    def of(cls, value: Any) -> Self:
        """A prompt from what vLLM takes for one.

        Args:
            value: a `Prompt`; text; a list of token ids; or a mapping with ``"prompt"`` or ``"prompt_token_ids"`` and,
                optionally, ``"multi_modal_data": {"image": one or a list}``. An image is encoded bytes or a
                ``PIL.Image.Image``.

        Raises:
            ConfigError: it is none of these, or names what is not known here.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(text=value)
        if isinstance(value, Mapping):
            return cls._of_mapping(value)
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            return cls(token_ids=tuple(value))
        raise ConfigError(
            "a prompt is text, a list of token ids or a mapping with 'prompt' or 'prompt_token_ids', "
            f"not {type(value).__name__}",
            path="prompt",
        )

    @classmethod
    def _of_mapping(cls, value: Mapping[str, Any]) -> Self:
        unknown = sorted(str(key) for key, item in value.items() if key not in _KNOWN and item is not None)
        if unknown:
            raise ConfigError(
                f"a prompt has no {', '.join(unknown)}; it has {', '.join(sorted(_KNOWN))}", path=f"prompt.{unknown[0]}"
            )
        media = value.get("multi_modal_data") or {}
        if not isinstance(media, Mapping) or any(kind != "image" for kind in media):
            raise ConfigError(
                "prompt.multi_modal_data holds images only: {'image': image} or {'image': [image, ...]}",
                path="prompt.multi_modal_data",
            )
        images = media.get("image")
        if images is None:
            images = ()
        elif not isinstance(images, (list, tuple)):
            images = (images,)
        tokens = value.get("prompt_token_ids")
        text = None if tokens is not None else value.get("prompt")  # vLLM too lets the tokens decide
        return cls(text=text, token_ids=tokens, images=tuple(images))

    def conversation(self) -> Conversation:
        """The prompt as one user message: what `Completion.conversation` begins with."""
        from .conversation import ContentItem, Conversation, Message, Role, Type

        if not self.images:
            return Conversation(messages=[Message(role=Role.USER, content=self.text or "")])
        items = [ContentItem(type=Type.IMAGE_BINARY, binary=image) for image in self.images]
        items.append(ContentItem(type=Type.TEXT, content=self.text or ""))
        return Conversation(messages=[Message(role=Role.USER, content=items)])


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise ConfigError(f"a prompt's text is a string, not {type(text).__name__}", path="prompt")
    if not text:
        raise ConfigError("the prompt is empty; a model needs at least one token to begin with", path="prompt")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the prompt holds half a surrogate pair at character {error.start}, which is no text", path="prompt"
        ) from None


def _checked(tokens: Any) -> tuple[int, ...]:
    try:
        found = () if isinstance(tokens, (str, bytes)) else tuple(index(token) for token in tokens)  # numpy's too
    except TypeError:
        found = ()
    if not found or min(found) < 0:
        raise ConfigError(
            "prompt_token_ids is a list of token ids, at least one, each a whole number from 0", path="prompt_token_ids"
        )
    return found


def _encoded(image: Any) -> bytes:
    """An image as bytes; one of PIL's is written as PNG, which loses nothing."""
    if isinstance(image, (bytes, bytearray)):
        if not image:
            raise ConfigError("an image of the prompt has no bytes", path="prompt.multi_modal_data.image")
        return bytes(image)
    if not (hasattr(image, "save") and hasattr(image, "mode")):
        raise ConfigError(
            f"an image of a prompt is a PIL.Image.Image or encoded bytes, not {type(image).__name__}",
            path="prompt.multi_modal_data.image",
        )
    from io import BytesIO

    if image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"}:  # what PNG knows
        image = image.convert("RGB")
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
