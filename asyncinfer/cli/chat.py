"""A conversation in the terminal: read, ask, show, remember."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .. import AsyncInferError, ConfigError
from .commands import Commands, Next
from .exits import DONE, FAILED, INTERRUPTED, say
from .oneshot import account_of, remark_on
from .reader import Reader
from .session import Session
from .setup import describe, make_engine, rest_of_context, user_message
from .speaker import Speaker, Turn

if TYPE_CHECKING:
    from .. import Engine, InferenceConfig
    from .setup import Choices


def chat(
    choices: Choices, *, system: str | None, images: list[str], first: str | None, verbose: bool, quiet: bool
) -> int:
    """Talk until the user leaves; return the exit code."""
    session = Session(system=system, images=list(images))
    with Speaker(show_reasoning=verbose) as speaker:
        return _Chat(choices, session, speaker, verbose=verbose, quiet=quiet).run(first)


class _Chat:
    """The loop."""

    def __init__(self, choices: Choices, session: Session, speaker: Speaker, *, verbose: bool, quiet: bool) -> None:
        self._choices = choices
        self._session = session
        self._speaker = speaker
        self._verbose = verbose
        self._quiet = quiet
        self._engine: Engine
        self._answers = self._input_tokens = self._output_tokens = 0
        self._seconds = 0.0
        self._reader = Reader()
        self._commands = Commands(session, self._switch, lambda: describe(self._engine), self._account)
        self._failed = False

    def run(self, first: str | None) -> int:
        self._use(self._choices.load())
        if not self._quiet:
            say(describe(self._engine))
            if self._reader.interactive:
                say("/help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves")
        entry = first
        while True:
            if entry is None:
                try:
                    entry = self._reader.read()
                except KeyboardInterrupt:
                    if not self._reader.interactive:
                        return INTERRUPTED
                    say("\n(Ctrl-D or /exit leaves)")
                    continue
                if entry is None:
                    break
            if self._handle(entry) is Next.LEAVE:
                return DONE
            entry = None
        if self._reader.interactive and sys.stdout.isatty():
            print()
        return FAILED if self._failed and not self._reader.interactive else DONE

    def _handle(self, entry: str) -> Next:
        if entry.startswith("/"):
            following = self._commands.run(entry)
            if following is Next.ASK:
                self._ask()
            return following
        if not entry.strip() and not self._session.images:
            return Next.READ
        try:
            message = user_message(entry.strip(), self._session.images)
        except ConfigError as error:
            say(f"error: {error}")
            return Next.READ
        finally:
            self._session.images.clear()
        self._session.add(message)
        self._ask()
        return Next.READ

    # -- answers -----------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        turn = self._speaker.ask(self._session.conversation(), rest_of_context(self._engine))
        if turn.text and not turn.text.endswith("\n"):
            print(flush=True)
        if turn.message is not None:
            self._session.add(turn.message, interrupted=turn.completion is None)
        self._remark(turn)

    def _remark(self, turn: Turn) -> None:
        kept = "; what came stays in the conversation, marked as interrupted" if turn.text else ""
        if turn.stopped:
            say(f"[stopped{kept}; /retry asks again]")
        elif turn.error is not None:
            self._failed = True
            say(f"error: {turn.error}{kept}")
            if self._reader.interactive:
                say("[/retry asks again]")
        elif turn.completion is not None:
            completion = turn.completion
            self._answers += 1
            self._input_tokens += completion.usage.input_tokens
            self._output_tokens += completion.usage.output_tokens
            self._seconds += completion.timings.total
            remark = remark_on(completion)
            if remark and not self._quiet:
                say(f"[{remark}]")
            if self._verbose:
                say(f"[{account_of(completion)}]")

    def _account(self) -> str:
        return (
            f"{self._answers} answers, {self._input_tokens:,} tokens in, {self._output_tokens:,} out, "
            f"{self._seconds:.1f} s"
        )

    # -- models ------------------------------------------------------------------------------------------------------

    def _use(self, config: InferenceConfig) -> None:
        engine = make_engine(config)
        self._speaker.use(engine)
        self._engine = engine

    def _switch(self, name: str) -> None:
        """Another model: of the same engine, or ``provider:model``."""
        choices = self._choices.switched(name)
        try:
            self._use(choices.load())
        except ConfigError:
            raise
        except AsyncInferError as error:
            raise ConfigError(str(error)) from error
        self._choices = choices
