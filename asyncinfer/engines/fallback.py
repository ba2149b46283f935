"""`FallbackEngine`: several engines as one. The next answers where the one before is down, out of quota or too slow.

Rule: engines change only before the first event of an answer; after it, an answer is one engine's own. Every attempt
goes through the pipeline of the engine that makes it: its limiter is charged, its retries are few while another engine
stands by (`patience`), and a loser is cancelled like any call that is left early.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import AsyncInferError, ConfigError
from .base import Engine
from .patience import WAIT_WITH_SPARE
from .relay import Relay, first_events, worth_another

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..limits import Limits
    from ..request import Request
    from .call import Call

_log = logging.getLogger("asyncinfer")


class FallbackEngine(Engine):
    """Tries engines in order, until one gives the first event of an answer.

    Args:
        engines: at least one; the first is asked first. They stay open to direct use.
        first_token: seconds within which an engine must begin to answer before the next one is asked instead; None for
            the call's own clock. Queueing for a slot counts.
        hedge_after: seconds after which the next engine is asked *as well*; whoever begins first answers, the others
            are cancelled. None (the default) never asks two at once. Each request sent is charged to its limiter.

    An engine that is silent, unreachable, out of quota or asks for a long wait is given up at once, one that fails
    otherwise after a second attempt (or as many as its ``max_retries`` says); the last one has all its retries.

    A request that is itself at fault (a bad parameter, a prompt that is too long) is not tried elsewhere. Where all
    engines fail, the last one's error is raised, the others' in its ``__cause__`` chain.

    Raises:
        ConfigError: no engines.
    """

    name = "fallback"
    keeps_clocks = True

    def __init__(
        self, engines: Sequence[Engine], *, first_token: float | None = None, hedge_after: float | None = None
    ) -> None:
        if not engines:
            raise ConfigError("a FallbackEngine needs at least one engine", path="engines")
        for label, seconds in (("first_token", first_token), ("hedge_after", hedge_after)):
            if seconds is not None and seconds <= 0:
                raise ConfigError(f"{label} must be above 0 seconds, not {seconds:g}", path=label)
        self.engines = list(engines)
        self._first_token = first_token
        self._hedge_after = hedge_after
        self.takes_prompts = all(engine.takes_prompts for engine in self.engines)
        super().__init__()

    def limits(self) -> Limits:
        # The engines' own limiters decide; this one only keeps the books of calls under way.
        from ..limits import Limits

        return Limits(max_concurrency=1 << 20, adaptive=False, max_retries=0)

    def _window(self) -> int:
        return max(engine._window() for engine in self.engines)  # noqa: SLF001 -- an engine, too

    def unsupported(self, request: Request) -> list[str]:  # noqa: ARG002
        """Nothing: each engine checks, and warns or refuses, for itself."""
        return []

    async def list_models(self, *, chat_only: bool = False) -> list[str]:
        return [model for engine in self.engines for model in await engine.list_models(chat_only=chat_only)]

    async def stop(self) -> None:
        for engine in self.engines:
            await engine.aclose()

    async def open(self, request: Request) -> Relay:
        if self._hedge_after is not None and len(self.engines) > 1:
            from .hedging import race

            last = self.engines[-1]
            calls = [self._call(engine, request, spare=engine is not last) for engine in self.engines]
            return await race(calls, self._hedge_after)
        failure: AsyncInferError | None = None
        for left, engine in zip(range(len(self.engines) - 1, -1, -1), self.engines, strict=True):
            call = self._call(engine, request, spare=left > 0)
            if left and engine.limiter(call.request).snapshot().paused > WAIT_WITH_SPARE:
                _log.debug("%s wants nobody to send for a while, trying the next engine", engine.name)
                continue
            try:
                return Relay(call, await first_events(call))
            except AsyncInferError as error:
                error.__cause__ = error.__cause__ or failure
                failure = error
                if not worth_another(error):
                    break
                _log.warning("%s cannot answer, trying the next engine: %s", engine.name, error)
        assert failure is not None
        raise failure

    def _call(self, engine: Engine, request: Request, *, spare: bool) -> Call:
        """A call of ``engine`` for the request: its own model and parameters under what the caller set explicitly."""
        from .call import Call

        timeouts = request.timeouts
        if self._first_token is not None:
            timeouts = replace(timeouts, first_token=self._first_token)
        plan = engine.plan(request.generation, None, request.response_model, request.tools, timeouts)
        return Call(
            engine,
            plan.request(request.prompt or request.conversation, request.tenant, request.weight),
            engine.live,
            spare=spare,
        )
