"""The worker's thread: an asyncio loop of its own, and ``AsyncLLM`` on it.

Callers of any loop hand requests in with ``call_soon_threadsafe``; what vLLM makes of one step for all of them goes out
in one go (`Core._flush`), so that each caller's loop is woken once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from contextlib import aclosing
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import AsyncInferError, EngineClosedError, EngineError
from ..worker import JOIN_GRACE, Feed, close_at_exit, join_all, send_all
from . import failures
from .adapters import Adapters
from .arguments import engine_args, import_vllm, prepare_environment
from .parsers import parsing
from .processes import Starting, kept
from .prompt import Prompts
from .reading import Reader
from .sampling import sampling, shape
from .settings import template

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...events import Event
    from ...params import ModelParams
    from ..local.ask import Ask
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_loading = threading.Lock()
"""Two engines that load at once would each measure memory that the other is about to take."""
_GRACE = 20.0
"""Seconds in which vLLM's processes may end by themselves; killed, they would leave shared memory behind."""
_WATCH = 1.0
"""Seconds between two looks at whether vLLM still lives."""
_TICK = 0.1
"""Seconds between two looks at processes of an engine that is closed while it loads."""
_UNLOADED = "the engine was closed before it was loaded"
_CLOSED = "the engine was closed while this call was under way"


class Job:
    """One request on its way through the worker."""

    __slots__ = ("ask", "echo", "feed", "model", "task", "variables")

    def __init__(self, ask: Ask, model: ModelParams, variables: dict[str, Any], *, echo: bool) -> None:
        self.ask = ask
        self.echo = echo
        self.model = model
        self.variables = variables
        self.feed: Feed
        self.task: asyncio.Task[None] | None = None


