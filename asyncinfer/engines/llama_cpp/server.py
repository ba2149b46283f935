"""Binding a: ``xllamacpp``, an in-process llama-server. It batches; we give it one thread for each active stream.

What was measured of it, and is therefore done here:

* Destroying a server that never served a request hangs: it serves one token while it is being loaded.
* Destroying it while a thread is inside aborts the process: `close` stops every stream, joins every thread, and only
  then lets the server go. A thread that does not come back keeps the server alive for good.
* Its callback is asked only when there is something to report: ``return_progress`` makes it report every batch of a
  prompt too, so that a cancelled prefill stops after one batch.
* It opens an HTTP listener that cannot be switched off: on loopback, behind a random key that nobody knows.
* Its constructor holds the interpreter's lock: every event loop of the process waits for what it does. So the file is
  read into the page cache first, the library's own warm-up is left to that first token, and the search for a layout
  that fits a GPU to machines that have one. What is left is 10 to 60 ms for the embedded model; copying a big model
  to a GPU remains in there, and is an advantage of llama-cpp-python.
* It keeps up to 8 GiB of old prompts in memory unless told not to.
* ``tool_choice`` with a name is read as "auto": `ask` narrows the tools instead.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from ...errors import AsyncInferError, BadRequestError, EngineClosedError, EngineError
from ..local.several import Several
from ..worker import Crew
from .chunks import ChunkReader, request_body
from .gguf import context_length, damage, silent_tokens
from .launching import launch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..local.ask import Ask
    from ..local.several import Voice
    from ..worker import Feed
    from .settings import Settings

_log = logging.getLogger("asyncinfer")

_READ_AHEAD = 8 * 2**20
"""Bytes read at a time."""

_stuck: list[Any] = []
"""Servers that a thread never came back from: they live until the process ends, for destroying them would abort it."""


class _Job:
    __slots__ = ("ask", "body", "feed")

    def __init__(self, body: str, feed: Feed | Voice, ask: Ask) -> None:
        self.body = body
        self.feed = feed
        self.ask = ask


class ServerBinding:
    """See `binding.Binding`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: Any = None
        self._context = 0
        self._silent: frozenset[int] | None = None
        self.sees = False
        self._lock = threading.Lock()
        self._closing = False
        self._crew: Crew[_Job] = Crew("asyncinfer-llamacpp", settings.slots, self._serve, _died)

    def load(self) -> None:
        settings = self._settings
        path = settings.file()
        projector = settings.projector_file(path)
        context = settings.context(context_length(path))
        self._read_ahead(path)
        if self._closing:
            return
        try:
            server = launch(settings, str(path), context, projector)
        except Exception as error:
            why = damage(path) or f"{error} (model_kwargs={{'verbose': True}} shows why)"
            raise EngineError(f"{path} could not be loaded by xllamacpp: {why}") from error
        with self._lock:
            if not self._closing:
                self._context = context
                self._server = server
                self.sees = projector is not None

    def _read_ahead(self, path: Path) -> None:
        """Bring the file into the page cache, in pieces, without the interpreter's lock."""
        if path.stat().st_size > _memory() // 2:
            return
        piece = bytearray(_READ_AHEAD)
        with path.open("rb", buffering=0) as file:
            while not self._closing and file.readinto(piece):
                pass

    def submit(self, ask: Ask, feed: Feed) -> None:
        for one, voice in [(ask, feed)] if ask.n == 1 else Several(feed, ask.n).asks(ask):
            body = msgspec.json.encode(request_body(one, self._context)).decode()
            self._crew.submit(_Job(body, voice, one))

    def close(self) -> None:
        with self._lock:
            self._closing = True
            server, self._server = self._server, None
        for job in self._crew.close():
            job.feed.fail(EngineClosedError("the engine was closed before this call began"))
        try:
            self._crew.join()
        except EngineError:
            _stuck.append(server)
            raise

    def _warn_of_silent(self, stops: Sequence[int]) -> None:
        """A token is seen by the text it stands for; one that stands for none goes by unseen."""
        if self._silent is None:
            self._silent = silent_tokens(self._settings.file())
        unseen = [token for token in stops if token in self._silent]
        if unseen:
            _log.warning(
                "xllamacpp does not stop at the special tokens %s unless they end every answer of the model anyway; "
                "model_kwargs={'binding': 'llama-cpp-python'} does",
                unseen,
            )

    # -- on a thread of the crew -------------------------------------------------------------------------------------

    def _serve(self, job: _Job) -> None:
        feed = job.feed
        server = self._server
        if server is None or self._closing:
            feed.fail(EngineClosedError("the engine is closed"))
            return
        if feed.cancelled:
            return
        if job.ask.stop_ids:
            self._warn_of_silent(job.ask.stop_ids)
        reader = ChunkReader(job.ask)
        broken: list[AsyncInferError] = []

        def on_chunk(chunk: str) -> bool:
            """True stops the stream. An exception would be swallowed by the library."""
            if feed.cancelled or self._closing:
                return True
            try:
                events = reader.feed(chunk)
            except AsyncInferError as error:
                broken.append(error)
                return True
            except Exception as error:  # noqa: BLE001 -- crosses as a typed error below
                broken.append(EngineError(f"a chunk of llama.cpp could not be read: {error!r}"))
                return True
            if events:
                feed.send(events)
            return reader.stopped

        try:
            chat = job.ask.prompt is None
            (server.handle_chat_completions if chat else server.handle_completions)(job.body, on_chunk)
        except (ValueError, RuntimeError) as error:
            broken.append(BadRequestError(f"llama.cpp refuses the request: {error}"))
        if broken:
            feed.fail(broken[0])
        elif reader.finished:
            feed.end()
        else:
            feed.fail(
                EngineClosedError("the engine was closed while this call was under way")
                if self._closing
                else EngineError("llama.cpp ended the answer without a reason")
            )


def _memory() -> int:
    """Bytes of memory of this machine, or 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def _died(job: _Job, error: BaseException) -> None:
    _log.error("a llama.cpp thread failed", exc_info=error)
    job.feed.fail(EngineError(f"the engine's thread failed: {error!r}"))
