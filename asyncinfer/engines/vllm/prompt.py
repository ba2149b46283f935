"""From a request to what vLLM takes in: its own renderer applies the template, cuts tokens and reads the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync

from ...errors import ConfigError
from ..local.answer import THINK_CLOSE, THINK_OPEN
from .failures import too_long

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..local.ask import Ask

_SHORT = 4096
"""Characters of text up to which a conversation is rendered at once: vLLM's way over its threads takes twice as long,
and this way holds up other answers for less than a millisecond."""

_LAST = 8
"""Tokens at the end of a prompt that are looked at for an open thought."""


@dataclass(slots=True)
class Rendered:
    """A prompt in vLLM's form.

    Attributes:
        inputs: for ``AsyncLLM.generate``.
        tokens: its token ids.
        thinks: the template knows of thinking; ``thinking``: the prompt has opened a thought.
    """

    inputs: Any
    tokens: list[int]
    thinks: bool = False
    thinking: bool = False


class Prompts:
    """Renders the prompts of one loaded engine.

    Args:
        llm: vLLM's ``AsyncLLM``.
    """

    def __init__(self, llm: Any) -> None:
        self._renderer = llm.renderer
        self._config = llm.model_config

    async def render(self, ask: Ask, template: str | None, variables: dict[str, Any]) -> Rendered:
        """The prompt of one request.

        Args:
            ask: what is asked.
            template: chat template in place of the model's own.
            variables: for the template.

        Raises:
            ContextLengthError: it leaves no room for an answer.
            ConfigError: an image cannot be read.
        """
        path = "messages.content" if ask.prompt is None else "prompt"
        images = await run_sync(_open, ask.images, path) if ask.images else []
        if ask.prompt is None:
            rendered = await self._conversation(ask, images, template, variables)
        else:
            rendered = await self._bare(ask.prompt, images)
        if len(rendered.tokens) >= self._config.max_model_len:
            raise too_long(len(rendered.tokens), self._config.max_model_len)
        return rendered

    async def _conversation(
        self, ask: Ask, images: list[Any], template: str | None, variables: dict[str, Any]
    ) -> Rendered:
        from vllm.renderers.params import ChatParams
        from vllm.utils.mistral import is_mistral_tokenizer

        tokenizer = self._renderer.get_tokenizer()
        given = {
            "add_generation_prompt": True,
            "tools": ask.tools,
            "tokenize": is_mistral_tokenizer(tokenizer),
            **variables,
        }
        conversation = _with_images(ask.messages, images)
        params = ChatParams(chat_template=template, chat_template_kwargs=given)
        cut = replace(self._renderer.default_chat_tok_params, max_total_tokens=None)
        if _is_short(ask, conversation):
            _, (inputs,) = self._renderer.render_chat([conversation], params, cut)
        else:
            _, (inputs,) = await self._renderer.render_chat_async([conversation], params, cut)
        tokens = list(inputs["prompt_token_ids"])
        source = template or getattr(tokenizer, "chat_template", None)
        thinks = isinstance(source, str) and THINK_CLOSE in source
        thinking = thinks and tokenizer.decode(tokens[-_LAST:]).rstrip().endswith(THINK_OPEN)
        return Rendered(inputs, tokens, thinks=thinks, thinking=thinking)

    async def _bare(self, prompt: str | list[int], images: list[Any]) -> Rendered:
        given: dict[str, Any]
        if isinstance(prompt, str):
            given = {"prompt": self._placed(prompt, len(images))}
        else:
            given = {"prompt_token_ids": prompt}
        if images:
            given["multi_modal_data"] = {"image": images}
        (inputs,) = await self._renderer.render_cmpl_async(
            [given], replace(self._renderer.default_cmpl_tok_params, max_total_tokens=None)
        )
        return Rendered(inputs, list(inputs["prompt_token_ids"]))

    def _placed(self, text: str, images: int) -> str:
        """The text with a place for each image; before it, where it has none."""
        if not images:
            return text
        from vllm.model_executor.model_loader import get_model_cls

        places = [get_model_cls(self._config).get_placeholder_str("image", at + 1) for at in range(images)]
        if any(place is None or place in text for place in places):
            return text
        return "\n".join([*places, text])


def _is_short(ask: Ask, conversation: list[dict[str, Any]]) -> bool:
    return not (ask.images or ask.tools) and sum(len(message["content"]) for message in conversation) <= _SHORT


def _with_images(messages: Sequence[dict[str, Any]], images: list[Any]) -> list[dict[str, Any]]:
    """The messages as vLLM reads them: pictures in their places, reasoning under its name."""
    left = iter(images)
    out = []
    for message in messages:
        changed = dict(message)
        if isinstance(message["content"], list):
            changed["content"] = [
                {"type": "image_pil", "image_pil": next(left)} if part["type"] == "image" else part
                for part in message["content"]
            ]
        if "reasoning_content" in changed:
            changed["reasoning"] = changed["reasoning_content"]
        out.append(changed)
    return out


def _open(images: list[bytes], path: str) -> list[Any]:
    from PIL import Image, UnidentifiedImageError

    opened = []
    for number, data in enumerate(images, 1):
        try:
            with Image.open(BytesIO(data)) as image:
                opened.append(image.convert("RGB"))
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ConfigError(f"image {number} of {path} cannot be read: {error}", path=path) from error
    return opened
