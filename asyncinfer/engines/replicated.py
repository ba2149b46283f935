"""`ReplicatedEngine`: several engines that run the same model, as one. Each call goes to whoever has the least to do.

Rule: a call is one replica's own from its first event on, and goes through that replica's whole pipeline. A replica
that fails before its first event is asked last for a while: else the one that fails fastest would draw all calls.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import AsyncInferError, ConfigError
from .base import Engine
from .relay import Relay, first_events, worth_another

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from ..events import Event
    from ..limits import Limits
    from ..params import InferenceEngineType, ModelParams
    from ..request import Request
    from .call import Call
    from .plan import Plan

_log = logging.getLogger("asyncinfer")

REST = 5.0
"""Seconds for which a replica that has failed is asked last."""
_ROW = 256
"""Tokens that an answer without a limit is reckoned with."""


class _Replica:
    """An engine and what it has to do. Counted under the pool's lock: calls may come from several loops."""

    __slots__ = ("_planned", "engine", "failed", "running", "served", "tokens")

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.running = 0
        self.tokens = 0
        self.served = 0
        self.failed = -REST
        self._planned: tuple[Any, Any, Any, Any, Plan] | None = None

    def load(self, now: float) -> tuple[bool, float, int, int]:
        """What is compared: the smallest is asked."""
        return now - self.failed < REST, self.running / (self.engine.slots or 1), self.tokens, self.served

    def call(self, request: Request) -> Call:
        """A call of the engine: its own parameters under what the caller set. Rows of one batch share the merging."""
        from .call import Call

        sampling, shape, tools, timeouts = request.generation, request.response_model, request.tools, request.timeouts
        known = self._planned
        if (
            known is None
            or known[0] is not sampling
            or known[1] is not shape
            or known[2] is not tools
            or known[3] is not timeouts
        ):
            plan = self.engine.plan(sampling, None, shape, tools, timeouts)
            self._planned = known = sampling, shape, tools, timeouts, plan
        given = request.prompt or request.conversation
        return Call(self.engine, known[4].request(given, request.tenant, request.weight), self.engine.live)


class _Lease:
    """A call's place on a replica, given back once."""

    __slots__ = ("_lock", "_replica", "_tokens")

    def __init__(self, replica: _Replica, tokens: int, lock: AbstractContextManager[bool]) -> None:
        self._replica: _Replica | None = replica
        self._tokens = tokens
        self._lock = lock
        replica.running += 1
        replica.served += 1
        replica.tokens += tokens

    def end(self) -> None:
        with self._lock:
            replica, self._replica = self._replica, None
            if replica is not None:
                replica.running -= 1
                replica.tokens -= self._tokens


class _LeasedRelay(Relay):
    """Another engine's answer; its place comes back when it ends, however it ends."""

    __slots__ = ("_lease",)

    def __init__(self, call: Call, first: list[Event], lease: _Lease) -> None:
        super().__init__(call, first)
        self._lease = lease

    def abort(self) -> None:
        super().abort()
        self._lease.end()

    async def aclose(self) -> None:
        self._lease.end()


