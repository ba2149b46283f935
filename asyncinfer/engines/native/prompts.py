"""Requests as the model takes them: the chat template, tokens, images."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ...errors import BadRequestError, ConfigError, ContextLengthError, MissingDependencyError
from ..local.answer import THINK_CLOSE, THINK_OPEN
from ..local.ask import Ask
from ..local.chat_template import chosen
from ..local.messages import for_templates
from .row import Prepared

if TYPE_CHECKING:
    from .loading import Loaded
    from .settings import Settings


class Prompts:
    """The template and tokenizer of one model; used by one thread at a time.

    Args:
        loaded: the model.
        settings: how it was loaded.
    """

    def __init__(self, loaded: Loaded, settings: Settings) -> None:
        self._loaded = loaded
        self._tokenizer = loaded.tokenizer
        self._words: Any = loaded.processor if loaded.processor is not None else loaded.tokenizer
        own = getattr(self._words, "chat_template", None) or getattr(self._tokenizer, "chat_template", None)
        self._template: Any = chosen(settings.chat_template, own, settings.model)
        self.room = loaded.context

    def prepare(self, ask: Ask) -> Prepared:
        """A request's prompt.

        Raises:
            BadRequestError: the template refuses the conversation.
            ContextLengthError: it is longer than the context.
            ConfigError: it has tokens that the model does not know, or images it cannot read.
        """
        thinks, text = False, ""
        if isinstance(ask.prompt, list):
            tokens = self._checked(ask.prompt)
            inputs = None
        else:
            bare = isinstance(ask.prompt, str)
            text = ask.prompt if isinstance(ask.prompt, str) else self._render(ask)
            # An answer whose shape is prescribed begins with it, and has no thought in it that could end.
            thinks = not bare and ask.free and THINK_CLOSE in str(self._template)
            tokens, inputs = self._tokenize(text, ask, bare=bare)
        room = self.room if self._loaded.model.config.is_encoder_decoder else self.room - len(tokens)
        if room < 1 or not tokens:
            raise ContextLengthError(
                f"the prompt has {len(tokens)} tokens and the context of one conversation is {self.room} "
                "(model.model_max_length)"
            )
        return Prepared(
            tokens=tokens,
            limit=room if ask.max_tokens is None else min(room, ask.max_tokens),
            text=self._tokenizer.decode(tokens, skip_special_tokens=ask.skip_special),
            inputs=inputs,
            thinks=thinks,
            thinking=thinks and text.rstrip().endswith(THINK_OPEN),
        )

    def _render(self, ask: Ask) -> str:
        messages = for_templates(ask.messages)
        if self._loaded.processor is not None:  # such templates want every content as a list of parts
            messages = [{**message, "content": _parts(message["content"])} for message in messages]
        try:
            text = self._words.apply_chat_template(
                messages,
                tools=ask.tools,
                chat_template=self._template if isinstance(self._template, str) else None,
                tokenize=False,
                **{"add_generation_prompt": True, **ask.template_kwargs},
            )
        except Exception as error:
            raise BadRequestError(f"the model's chat template refuses the conversation: {error}") from error
        return str(text)

    def _tokenize(self, text: str, ask: Ask, *, bare: bool) -> tuple[list[int], dict[str, Any] | None]:
        # A template writes the first token itself; a bare prompt gets it from the tokenizer, unless it has it already.
        first = self._tokenizer.bos_token
        special = bare and not (first and text.startswith(first))
        if self._loaded.processor is None:
            special = special or bool(self._loaded.model.config.is_encoder_decoder)
            return list(self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]), None
        images = [_image(data, "prompt" if bare else "messages.content") for data in ask.images]
        if bare and images and not self._has_places(text):
            text = self._places(len(images)) + text
        try:
            given = self._words(
                text=[text], images=images or None, add_special_tokens=special, return_tensors="pt", padding=True
            )
        except (ValueError, TypeError, IndexError) as error:
            raise BadRequestError(f"the model's processor refuses the prompt and its images: {error}") from error
        # Processors also tell what no model takes: names of files, sizes as plain lists.
        inputs = {name: value for name, value in given.items() if hasattr(value, "dim")}
        return inputs["input_ids"][0].tolist(), inputs

    def _has_places(self, text: str) -> bool:
        """Whether a bare prompt says where its images stand."""
        place = getattr(self._loaded.processor, "image_token", None) or self._places(1).strip()
        return bool(place) and place in text

    def _places(self, images: int) -> str:
        """What the model's template writes for so many images: what it writes more than for the text alone."""
        mark = "@@@"
        text = {"type": "text", "text": mark}
        parts = [{"type": "image"}] * images
        with_images = self._render(Ask(messages=[{"role": "user", "content": [*parts, text]}])).partition(mark)[0]
        without = self._render(Ask(messages=[{"role": "user", "content": [text]}])).partition(mark)[0]
        if with_images.startswith(without):
            return with_images.removeprefix(without)
        return str(getattr(self._loaded.processor, "image_token", "")) * images

    def _checked(self, tokens: list[int]) -> list[int]:
        strange = [token for token in tokens if token >= self._loaded.size]
        if strange:
            raise ConfigError(
                f"prompt_token_ids holds {strange[0]}, and this model knows tokens up to {self._loaded.size - 1}",
                path="prompt_token_ids",
            )
        return tokens


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _image(data: bytes, path: str) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError("images need Pillow: pip install 'asyncinfer[native]'") from error
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise ConfigError(f"{path} holds an image that cannot be read: {error}", path=path) from error
