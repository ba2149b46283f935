"""Guided decoding: which tokens may come next, by llguidance.

Chosen among three on one schema of nested objects (one CPU thread; tokenizers of 1 k and 128 k words; compile, then
median / mean time of one mask):

=============== ============================ ==============================
llguidance 1.7  1.7 ms, 22 µs / 114 µs       8.5 ms, 37 µs / 277 µs
xgrammar 0.2.8  37 ms, 2 µs / 5 µs           4,497 ms, 13 µs / 1,771 µs
outlines_core   35 ms, 2 µs / 4 µs           4,399 ms, 5 µs / 73 µs
=============== ============================ ==============================

A first token that waits for seconds hurts more than a mask that takes as long as a small part of any model's step. Its
own tokenizer takes seconds to build for a large vocabulary; that happens once, with the first guided request.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, EngineError, MissingDependencyError
from ..local.answer import TOOL_CLOSE, TOOL_OPEN
from ..local.ask import arguments

if TYPE_CHECKING:
    from ..local.ask import Ask

_PATH = "generation.guided_decoding"
_MEANS = frozenset("\\.+*?()|[]{}^$#&-~/")
"""Characters that mean something in a pattern."""
_KEPT = 64
"""Compiled grammars that are kept."""
_SPACE = r"( |\n[ \t]{0,16})?"
"""Between the parts of a JSON text: one space, or a new line and its indent. A model that is asked for what it does not
want to say would go on with spaces for ever."""


class Guide:
    """One answer's way through a grammar."""

    __slots__ = ("_mask", "_matcher", "_size")

    def __init__(self, matcher: Any, size: int) -> None:
        self._matcher = matcher
        self._size = size
        self._mask: Any = None

    def copy(self) -> Guide:
        """Another answer, which has come as far."""
        return Guide(self._matcher.deep_copy(), self._size)

    def forbid(self, scores: Any) -> None:
        """Set the scores of tokens that may not come to minus infinity, in place. Raises `EngineError`."""
        import torch

        if self._mask is None:
            self._mask = torch.zeros((self._size + 31) // 32, dtype=torch.int32)
        mask = self._mask
        self._matcher.unsafe_compute_mask_ptr(mask.data_ptr(), mask.numel() * 4)
        self._check()
        bits = (mask.unsqueeze(-1) >> torch.arange(32, dtype=torch.int32)) & 1
        allowed = bits.flatten()[: self._size].bool().to(scores.device)
        scores[: self._size].masked_fill_(~allowed, -float("inf"))
        scores[self._size :] = -float("inf")

    def accept(self, token: int) -> None:
        """Take note of a token. Raises `EngineError`."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._check()

    @property
    def done(self) -> bool:
        """Nothing can follow but the end."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"the answer cannot go on by its grammar: {_first_line(self._matcher.get_error())}")


class Guides:
    """Makes guides for one tokenizer; safe to use from several threads.

    Args:
        tokenizer: of Transformers.
        size: tokens that the model knows.
        ends: tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, size: int, ends: list[int]) -> None:
        self._tokenizer = tokenizer
        self._size = size
        self._ends = ends
        self._words: Any = None
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def guide(self, ask: Ask) -> Guide | None:
        """The guide of a request; None if its answer is free. Blocks while a grammar is new.

        Raises:
            ConfigError: there is no such shape; ``path`` names the field.
            MissingDependencyError: llguidance is not installed.
        """
        if ask.free:
            return None
        field, grammar = _grammar(ask, _library())
        with self._lock:
            pristine = self._known.get(grammar)
            if pristine is None:
                pristine = self._compile(field, grammar)
                self._known[grammar] = pristine
                if len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            self._known.move_to_end(grammar)
            return Guide(pristine.deep_copy(), self._size)

    def _compile(self, field: str, grammar: str) -> Any:
        matcher = _library().LLMatcher(self._vocabulary(), grammar, log_level=0)
        if matcher.is_error():
            raise ConfigError(
                f"{_PATH}.{field} cannot be used: {_first_line(matcher.get_error())}", path=f"{_PATH}.{field}"
            )
        return matcher

    def _vocabulary(self) -> Any:
        if self._words is None:
            from llguidance.hf import from_tokenizer

            try:
                self._words = from_tokenizer(self._tokenizer, n_vocab=self._size, eos_token=self._ends)
            except ValueError as error:
                raise ConfigError(
                    f"guided decoding needs a tokenizer of the tokenizers library, and this model has none: {error}",
                    path=_PATH,
                ) from error
        return self._words


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise MissingDependencyError(
            "guided decoding of the Native engine needs llguidance: pip install 'asyncinfer[native]'"
        ) from None
    return llguidance


def _grammar(ask: Ask, library: Any) -> tuple[str, str]:
    """The field that prescribes the shape, and the grammar in llguidance's own notation."""
    matcher = library.LLMatcher
    if ask.schema is not None:
        return "json", _of_schema(matcher, ask.schema)
    if ask.regex is not None:
        # The whole answer has to match, with or without anchors; inside, llguidance has none.
        pattern = ask.regex.removeprefix("^")
        if pattern.endswith("$") and not pattern.endswith("\\$"):
            pattern = pattern[:-1]
        return "regex", str(matcher.grammar_from_regex(pattern))
    if ask.choice is not None:
        # As one pattern, not as a rule with as many ways: of those the library takes two thousand.
        return "choice", str(matcher.grammar_from_regex("|".join(_quoted(word) for word in ask.choice)))
    if ask.grammar is not None:
        try:
            return "grammar", str(library.grammar_from("grammar", ask.grammar))
        except ValueError as error:
            raise ConfigError(
                f"{_PATH}.grammar is neither Lark nor GBNF: {_first_line(str(error))}", path=f"{_PATH}.grammar"
            ) from error
    return "json", str(matcher.grammar_from_lark(_call(ask)))


def _of_schema(matcher: Any, schema: dict[str, Any]) -> str:
    try:
        return str(matcher.grammar_from_json_schema(json.dumps(schema), {"whitespace_pattern": _SPACE}))
    except ValueError as error:
        raise ConfigError(
            f"{_PATH}.json cannot be made a grammar: {_first_line(str(error))}", path=f"{_PATH}.json"
        ) from error


def _call(ask: Ask) -> str:
    """One call of one of the tools, in the markup that `Answer` reads."""
    rules, calls = [], []
    for at, tool in enumerate(ask.tools or ()):
        # Each schema by itself: what it refers to stands in it. Arguments that nobody described mean nothing to a tool.
        given = arguments(tool)
        closed = {"additionalProperties": False} if "properties" in given else {}
        schema = {**closed, **given, "x-guidance": {"whitespace_pattern": _SPACE}}
        begin = f'{TOOL_OPEN}\n{{"name": {json.dumps(tool["function"]["name"], ensure_ascii=False)}, "arguments": '
        calls.append(f"{json.dumps(begin, ensure_ascii=False)} arguments{at}")
        rules.append(f"arguments{at}: %json {json.dumps(schema)}")
    return "\n".join([f'start: ({" | ".join(calls)}) "}}\\n{TOOL_CLOSE}"', *rules])


def _quoted(word: str) -> str:
    """A pattern for exactly this text."""
    return "".join(f"\\{char}" if char in _MEANS else char for char in word)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