class Core:
    """One loaded model.

    Attributes:
        sees: the model takes images.
        slots: answers that are made at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.sees = False
        self.slots = 1
        self._settings = settings
        self._lock = threading.Lock()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: AsyncInferError | None = None
        self._loop: asyncio.AbstractEventLoop
        self._context: Context
        self._stop: asyncio.Event
        self._starting: Starting | None = None
        self._llm: Any = None
        self._prompts: Prompts
        self._adapters: Adapters
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._out: list[tuple[Feed, list[Event], bool]] = []

    # -- any thread --------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load the model; blocks. Raises `EngineError`, `ConfigError`."""
        with self._lock:
            if self._closing:
                raise EngineClosedError(_UNLOADED, provider=failures.NAME)
            self._thread = threading.Thread(target=self._run, name="asyncinfer-vllm", daemon=True)
            self._thread.start()
        self._ready.wait()
        close_at_exit(self)  # before what vLLM has registered in the meantime pulls its processes away
        if self._failure is not None:
            join_all([self._thread])
            raise self._failure

    def open(self, ask: Ask, model: ModelParams, variables: dict[str, Any], *, echo: bool = False) -> Feed:
        """Begin an answer. On the caller's loop.

        Args:
            ask: what is asked.
            model: the call's own model parameters: adapter, template, parsers.
            variables: of the chat template.
            echo: begin the answer with the prompt.
        """
        if self._closing:
            raise EngineClosedError("the engine is closed", provider=failures.NAME)
        if self._llm.errored:
            raise EngineError(failures.DEAD, provider=failures.NAME)
        job = Job(ask, model, variables, echo=echo)
        job.feed = Feed(on_abort=partial(self._leave, job))
        if not self._soon(self._begin, job):
            raise EngineClosedError("the engine is closed", provider=failures.NAME)
        return job.feed

    def close(self) -> None:
        """See `worker.Closable`."""
        with self._lock:
            self._closing = True
        if self._thread is None:
            return
        by = time.monotonic() + JOIN_GRACE
        while not self._ready.wait(_TICK) and time.monotonic() < by:
            if self._starting is not None:  # nobody wants the model any more, and loading it may take minutes
                self._starting.end()
        if self._ready.is_set() and self._failure is None:
            self._soon(self._halt)
        join_all([self._thread])

    def _leave(self, job: Job) -> None:
        self._soon(self._abort, job)

    def _soon(self, call: Callable[..., None], *arguments: Any) -> bool:
        try:
            # In the worker's own context: that of a caller on trio would have libraries here believe they are on trio.
            self._loop.call_soon_threadsafe(call, *arguments, context=self._context)
        except RuntimeError:  # the loop is closed
            return False
        return True

    # -- the worker's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 -- whoever waits for the model gets it
            _log.exception("the worker of vLLM failed")
            self._failure = failures.while_loading(error, self._settings.model)
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._stop = asyncio.Event()
        with _loading:
            try:
                self._load()
            except BaseException as error:  # noqa: BLE001 -- whoever waits for the model gets it
                self._failure = self._why_not_loaded(error)
                return
        watch = self._loop.create_task(self._watch())
        try:
            self._ready.set()
            if not self._closing:
                await self._stop.wait()
        finally:
            watch.cancel()
            await self._end_all()
            self._unload()

    def _load(self) -> None:
        settings = self._settings
        prepare_environment(verbose=settings.verbose)
        import_vllm()
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = engine_args(settings)
        self._starting = Starting()
        if self._closing:
            raise EngineClosedError(_UNLOADED, provider=failures.NAME)
        with kept():
            self._llm = llm = AsyncLLM.from_engine_args(arguments)
        config = llm.vllm_config
        self.sees = bool(config.model_config.is_multimodal_model)
        self.slots = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        lora = config.lora_config
        self._prompts = Prompts(llm)
        self._adapters = Adapters(
            settings,
            llm,
            most=None if lora is None else lora.max_lora_rank,
            places=lora.max_loras - 1 if lora is not None and current_platform.is_cpu() else None,
        )

    def _why_not_loaded(self, error: BaseException) -> AsyncInferError:
        if self._closing:
            return EngineClosedError(_UNLOADED, provider=failures.NAME)
        return failures.while_loading(error, self._settings.model)

    def _unload(self) -> None:
        llm = self._llm
        llm.shutdown(timeout=_GRACE)
        # Its finalizer would do so once more, perhaps while Python takes its modules apart.
        llm.shutdown = _nothing

    async def _watch(self) -> None:
        """A request that was on its way in while vLLM's process died is told of it by nobody else."""
        while True:
            await asyncio.sleep(_WATCH)
            if self._llm.errored:
                for task, job in list(self._tasks.items()):
                    job.feed.fail(EngineError(failures.DEAD, provider=failures.NAME))
                    task.cancel()

    async def _end_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._flush()

    def _halt(self) -> None:
        self._stop.set()

    def _begin(self, job: Job) -> None:
        if self._closing or job.feed.cancelled:
            job.feed.fail(EngineClosedError(_CLOSED, provider=failures.NAME))
            return
        job.task = task = self._loop.create_task(self._serve(job))
        self._tasks[task] = job
        task.add_done_callback(self._tasks.pop)

    def _abort(self, job: Job) -> None:
        if job.task is not None:
            job.task.cancel()

    async def _serve(self, job: Job) -> None:
        try:
            await self._answer(job)
        except asyncio.CancelledError:
            job.feed.fail(EngineClosedError(_CLOSED, provider=failures.NAME))
            raise
        except Exception as error:  # noqa: BLE001 -- one bad request must not take the others with it
            self._flush()  # what came before the failure comes before it there too
            job.feed.fail(failures.in_request(error))

    async def _answer(self, job: Job) -> None:
        ask, llm, settings = job.ask, self._llm, self._settings
        lora = await self._adapters.of(job.model)
        source = template(job.model.chat_template)
        parsed = parsing(
            ask,
            tool_parser=job.model.tool_call_parser or settings.tool_parser,
            reasoning_parser=job.model.model_kwargs.get("reasoning_parser") or settings.reasoning_parser,
            llm=llm,
            shape=shape(ask),
            variables=job.variables,
        )
        prompt = await self._prompts.render(ask, source, job.variables)
        params = sampling(
            ask,
            structured=None if parsed is None else parsed.structured,
            skip_special=None if parsed is None else parsed.skip_special,
        )
        name = f"chatcmpl-{secrets.token_hex(12)}"
        tokenizer = llm.get_tokenizer()
        reader = Reader(name, settings.model, ask, prompt, parsed, tokenizer)
        if job.echo:
            reader.echo = tokenizer.decode(prompt.tokens, skip_special_tokens=ask.skip_special)
        async with aclosing(llm.generate(prompt.inputs, params, name, lora_request=lora)) as outputs:
            async for output in outputs:
                events = reader.feed(output)
                if events or output.finished:
                    self._send(job.feed, events, ended=output.finished)

    # -- out ---------------------------------------------------------------------------------------------------------

    def _send(self, feed: Feed, events: list[Event], *, ended: bool) -> None:
        # Tasks that one step of vLLM woke run one after the other; what is called soon runs behind all of them.
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((feed, events, ended))

    def _flush(self) -> None:
        out, self._out = self._out, []
        send_all(out)


def _nothing() -> None:
    """In place of what has been done."""


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where vLLM has brought it."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return factory
