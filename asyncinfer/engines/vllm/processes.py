"""vLLM's processes: they are quiet from their first line, end with their parent, and are out of Ctrl-C's way.

By itself, vLLM's engine process outlives a parent that is killed while the model loads, and holds its memory. And a
terminal sends Ctrl-C to it too, where it looks like a crash. So `kept` puts a `Program` in the place of what such a
process runs: that comes to life before vLLM is imported there, and watches the parent. No signal handler of the
application is touched, and none is needed.

Rule: imported in each of those processes before anything else; so nothing of vLLM, nor of PyTorch, on top.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess

_WORKER = ("vllm.v1.executor.multiproc_executor", "WorkerProc", "worker_main")
_PROGRAMS = (
    ("vllm.v1.engine.core", "EngineCoreProc", "run_engine_core"),
    ("vllm.v1.engine.coordinator", "DPCoordinatorProc", "run_coordinator"),
    _WORKER,
)
"""What vLLM's processes run: module, class, function. The first one's start the last one's."""
_NAMES = ("EngineCore", "VLLM_DP_Coordinator")
"""How the names of the processes begin that this one starts."""
_LEAVE = getattr(signal, "SIGUSR1", signal.SIGTERM)
"""Ends a process at once, in good order. vLLM's own way, SIGTERM, is not looked at until the model is loaded."""
_GRACE = 5.0
"""Seconds in which a process may end in good order: what is killed leaves shared memory to be cleaned up by others."""

_arrived: list[int] = []
"""The number of the process that `_arrive` has run in."""


class Program:
    """What one of vLLM's processes runs.

    Args:
        place: of the function: module, class, name.
        original: the function itself; a spawned process finds it by its place.
    """

    def __init__(self, place: tuple[str, str, str], original: Callable[..., Any] | None = None) -> None:
        self._place = place
        self._original = original

    def __reduce__(self) -> tuple[Any, ...]:
        """A spawned process reads this before its arguments, whose types import all of vLLM."""
        return _arrive, (self._place,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function, and watch over the processes that it starts in turn."""
        _arrive(self._place)
        watch = threading.Thread(target=_watch, args=(self._place != _WORKER,), name="asyncinfer-parent", daemon=True)
        watch.start()  # not before: a process learns of its parent after it has read its arguments
        module, owner, name = self._place
        found = self._original or getattr(getattr(import_module(module), owner), name)
        with kept():
            return found(*args, **kwargs)


@contextmanager
def kept() -> Iterator[None]:
    """Whatever vLLM starts herein runs a `Program`. A version that has no such function starts it as ever."""
    with ExitStack() as undo:
        for place in _PROGRAMS:
            try:
                owner = getattr(import_module(place[0]), place[1])
                found = getattr(owner, place[2])
            except (ImportError, AttributeError):
                continue
            if not isinstance(found, Program):
                setattr(owner, place[2], Program(place, found))
                undo.callback(setattr, owner, place[2], staticmethod(found))
        yield


def _arrive(place: tuple[str, str, str]) -> Program:
    """The first thing in a process of vLLM."""
    if _arrived != [os.getpid()]:
        _arrived[:] = [os.getpid()]
        level = os.environ.get("VLLM_LOGGING_LEVEL")
        if level:  # vLLM speaks while it is imported, before it has read that
            with suppress(ValueError):
                logging.getLogger("vllm").setLevel(level.upper())
        if place != _WORKER:
            if hasattr(os, "setpgrp"):
                os.setpgrp()
            signal.signal(_LEAVE, _leave)
    return Program(place)


def _leave(_number: int, _frame: Any) -> None:
    for process in multiprocessing.active_children():
        process.terminate()  # one that is still importing vLLM hears nothing else, and would be waited for
    raise SystemExit(0)


def _watch(leads: bool) -> None:
    """End with the parent, and with all processes that this one leads."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    if leads:
        # Nothing can be relied on in a process that is ending, threads like this one least: the alarm is the system's.
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 2 * _GRACE)
        os.kill(os.getpid(), _LEAVE)
    time.sleep(_GRACE)
    _kill(os.getpid())


def _kill(number: int) -> None:
    """Kill a process, and those that it leads."""
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgid(number) == number:
            os.killpg(number, signal.SIGKILL)
        else:
            os.kill(number, signal.SIGKILL)


class Starting:
    """The processes of an engine that is being loaded. Made when that begins; only one engine is loaded at a time."""

    def __init__(self) -> None:
        self._before = {process.pid for process in multiprocessing.active_children()}
        self._told: dict[int, float] = {}

    def end(self) -> None:
        """Have them end; call it again and again, for more may be starting. Any thread."""
        for process in multiprocessing.active_children():
            number = process.pid
            if number is None or number in self._before or not _is_ours(process):
                continue
            if number not in self._told:
                self._told[number] = time.monotonic()
                with suppress(ProcessLookupError):
                    os.kill(number, _LEAVE)
            elif time.monotonic() > self._told[number] + _GRACE:
                _kill(number)


def _is_ours(process: BaseProcess) -> bool:
    return process.name.startswith(_NAMES)
