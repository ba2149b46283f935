"""A request as plain values, the same for both bindings: messages for the chat template, sampling, limits, grammar."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, UnsupportedParameterError
from .grammar import from_choice, from_regex

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...conversation import ContentItem, Message
    from ...request import Request

SUPPORTED = frozenset(
    {
        "max_new_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop_strings",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "guided_decoding",
        "tool_choice",
    }
)
"""`GenerationParams` fields that both bindings honour."""


@dataclass(slots=True)
class Ask:
    """What a binding needs to know of one request.

    Attributes:
        messages: for the chat template, in the OpenAI shape.
        tools: offered tools in the OpenAI shape, or None.
        must_call: the model has to call one of ``tools``.
        max_tokens: the most tokens to generate; None for the rest of the context.
        temperature: 0 picks the likeliest token each time.
        top_k: 0 for off; ``top_p`` 1 for off; ``min_p`` 0 for off.
        seed: of the sampler; None for a random one.
        stop: strings that end the answer.
        logit_bias: token id -> what is added to its logit.
        logprobs: number of alternatives to report for each token (0: only its own), or None.
        schema: JSON schema the answer must follow, or None.
        grammar: GBNF grammar the answer must follow, or None.
        template_kwargs: further variables of the chat template.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    must_call: bool = False
    max_tokens: int | None = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: dict[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    schema: Any = None
    grammar: str | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)


def read(request: Request) -> Ask:
    """The plain values of a request.

    Raises:
        ConfigError: a parameter has a value that llama.cpp cannot work with.
        UnsupportedParameterError: several answers (``n``) were asked for.
    """
    asked = request.generation
    if (getattr(asked, "n", None) or 1) > 1:
        raise UnsupportedParameterError(
            "llama.cpp makes one answer for each call; ask n times instead of setting n", path="generation.n"
        )
    ask = Ask(
        messages=[_message(message, at) for at, message in enumerate(request.conversation.messages)],
        max_tokens=asked.max_new_tokens,
        temperature=float(asked.temperature or 0.0),
        top_k=max(0, _value(asked, "top_k", 0)),
        top_p=_value(asked, "top_p", 1.0),
        min_p=_value(asked, "min_p", 0.0),
        frequency_penalty=_value(asked, "frequency_penalty", 0.0),
        presence_penalty=_value(asked, "presence_penalty", 0.0),
        repetition_penalty=_value(asked, "repetition_penalty", 1.0),
        seed=asked.seed,
        stop=_strings(asked.stop_strings),
        logit_bias=_bias(asked.logit_bias or {}),
        logprobs=_logprobs(asked),
        template_kwargs=dict(getattr(request.model, "chat_template_kwargs", None) or {}),
    )
    _tools(ask, request)
    _guide(ask, asked.guided_decoding)
    return ask


def _value(params: Any, name: str, default: Any) -> Any:
    value = getattr(params, name, None)
    return default if value is None else value


def _strings(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _logprobs(params: Any) -> int | None:
    wanted = getattr(params, "logprobs", None)
    if wanted is None or wanted is False:
        return None
    return int(_value(params, "top_logprobs", 0) if wanted is True else wanted)


def _bias(given: dict[Any, float]) -> dict[int, float]:
    bias: dict[int, float] = {}
    for token, value in given.items():
        try:
            bias[int(token)] = float(value)
        except ValueError:
            raise ConfigError(
                f"generation.logit_bias has the key {token!r}; keys are token ids, e.g. {{1234: -100}}",
                path="generation.logit_bias",
            ) from None
    return bias


# -- tools and grammars ------------------------------------------------------------------------------------------------


def _tools(ask: Ask, request: Request) -> None:
    if not request.tools:
        return
    tools = [tool.model_dump(mode="json", exclude_none=True) for tool in request.tools]
    choice = getattr(request.generation, "tool_choice", None)
    if choice == "none":
        return
    if isinstance(choice, dict):
        name = choice.get("function", choice).get("name")
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        if not tools:
            raise ConfigError(
                f"generation.tool_choice names the tool {name!r}, which is not offered", path="generation.tool_choice"
            )
    ask.tools = tools
    ask.must_call = isinstance(choice, dict) or choice == "required"


def _guide(ask: Ask, guided: Any) -> None:
    if guided is None:
        return
    schema = getattr(guided, "json", None)
    grammar = getattr(guided, "grammar", None)
    if schema is not None:
        ask.schema = _schema(schema)
    elif guided.choice is not None:
        ask.grammar = from_choice(guided.choice)
    elif guided.regex is not None:
        ask.grammar = from_regex(guided.regex)
    elif grammar is not None:
        ask.grammar = grammar
    if ask.tools and (ask.schema is not None or ask.grammar is not None):
        raise ConfigError(
            "guided_decoding and tools exclude each other here: a grammar that forces the answer's shape cannot leave "
            'room for a tool call; drop one of them, or set tool_choice="none"',
            path="generation.guided_decoding",
        )


def _schema(given: Any) -> Any:
    if isinstance(given, type):
        from pydantic import TypeAdapter

        return TypeAdapter(given).json_schema()
    if isinstance(given, str):
        try:
            return json.loads(given)
        except ValueError as error:
            raise ConfigError(
                f"generation.guided_decoding.json is not JSON: {error}", path="generation.guided_decoding.json"
            ) from None
    return given


# -- messages ----------------------------------------------------------------------------------------------------------


def _message(message: Message, at: int) -> dict[str, Any]:
    """One message in the shape that chat templates know."""
    content = _content(message.content)
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"messages[{at}].content holds half a surrogate pair at character {error.start}, which is no text",
            path=f"messages[{at}].content",
        ) from None
    out: dict[str, Any] = {"role": str(message.role.value), "content": content}
    calls = message.tool_calls
    if calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": _text(call)}}
            for call in calls
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    reasoning = getattr(message, "reasoning_content", None)
    if reasoning:
        out["reasoning_content"] = reasoning
    return out


def _text(call: Any) -> str:
    arguments = call.function.arguments
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _content(content: str | Iterable[ContentItem] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(_text_of(item) for item in content)  # many templates know only strings


def _text_of(item: ContentItem) -> str:
    kind = str(item.type.value)
    if kind != "text":
        raise ConfigError(
            f"this conversation has a content item of type {kind}; the llama.cpp engine reads text only",
            path="messages.content",
        )
    return item.content or ""
