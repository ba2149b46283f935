"""From the text of a finished answer to the object that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import StructuredOutputError
from ..events import FinishReason

if TYPE_CHECKING:
    from ..completion import Completion
    from ..params import GuidedDecodingParams
    from ..request import Request

_WHOLE = {FinishReason.STOP, FinishReason.UNKNOWN}
"""Reasons with which an answer of the right shape is final. `UNKNOWN`: the server said that it is done, and not why."""


def parse_answer(completion: Completion, request: Request) -> None:
    """Set ``completion.parsed`` where a shape was asked for: the validated instance of a model class, the value of a
    JSON Schema's answer, the text that matches a regular expression or is one of the choices.

    An answer that only calls tools has no shape yet, and is left alone.

    Raises:
        StructuredOutputError: the answer is cut, or has another shape; ``partial`` is the whole completion.
    """
    guided = request.generation.guided_decoding
    model = request.response_model
    if model is None and guided is not None and isinstance(guided.json, type):
        model = guided.json
    if (model is None and guided is None) or completion.finish_reason is FinishReason.TOOL_CALLS:
        return
    from .shapes import read_class, read_shape

    try:
        _must_be_whole(completion, guided)
        if model is not None:
            completion.parsed = read_class(model, completion.text)
        elif guided is not None:
            completion.parsed = read_shape(guided, completion.text)
    except ValueError as error:
        raise StructuredOutputError(
            f"the answer is not {_shape(model, guided)}: {error}", partial=completion
        ) from error


def _must_be_whole(completion: Completion, guided: GuidedDecodingParams | None) -> None:
    """Raise ValueError for an answer that something else than its end ended. A choice that no other one begins with is
    whole wherever it was cut: ``max_new_tokens=1`` is usual there."""
    reason = completion.finish_reason
    if reason in _WHOLE or (guided is not None and guided.grammar is not None):
        return
    if guided is not None and guided.choice is not None and reason is FinishReason.LENGTH:
        text = completion.text
        if [choice for choice in guided.choice if choice.startswith(text)] == [text]:
            return
    if reason is FinishReason.LENGTH:
        raise ValueError("the answer was cut by max_new_tokens; raise it")
    raise ValueError(f"the answer did not come to its end (finish_reason {reason.value if reason else None!r})")


def _shape(model: Any, guided: GuidedDecodingParams | None) -> str:
    if model is not None:
        return f"a valid {model.__name__}"
    assert guided is not None
    if guided.json is not None:
        return "what the JSON Schema asks for"
    return "what guided_decoding.regex asks for" if guided.regex is not None else "one of guided_decoding.choice"
