"""vLLM's own parsers of answers, for models whose tool calls or reasoning are marked in a way of their own.

They are named by ``ModelParams.tool_call_parser`` and ``model_kwargs.reasoning_parser``. What is not named is read as
the usual markup, by `asyncinfer.engines.local.answer`.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...events import Event, ReasoningDelta, ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..local.ask import Ask

_log = logging.getLogger("asyncinfer")

_TAG = re.compile(r"<[^<>]*>")
"""Markup around calls and thoughts, which is there to be taken out."""


class Parsing:
    """How the answers to one request are read.

    Attributes:
        structured: ``StructuredOutputsParams`` that the parser asks for, or the request's own, or None.
        skip_special: whether special tokens are left out of the text; many parsers need to see theirs.
        tools, reasons: what the parser takes out of the text.
    """

    def __init__(self, new: Callable[[], Any], chat: Any, *, tools: bool, reasons: bool) -> None:
        self._new = new
        self._chat = new().adjust_request(chat)
        self.structured = self._chat.structured_outputs
        self.skip_special = bool(self._chat.skip_special_tokens)
        self.tools = tools
        self.reasons = reasons

    def begin(self) -> Parsed:
        """A parser for one answer."""
        return Parsed(self._new(), self._chat)


class Parsed:
    """One answer on its way through vLLM's parser.

    A model may write calls in another way than the parser reads them, and the parser then swallows what it takes for
    the beginning of one. Nothing of an answer is lost: what has not come out by its end comes out as it is.
    """

    def __init__(self, parser: Any, chat: Any) -> None:
        self._parser: Any = parser
        self._chat = chat
        self._numbers: dict[int, int] = {}
        self._read = self._shown = ""  # since the last thought or call

    @property
    def calls(self) -> int:
        """Tool calls so far."""
        return len(self._numbers)

    def feed(self, text: str, tokens: list[int], prompt: list[int], *, finished: bool) -> tuple[list[Event], str]:
        """The events of a piece of the answer, and the text in it that is neither reasoning nor a call."""
        if self._parser is None:
            return [], text
        self._read += text
        try:
            delta = self._parser.parse_delta(text, tokens, self._chat, prompt, finished=finished)
        except Exception:  # noqa: BLE001 -- the answer is paid for: shown as it is rather than lost
            _log.exception("vLLM's parser failed; the rest of the answer is shown as it is")
            self._parser = None
            return [], self._held()
        events: list[Event] = []
        content = (delta.content if delta is not None else None) or ""
        if delta is not None:
            events += self._structured(delta)
        if events:
            self._read = self._shown = content
        else:
            self._shown += content
        return events, content + self._lost() if finished else content

    def _structured(self, delta: Any) -> list[Event]:
        """Thoughts and calls in what the parser has found."""
        events: list[Event] = []
        if delta.reasoning:
            events.append(ReasoningDelta(delta.reasoning))
        for call in delta.tool_calls or ():
            number = self._numbers.setdefault(call.index, len(self._numbers))
            function = call.function
            name = (function.name if function is not None else None) or None
            arguments = (function.arguments if function is not None else None) or ""
            events.append(ToolCallDelta(number, id=call.id, name=name, arguments=arguments))
        return events

    def _held(self) -> str:
        return self._read.partition(self._shown)[2] if self._shown else self._read

    def _lost(self) -> str:
        """What the parser still holds at the end, if there is more to it than markup."""
        held = self._held()
        return held if any(letter.isalnum() for letter in _TAG.sub("", held)) else ""


def parsing(
    ask: Ask, *, tool_parser: str | None, reasoning_parser: str | None, llm: Any, shape: Any, variables: dict[str, Any]
) -> Parsing | None:
    """The parser of a request's answers; None if nothing is named for them.

    Args:
        ask: what is asked.
        tool_parser: vLLM's name; of no interest if no tools are offered.
        reasoning_parser: vLLM's name.
        llm: vLLM's ``AsyncLLM``.
        shape: ``StructuredOutputsParams`` of the request, or None.
        variables: of the chat template.

    Raises:
        ConfigError: vLLM has no parser of that name, or it cannot read this model.
    """
    if not ask.tools or ask.prompt is not None:
        tool_parser = None
    if ask.prompt is not None:
        reasoning_parser = None
    if not tool_parser and not reasoning_parser:
        return None
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    tokenizer = llm.get_tokenizer()
    # A call that must come must fit its schema too; in one that may come, the model is free, as it is without a parser.
    parser = _parser(tool_parser, reasoning_parser, tokenizer, "parameter" if ask.must_call else "auto")
    given: dict[str, Any] = {"messages": [{"role": "user", "content": ""}], "stream": True}
    if tool_parser:
        given.update(tools=ask.tools, tool_choice=_choice(ask))
    chat = ChatCompletionRequest(**given)
    chat.skip_special_tokens = ask.skip_special
    chat.structured_outputs = None if tool_parser and ask.must_call else shape
    new = partial(parser, tokenizer, chat.tools, chat_template_kwargs=variables, model_config=llm.model_config)
    return Parsing(new, chat, tools=bool(tool_parser), reasons=bool(reasoning_parser))


def _parser(tool_parser: str | None, reasoning_parser: str | None, tokenizer: Any, strict: str) -> Any:
    from vllm.parser.parser_manager import ParserManager

    try:
        return ParserManager.get_parser(
            tool_parser_name=tool_parser,
            reasoning_parser_name=reasoning_parser,
            enable_auto_tools=True,
            tool_strict_level=strict,
            tokenizer=tokenizer,
        )
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        named = " and ".join(name for name in (tool_parser, reasoning_parser) if name)
        path = "model.tool_call_parser" if tool_parser else "model.model_kwargs.reasoning_parser"
        raise ConfigError(f"vLLM cannot read answers with the parser {named}: {error}", path=path) from error


def _choice(ask: Ask) -> Any:
    assert ask.tools is not None
    if not ask.must_call:
        return "auto"
    if len(ask.tools) == 1:
        return {"type": "function", "function": {"name": ask.tools[0]["function"]["name"]}}
    return "required"
