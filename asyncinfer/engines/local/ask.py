"""A request as plain values, the same for every local engine: messages, sampling, limits, the answer's shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from .messages import read_messages, whole

if TYPE_CHECKING:
    from ...request import Request


@dataclass(slots=True)
class Ask:
    """What a binding needs to know of one request.

    Attributes:
        messages: for the chat template, in the OpenAI shape; an image is a part ``{"type": "image"}``. None at all if
            there is a ``prompt``.
        prompt: text or token ids to complete as they are, without a chat template; or None.
        images: the images' bytes (PNG, JPEG ...), in the order of those parts.
        tools: offered tools in the OpenAI shape, or None.
        must_call: the model has to call one of ``tools``.
        max_tokens: the most tokens to generate; None for the rest of the context.
        temperature: 0 picks the likeliest token each time.
        top_k: 0 for off; ``top_p`` 1 for off; ``min_p`` 0 for off.
        seed: of the sampler; None for a random one.
        stop: strings that end the answer.
        stop_ids: tokens that end the answer, besides the model's own; they are not shown.
        min_tokens: tokens before which the answer does not end by itself.
        n: number of answers.
        logit_bias: token id -> what is added to its logit.
        logprobs: number of alternatives to report for each token (0: only its own), or None.
        schema: JSON schema the answer must follow, or None.
        regex: regular expression that the whole answer must match, or None.
        choice: the answers to choose from, or None.
        grammar: grammar the answer must follow, in the engine's own notation, or None.
        skip_special: leave special tokens out of the text.
        template_kwargs: further variables of the chat template.
    """

    messages: list[dict[str, Any]]
    prompt: str | list[int] | None = None
    images: list[bytes] = field(default_factory=list)
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
    stop_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    n: int = 1
    logit_bias: dict[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    schema: dict[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None
    skip_special: bool = True
    template_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def guided(self) -> bool:
        """Whether the answer's shape is prescribed."""
        return any(shape is not None for shape in (self.schema, self.regex, self.choice, self.grammar))

    @property
    def free(self) -> bool:
        """Whether the model may say anything. What is forced, a shape or a call, leaves no room for a thought."""
        return not (self.guided or (self.must_call and self.tools))


def read(request: Request, *, images: bool = False) -> Ask:
    """The plain values of a request, whose files have been read.

    Args:
        request: what is asked.
        images: whether the model can see.

    Raises:
        ConfigError: a parameter has a value that no local engine can work with, or a piece of the conversation is of
            a kind that this model cannot read.
    """
    asked = request.generation
    messages, pictures = read_messages(request.conversation.messages, images=images, bare=request.prompt is not None)
    ask = Ask(
        messages=[] if request.prompt is not None else messages,
        prompt=_prompt(request),
        images=pictures,
        max_tokens=asked.max_new_tokens,
        temperature=_temperature(request),
        top_k=max(0, asked.top_k or 0),
        top_p=_value(asked.top_p, 1.0),
        min_p=_value(asked.min_p, 0.0),
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        repetition_penalty=asked.repetition_penalty,
        seed=asked.seed,
        stop=tuple(whole(stop, "generation.stop_strings") for stop in asked.stop_strings or () if stop),
        stop_ids=tuple(asked.stop_token_ids or ()),
        min_tokens=asked.min_new_tokens or 0,
        n=asked.n,
        logit_bias=_bias(asked.logit_bias or {}),
        logprobs=_value(asked.top_logprobs, 0) if asked.logprobs else None,
        skip_special=asked.skip_special_tokens,
        template_kwargs=dict(request.model.chat_template_kwargs or {}),
    )
    _tools(ask, request)
    _guide(ask, asked.guided_decoding)
    return ask


def _prompt(request: Request) -> str | list[int] | None:
    prompt = request.prompt
    if prompt is None:
        return None
    return whole(prompt.text or "", "prompt") if prompt.token_ids is None else list(prompt.token_ids)


def _temperature(request: Request) -> float:
    """Who only says that it be sampled gets the model's own distribution; who says that it not be, the likeliest."""
    if request.asked("use_sampling") is False:
        return 0.0
    given = request.asked("temperature")
    return 1.0 if request.asked("use_sampling") and given is None else float(request.generation.temperature or 0.0)


def _value(value: float | None, default: Any) -> Any:
    return default if value is None else value


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


# -- tools and shapes --------------------------------------------------------------------------------------------------


def _tools(ask: Ask, request: Request) -> None:
    choice = request.generation.tool_choice
    if not request.tools:
        if choice == "required" or isinstance(choice, dict):
            raise ConfigError(
                f"generation.tool_choice is {choice!r}, and no tools are offered; pass tools=[...]",
                path="generation.tool_choice",
            )
        return
    tools = [tool.model_dump(mode="json", exclude_none=True) for tool in request.tools]
    if choice == "none":
        return
    if request.prompt is not None:
        raise ConfigError(
            "tools are offered through the chat template, which a bare Prompt does not pass; write them into its text",
            path="tools",
        )
    if isinstance(choice, dict):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise ConfigError(
                f"generation.tool_choice is {choice!r}; a mapping names a function like this: "
                '{"type": "function", "function": {"name": ...}}',
                path="generation.tool_choice",
            )
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        if not tools:
            raise ConfigError(
                f"generation.tool_choice names the tool {name!r}, which is not offered", path="generation.tool_choice"
            )
    ask.tools = tools
    ask.must_call = isinstance(choice, dict) or choice == "required"


def arguments(tool: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments. One that says nothing of them has none."""
    found = tool["function"].get("parameters")
    return found or {"type": "object", "properties": {}, "additionalProperties": False}


def _guide(ask: Ask, guided: Any) -> None:
    if guided is None:
        return
    ask.schema = guided.json_schema()
    ask.regex = guided.regex
    ask.choice = None if guided.choice is None else tuple(guided.choice)
    ask.grammar = guided.grammar
    if ask.tools and ask.guided:
        raise ConfigError(
            "guided_decoding and tools exclude each other here: a grammar that forces the answer's shape cannot leave "
            'room for a tool call; drop one of them, or set tool_choice="none"',
            path="generation.guided_decoding",
        )
