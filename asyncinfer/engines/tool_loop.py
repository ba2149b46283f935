"""`run_tools`: let a model call Python functions until it has its answer.

Rule: the loop is a caller of `generate` like anybody else; it adds nothing to a request but the messages that the model
and its tools wrote. It ends by itself, or at a limit that says so.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import anyio
from anyio import to_thread

from ..conversation import Message, Role, ToolDefinition
from ..errors import ConfigError, ToolLoopError
from .plan import as_conversation

if TYPE_CHECKING:
    from ..completion import Completion
    from ..conversation import Conversation, ToolCall


async def run_tools(
    generate: Callable[..., Awaitable[Completion]],
    conversation: Conversation | str,
    tools: Sequence[Callable[..., Any]],
    *,
    max_rounds: int = 10,
    tool_timeout: float | None = None,
    on_error: Literal["tell", "raise"] = "tell",
    **overrides: Any,
) -> Completion:
    """See `Engine.run_tools`; ``generate`` is the engine's."""
    if max_rounds < 1:
        raise ConfigError(f"max_rounds must be at least 1, not {max_rounds}", path="max_rounds")
    functions = {ToolDefinition.of(tool).function.name: tool for tool in tools}
    definitions = [ToolDefinition.of(tool) for tool in tools]
    current = as_conversation(conversation)
    for _ in range(max_rounds):
        completion = await generate(current, tools=definitions, **overrides)
        calls = completion.message.tool_calls
        if not calls:
            return completion
        current = completion.conversation
        for message in await _answer_all(calls, functions, tool_timeout, on_error):
            current = current.with_message(message)
    raise ToolLoopError(
        f"the model still calls tools after {max_rounds} rounds; raise max_rounds, or look at what it asks for",
        conversation=current,
    )


async def _answer_all(
    calls: Sequence[ToolCall], functions: dict[str, Callable[..., Any]], timeout: float | None, on_error: str
) -> list[Message]:
    """The tool messages for all calls of a turn, in their order; the functions run at the same time."""
    results: list[str] = [""] * len(calls)
    failed: set[int] = set()
    failures: list[Exception] = []

    async def answer(position: int, call: ToolCall) -> None:
        try:
            with anyio.fail_after(timeout):
                results[position] = _text(await _run(call, functions))
        except TimeoutError:
            failed.add(position)
            results[position] = _told(f"the tool took longer than {timeout:g} s")
        except Exception as error:  # noqa: BLE001 -- told to the model, or raised below
            failures.append(error)
            failed.add(position)
            results[position] = _told(f"{type(error).__name__}: {error}")

    async with anyio.create_task_group() as group:
        for position, call in enumerate(calls):
            group.start_soon(answer, position, call)
    if failures and on_error == "raise":
        raise failures[0]
    return [
        _result(call, text, failed=at in failed) for at, (call, text) in enumerate(zip(calls, results, strict=True))
    ]


def _result(call: ToolCall, text: str, *, failed: bool) -> Message:
    said: dict[str, Any] = {"role": Role.TOOL, "content": text, "tool_call_id": call.id, "name": call.function.name}
    if failed:
        said["is_error"] = True  # some formats have a mark for it, in others the text speaks
    return Message(**said)


async def _run(call: ToolCall, functions: dict[str, Callable[..., Any]]) -> Any:
    function = functions.get(call.function.name)
    if function is None:
        raise LookupError(f"there is no tool {call.function.name!r}; there are: {', '.join(sorted(functions))}")
    from pydantic import validate_call

    # Validated against the type hints, so that a tool is called with what it declares: the schema that the model saw.
    checked = validate_call(function)
    arguments = call.get_arguments_dict()
    if inspect.iscoroutinefunction(function):
        return await checked(**arguments)
    result = await to_thread.run_sync(lambda: checked(**arguments), abandon_on_cancel=True)
    return await result if inspect.isawaitable(result) else result


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    from pydantic_core import to_json

    return to_json(result, fallback=str).decode()


def _told(problem: str) -> str:
    return json.dumps({"error": problem}, ensure_ascii=False)
