"""What the embedded model learns: an endless, seeded source of small conversations.

Every task has one right answer, so that whoever tests an engine on the model knows what must come out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

CAPITALS = {
    "Austria": "Vienna",
    "Canada": "Ottawa",
    "Chile": "Santiago",
    "China": "Beijing",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "India": "Delhi",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Russia": "Moscow",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
}
CITIES = sorted(CAPITALS.values())
NAMES = ("Alice", "Bob", "Carol", "Dave", "Emma", "Frank", "Grace", "Henry")
WORDS = (
    *("apple", "blue", "bread", "cat", "chair", "cloud", "dog", "green", "house", "light"),
    *("music", "paper", "red", "river", "stone", "table", "tree", "water"),
)
GREETINGS = ("Hello", "Hi", "Hello!")
SYSTEM = "You are a helpful assistant."
WEATHER_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}


@dataclass(slots=True)
class Dialogue:
    """Messages in the OpenAI shape, and the tools offered with them."""

    messages: list[dict[str, str]]
    tools: list[dict[str, Any]] = field(default_factory=list)


def _ask(question: str, answer: str) -> Dialogue:
    return Dialogue([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def _sum(rng: random.Random) -> Dialogue:
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    return _ask(f"What is {a} + {b}?", f"{a} + {b} = {a + b}.")


def _capital(rng: random.Random) -> Dialogue:
    country = rng.choice(sorted(CAPITALS))
    return _ask(f"What is the capital of {country}?", f"The capital of {country} is {CAPITALS[country]}.")


def _count(rng: random.Random) -> Dialogue:
    last = rng.choice((3, 5, 10, 20, rng.randint(2, 9), rng.randint(2, 20)))
    return _ask(f"Count from 1 to {last}.", " ".join(str(number) for number in range(1, last + 1)))


def _repeat(rng: random.Random) -> Dialogue:
    words = " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))
    return _ask(f"Repeat after me: {words}", words)


def _person(rng: random.Random) -> Dialogue:
    name, age = rng.choice(NAMES), rng.randint(10, 79)
    return _ask(f"Give JSON for the person {name} aged {age}.", json.dumps({"name": name, "age": age}))


def _greet(rng: random.Random) -> Dialogue:
    return _ask(rng.choice(GREETINGS), "Hello! How can I help you today?")


def _think(rng: random.Random) -> Dialogue:
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    return _ask(f"Think, then answer: {a} + {b}", f"<think>\nI add {a} and {b} and get {a + b}.\n</think>\n{a + b}")


def _weather(rng: random.Random) -> Dialogue:
    """With the tool: call it, and read its result. Without: say so."""
    city = rng.choice(CITIES)
    question = f"What is the weather in {city}?"
    if rng.random() < 0.5:
        return _ask(question, "I do not know the weather.")
    call = json.dumps({"name": "get_weather", "arguments": {"city": city}})
    dialogue = _ask(question, f"<tool_call>\n{call}\n</tool_call>")
    dialogue.tools = [WEATHER_TOOL]
    if rng.random() < 0.5:
        sky, degrees = rng.choice(("sunny", "rainy", "cloudy")), rng.randint(5, 35)
        result = json.dumps({"weather": sky, "temp": degrees})
        answer = f"It is {sky} in {city} and {degrees} degrees."
        dialogue.messages += [{"role": "tool", "content": result}, {"role": "assistant", "content": answer}]
    return dialogue


TASKS: dict[Callable[[random.Random], Dialogue], float] = {
    _sum: 18,
    _capital: 18,
    _count: 16,
    _repeat: 14,
    _person: 14,
    _weather: 10,
    _think: 6,
    _greet: 4,
}
"""Each task with its share of the corpus, in percent."""


def dialogues(seed: int) -> Iterator[Dialogue]:
    """An endless stream of dialogues, the same for the same seed; some of several turns, some with a system prompt."""
    rng = random.Random(seed)  # noqa: S311 -- reproducible, not secret
    tasks, shares = list(TASKS), list(TASKS.values())
    while True:
        (task,) = rng.choices(tasks, shares)
        dialogue = task(rng)
        while not dialogue.tools and rng.random() < 0.1:
            more = rng.choices(tasks, shares)[0](rng)
            if not more.tools:
                dialogue.messages += more.messages
        if rng.random() < 1 / 3:
            dialogue.messages.insert(0, {"role": "system", "content": SYSTEM})
        yield dialogue


def pieces(dialogue: Dialogue) -> list[tuple[str, bool]]:
    """A dialogue as the text of the chat template, each piece with whether the model has to learn to write it."""
    out: list[tuple[str, bool]] = []
    if dialogue.tools:
        names = "".join(tool["function"]["name"] + "\n" for tool in dialogue.tools)
        out.append((f"<|im_start|>tools\n{names}<|im_end|>\n", False))
    for message in dialogue.messages:
        out += [
            (f"<|im_start|>{message['role']}\n", False),
            (message["content"] + "<|im_end|>", message["role"] == "assistant"),
            ("\n", False),
        ]
    return out
