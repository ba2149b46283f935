"""One engine on an event loop of its own, asked from the terminal's thread.

Rule: the terminal's thread owns the keyboard, so Ctrl-C always reaches it: at the prompt, and while an answer streams,
which it then stops. The loop's thread owns the engine, whose connections and model stay open between the turns.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio.from_thread

from .. import AsyncInferError, Message, ReasoningDelta, Role, TextDelta

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from anyio.from_thread import BlockingPortal

    from .. import Completion, Conversation, Engine


@dataclass(slots=True)
class Turn:
    """What came of one question.

    Attributes:
        text: what was shown.
        completion: the whole answer; None if it is not whole.
        error: why it broke off or never came.
        stopped: the user stopped it.
    """

    text: str = ""
    completion: Completion | None = None
    error: AsyncInferError | None = None
    stopped: bool = False

    @property
    def message(self) -> Message | None:
        """The turn for the history; None if nothing came."""
        if self.completion is not None:
            return self.completion.message
        return Message(role=Role.ASSISTANT, content=self.text) if self.text else None


class Speaker:
    """Asks engines; ``with`` it."""

    def __init__(self, *, show_reasoning: bool = False) -> None:
        self._show_reasoning = show_reasoning
        self._engine: Engine | None = None
        self._manager: AbstractContextManager[BlockingPortal] = anyio.from_thread.start_blocking_portal()
        self._portal: BlockingPortal

    def __enter__(self) -> Self:
        self._portal = self._manager.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        finally:
            self._manager.__exit__(None, None, None)

    def use(self, engine: Engine) -> None:
        """Load another engine, and let the former one go. Raises `AsyncInferError`; the former one stays then."""
        self._portal.call(engine.__aenter__)
        self._close()
        self._engine = engine

    def _close(self) -> None:
        if self._engine is not None:
            engine, self._engine = self._engine, None
            self._portal.call(engine.aclose)

    def ask(self, conversation: Conversation, arguments: dict[str, Any]) -> Turn:
        """Stream the answer to stdout. Ctrl-C stops the answer, not the program."""
        turn = Turn()
        ended = threading.Event()
        future = self._portal.start_task_soon(self._answer, turn, ended, conversation, arguments)
        try:
            future.result()
        except KeyboardInterrupt:
            turn.stopped = True
            future.cancel()
            ended.wait(timeout=10)
            if turn.completion is not None:  # it was whole when the key was pressed
                turn.stopped = False
        return turn

    async def _answer(
        self, turn: Turn, ended: threading.Event, conversation: Conversation, arguments: dict[str, Any]
    ) -> None:
        assert self._engine is not None
        pieces: list[str] = []
        try:
            async with self._engine.stream(conversation, **arguments) as stream:
                async for event in stream.events():
                    if type(event) is TextDelta and event.index == 0:
                        pieces.append(event.text)
                        sys.stdout.write(event.text)
                        sys.stdout.flush()
                    elif type(event) is ReasoningDelta and self._show_reasoning:
                        sys.stderr.write(event.text)
                        sys.stderr.flush()
                turn.completion = await stream.completion()
        except AsyncInferError as error:
            turn.error = error
        finally:
            turn.text = "".join(pieces)
            ended.set()