class ReplicatedEngine(Engine):
    """Spreads calls over engines that run the same model: on several devices, or on several servers.

    Args:
        engines: at least one. They stay open to direct use; that load is not seen here.

    Each call goes to the replica with the fewest calls under way (in proportion to its slots, where it has a fixed
    number), among equals to the one with the fewest tokens to read and write. A call that fails before its first event
    for a reason that lies with the engine is given to another replica, and the failed one is asked last for `REST`
    seconds. Closing this engine closes the replicas.

    Raises:
        ConfigError: no engines, or something else among them.
    """

    name = "replicated"
    keeps_clocks = True

    def __init__(self, engines: Sequence[Engine]) -> None:
        if isinstance(engines, Engine) or not isinstance(engines, Iterable):
            raise ConfigError(f"engines is a list of engines, not {type(engines).__name__}", path="engines")
        self.engines = list(engines)
        if not self.engines:
            raise ConfigError("a ReplicatedEngine needs at least one engine", path="engines")
        for at, engine in enumerate(self.engines):
            if not isinstance(engine, Engine):
                raise ConfigError(f"engines[{at}] is no engine but {type(engine).__name__}", path=f"engines[{at}]")
        self.takes_prompts = all(engine.takes_prompts for engine in self.engines)
        slots = [engine.slots for engine in self.engines if engine.slots is not None]
        if len(slots) == len(self.engines):
            self.slots = sum(slots)
        self._replicas = [_Replica(engine) for engine in self.engines]
        # A garbage-collector run may give a place back in the middle of taking one, on the same thread.
        self._lock = threading.RLock()
        super().__init__()

    @staticmethod
    def over_devices(
        engine: InferenceEngineType | str,
        model_params: ModelParams | None = None,
        *,
        tensor_parallel_size: int = 1,
        pipeline_parallel_size: int = 1,
        data_parallel_size: int = -1,
        **arguments: Any,
    ) -> Engine:
        """An engine that uses the devices of this machine.

        Args:
            engine: which (``"vllm"``, ``"native"``, ``"llamacpp"``).
            model_params: which model, and how each replica loads it.
            tensor_parallel_size: devices that share each layer of one replica.
            pipeline_parallel_size: groups of them that the layers of one replica are dealt out to.
            data_parallel_size: replicas; -1 for as many as the devices hold, one where there are no GPUs.
            arguments: passed on to the engine's class.

        Returns:
            `Engine`: one of the class itself where one is enough (vLLM balances its replicas by load itself), else a
            `ReplicatedEngine`.

        Raises:
            ConfigError: a size is no whole number of the right kind, or there are not so many devices.
        """
        from .placing import place

        engines = place(
            engine,
            model_params,
            tensor=tensor_parallel_size,
            pipeline=pipeline_parallel_size,
            data=data_parallel_size,
            arguments=arguments,
        )
        return engines[0] if len(engines) == 1 else ReplicatedEngine(engines)

    def limits(self) -> Limits:
        # Each replica's limiter decides; this one keeps calls here until some replica has a slot.
        from ..limits import Limits

        return Limits(max_concurrency=self.slots or 1 << 20, adaptive=False, max_retries=0)

    def _window(self) -> int:
        return sum(engine._window() for engine in self.engines)  # noqa: SLF001 -- an engine, too

    def unsupported(self, request: Request) -> list[str]:  # noqa: ARG002
        """Nothing: each replica checks, and warns or refuses, for itself."""
        return []

    async def list_models(self, *, chat_only: bool = False) -> list[str]:
        models: dict[str, None] = {}
        for engine in self.engines:
            models |= dict.fromkeys(await engine.list_models(chat_only=chat_only))
        return list(models)

    @property
    def running(self) -> list[int]:
        """Calls under way on each replica, in the order of ``engines``."""
        return [replica.running for replica in self._replicas]

    async def start(self) -> None:
        """Load all replicas at once; if one cannot be loaded, none stays."""
        import anyio

        failures: list[AsyncInferError] = []

        async def load(engine: Engine) -> None:
            try:
                await engine.ready()
            except AsyncInferError as error:
                failures.append(error)

        try:
            async with anyio.create_task_group() as group:
                for engine in self.engines:
                    group.start_soon(load, engine)
            if failures:
                raise failures[0]
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.stop()
            raise

    async def stop(self) -> None:
        failure: AsyncInferError | None = None
        for engine in self.engines:
            try:
                await engine.aclose()
            except AsyncInferError as error:  # the others must be closed too
                failure = failure or error
        if failure is not None:
            raise failure

    async def open(self, request: Request) -> Relay:
        tokens = self.estimate_input(request) + (request.generation.max_new_tokens or _ROW)
        left = list(self._replicas)
        while True:
            replica, lease = self._take(left, tokens)
            left.remove(replica)
            try:
                call = replica.call(request)
                return _LeasedRelay(call, await first_events(call), lease)
            except AsyncInferError as error:
                lease.end()
                if not worth_another(error):
                    raise
                replica.failed = time.monotonic()
                if not left:
                    raise
                _log.warning("a replica of %s failed, another one is asked: %s", replica.engine.name, error)
            except BaseException:
                lease.end()
                raise

    def _take(self, among: Iterable[_Replica], tokens: int) -> tuple[_Replica, _Lease]:
        now = time.monotonic()
        with self._lock:
            replica = min(among, key=lambda one: one.load(now))
            return replica, _Lease(replica, tokens, self._lock)
