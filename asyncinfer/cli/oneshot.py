"""One prompt, one answer: streamed to stdout as it comes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio

from .. import Conversation, FinishReason, Message, ReasoningDelta, Role, TextDelta, ToolCallDelta
from .exits import DONE, say
from .setup import describe, is_embedded, make_engine, user_message

if TYPE_CHECKING:
    from .. import Completion, InferenceConfig

_WHY_NOT_WHOLE = {
    FinishReason.LENGTH: "the answer was cut at its length limit; --generation.max_new_tokens N allows more",
    FinishReason.CONTENT_FILTER: "the provider's content filter ended the answer",
    FinishReason.REFUSAL: "the model refused",
    FinishReason.CONTEXT_OVERFLOW: "the conversation no longer fits the model's context",
    FinishReason.PAUSE: "the provider paused the answer",
    FinishReason.ABORT: "the engine stopped the answer",
    FinishReason.ERROR: "the engine ended the answer with an error",
    FinishReason.UNKNOWN: "the provider ended the answer for a reason it did not explain",
}


def answer(
    config: InferenceConfig, prompt: str, *, system: str | None, images: list[str], verbose: bool, quiet: bool
) -> int:
    """Ask once; return the exit code."""
    messages = [Message(role=Role.SYSTEM, content=system)] if system else []
    conversation = Conversation(messages=[*messages, user_message(prompt, images)])
    completion = anyio.run(_stream, config, conversation, verbose, quiet)
    remark = remark_on(completion)
    if remark and not quiet:
        say(f"note: {remark}")
    if verbose:
        say(f"note: {account_of(completion)}")
    return DONE


async def _stream(config: InferenceConfig, conversation: Conversation, verbose: bool, quiet: bool) -> Completion:
    out = sys.stdout
    engine = make_engine(config)
    if not quiet and (verbose or is_embedded(engine)):
        say(describe(engine))
    last = ""
    async with engine, engine.stream(conversation) as stream:
        try:
            async for event in stream.events():
                if type(event) is TextDelta and event.index == 0:
                    out.write(event.text)
                    out.flush()
                    last = event.text or last
                elif type(event) is ReasoningDelta and verbose:
                    sys.stderr.write(event.text)
                elif type(event) is ToolCallDelta and verbose:
                    sys.stderr.write(event.arguments)
        finally:
            if last and not last.endswith("\n"):
                out.write("\n")
                out.flush()
        return await stream.completion()


def remark_on(completion: Completion) -> str | None:
    """What a person should know about how the answer ended; None if it simply ended."""
    reason = completion.finish_reason
    return _WHY_NOT_WHOLE.get(reason) if reason is not None else None


def account_of(completion: Completion) -> str:
    """Tokens and times of an answer, in one line."""
    usage, timings = completion.usage, completion.timings
    about = "" if usage.source == "exact" else "about "
    parts = [f"{about}{usage.input_tokens} tokens in, {about}{usage.output_tokens} out"]
    if timings.ttft is not None:
        parts.append(f"first token after {timings.ttft * 1000:.0f} ms")
    parts.append(f"{timings.total:.2f} s in all")
    if timings.total > 0:
        parts.append(f"{usage.output_tokens / timings.total:.0f} tokens/s")
    return ", ".join(parts)
