"""The one background loop that everything of this room works on. Rule: nobody else starts one."""

from __future__ import annotations

import atexit
import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import anyio.from_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.from_thread import BlockingPortal

_lock = threading.Lock()
_portal: BlockingPortal | None = None


def _background() -> BlockingPortal:
    """The portal to the one background loop; started on first use, stopped when the program ends."""
    global _portal
    with _lock:
        if _portal is None:
            manager: AbstractContextManager[BlockingPortal] = anyio.from_thread.start_blocking_portal("asyncio")
            _portal = manager.__enter__()
            atexit.register(manager.__exit__, None, None, None)
        return _portal


def run(async_fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run on the background loop and wait; Ctrl-C stops the work, too."""
    future = _background().start_task_soon(async_fn, *args)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
