"""From the text of a finished answer to the object that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import StructuredOutputError
from ..events import FinishReason

if TYPE_CHECKING:
    from ..completion import Completion
    from ..request import Request


def parse_answer(completion: Completion, request: Request) -> None:
    """Set ``completion.parsed`` where a model class or a JSON schema was asked for.

    Raises:
        StructuredOutputError: a model class was asked for and the answer is cut, or does not validate.
    """
    guided = request.generation.guided_decoding
    schema: Any = guided.json if guided is not None else None
    model = request.response_model
    if model is None and isinstance(schema, type):
        model = schema
    if model is None and schema is None:
        return
    if completion.finish_reason is FinishReason.TOOL_CALLS:
        return
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[Any] = TypeAdapter(model if model is not None else Any)
    try:
        if completion.finish_reason is FinishReason.LENGTH:
            raise ValueError("the answer was cut by max_new_tokens; raise it")
        completion.parsed = adapter.validate_json(completion.text)
    except ValueError as error:
        if model is None:
            return
        reason = (
            "; ".join(f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise StructuredOutputError(
            f"the answer is not a valid {model.__name__}: {reason}", partial=completion
        ) from error
