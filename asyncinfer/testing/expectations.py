"""What the suite asks an engine, and what it may assume of the answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .. import Conversation, GenerationParams

Prompt = str | Conversation
"""A conversation, or the text of its only message."""

Probe = Callable[[], int | Awaitable[int]]
"""A look inside the engine (or the server behind it): a number, now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What to ask an engine, and what is known of its answers. Every default can be replaced by keyword.

    Attributes:
        prompts: questions whose answers are short and end by themselves. Different answers find more.
        answers: the right answers to some of them, exactly.
        long_prompt: a question whose answer is long; it is asked with `long_generation`.
        long_tokens: tokens of that answer.
        long_generation: parameters that make the answer to `long_prompt` that long. None: ``max_new_tokens``, and
            ``min_new_tokens`` or a bias against `end_token` where the engine honours them.
        end_token: id of the token that ends an answer.
        generation: parameters of every call; None for greedy decoding (``temperature`` 0).
        supported: `GenerationParams` fields that the engine honours; None asks its ``get_supported_params()``.
        deterministic: whether greedy decoding answers a question the same way each time, alone or in company. False
            leaves out every check that compares two answers.
        guided: the kinds of ``guided_decoding`` to ask for, where the engine honours that.
        unicode: a question and its exact answer, with characters of two, three and four bytes; None asks for such a
            text as a ``guided_decoding`` choice.
        too_long: a prompt that does not fit the context.
        tool_prompt: a question that is answered by calling ``get_weather(city)``.
        count_tokens: number of tokens of an answer's text, by the model's own tokenizer.
        count_prompt: number of tokens of a conversation once its template is applied.
        running: how many sequences the engine is decoding now. Without it, whether a sequence came free is judged
            from outside: by how soon the next answer comes.
        made: how many tokens the engine has made since it was started.
        streams: how many run at once in the check for that.
        stop_cases: the most places at which stop strings are tried.
        patience: seconds that a check may take.
        free_within: seconds within which an answer that was left must be gone.
        max_stall_ms: the longest p99 stall of the event loop while decoding, in milliseconds; None only measures.
        backends: event loops (of ``asyncio`` and ``trio``) that the engine works on; those not installed are left out.
        skip: names of checks to leave out, each with the reason that the report shall give.
    """

    prompts: tuple[str, ...] = ("What is the capital of France?", "What is 3 + 4?", "Count from 1 to 10.", "Hello")
    answers: Mapping[str, str] = field(default_factory=dict)
    long_prompt: Prompt = "Count from 1 to 1000."
    long_tokens: int = 400
    long_generation: GenerationParams | None = None
    end_token: int | None = None
    generation: GenerationParams | None = None
    supported: frozenset[str] | None = None
    deterministic: bool = True
    guided: frozenset[str] = frozenset({"json", "regex", "choice"})
    unicode: tuple[Prompt, str] | None = None
    too_long: Prompt | None = None
    tool_prompt: str = "What is the weather in Paris?"
    count_tokens: Callable[[str], int] | None = None
    count_prompt: Callable[[Conversation], int] | None = None
    running: Probe | None = None
    made: Probe | None = None
    streams: int = 64
    stop_cases: int = 48
    patience: float = 60.0
    free_within: float = 2.0
    max_stall_ms: float | None = None
    backends: tuple[str, ...] = ("asyncio", "trio")
    skip: Mapping[str, str] = field(default_factory=dict)


EMBEDDED = Expectations(
    prompts=(
        "What is the capital of France?",
        "What is the capital of Japan?",
        "What is 3 + 4?",
        "Count from 1 to 10.",
        "Count from 1 to 20.",
        "Give JSON for the person Alice aged 30.",
        "Hello",
    ),
    answers=MappingProxyType(
        {
            "What is the capital of France?": "The capital of France is Paris.",
            "What is the capital of Japan?": "The capital of Japan is Tokyo.",
            "What is 3 + 4?": "3 + 4 = 7.",
            "Count from 1 to 10.": "1 2 3 4 5 6 7 8 9 10",
            "Give JSON for the person Alice aged 30.": '{"name": "Alice", "age": 30}',
            "Hello": "Hello! How can I help you today?",
        }
    ),
    long_prompt="Count from 1 to 20.",
    long_tokens=1000,
    end_token=2,
    too_long="hi there " * 4000,
)
"""What holds for every engine that runs the embedded model."""
