"""`run_file`: the rows of a file through ``engine.generate_many`` into the journal, and at the end into the output.

Rule: it uses an engine as any caller would. Memory is the window of rows in flight plus 8 bytes for each row of the
file. What a crash at each moment leaves, and why that is enough, is said where it happens: `journal`, `assembly`.
"""

from __future__ import annotations

import logging
import time
import zlib
from array import array
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from .. import (
    AsyncInferError,
    AuthenticationError,
    ConfigError,
    EngineError,
    NotFoundError,
    QuotaExceededError,
    UnsupportedParameterError,
)
from .assembly import Assembly
from .earlier import take_over
from .journal import ANSWER, FAILURE, SETTINGS, Journal
from .keys import describe_settings, digest_row, digest_settings
from .places import Places
from .plan import Plan, make_plan
from .progress import ProgressFile
from .receipt import Receipt
from .record import Secrets, answer_record, failure_record
from .rows import InputFile, Row, conversation_of, parse_row
from .steps import drive
from .summary import BatchError, BatchProgress, BatchSummary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from .. import Completion, Conversation, Failure, InferenceConfig

_log = logging.getLogger("asyncinfer.batch")

_UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading the input can raise; the last two where a gzip file is cut off or damaged."""

_TICK = 0.2
"""Seconds between two reports."""
_FILE_EVERY = 1.0
"""Seconds between two progress files."""
_SYNC_EVERY = 5.0
"""Seconds of work that a power loss may cost."""

_HOPELESS = (AuthenticationError, QuotaExceededError, NotFoundError, EngineError, UnsupportedParameterError)
"""Errors that are not about one row: the next row will meet them, too."""
_HOPELESS_LIMIT = 10
"""So many of them in a row, and the batch stops rather than fail its other million rows."""


async def run_file(
    engine: Any,
    input_path: str | Path | None = None,
    output_path: str | Path | None = None,
    *,
    inference_config: InferenceConfig | None = None,
    on_progress: Callable[[BatchProgress], object] | None = None,
    progress_path: str | Path | None = None,
    strict: bool = False,
    overwrite: bool = False,
    tenant: str = "batch",
    weight: float = 1.0,
) -> BatchSummary:
    """Answer every conversation of a JSONL file.

    The output has the rows of the input, in order, each with the new assistant message and, in ``metadata``, ``usage``
    and ``finish_reason``; everything else in a row stays as it is. Rows that failed are not in it but in
    ``<output>.failures.jsonl``, with their index. Finished rows go into a journal beside the output at once: after a
    crash or a cancellation the same call goes on where that one stopped. Failed rows are tried again by the next call.
    An answer is used again only for a row that says the same, and the same engine, endpoint, model and parameters: also
    one from a complete output, as long as nobody changed that, so that rows that are added later are all that is asked.

    Args:
        engine: an engine; or an `InferenceConfig`, a ``"provider:model"`` or None (the embedded model), and an engine
            is opened for this call.
        input_path: JSONL, or ``.gz`` of it; the config's ``input_path`` if None.
        output_path: where the answers go; the config's ``output_path`` if None. Its directory is created.
        inference_config: parameters of this run; explicitly set ones override the engine's.
        on_progress: called on the event loop with a `BatchProgress`, about five times a second and at the end.
        progress_path: a small JSON file that is kept up to date every second.
        strict: refuse the file, before anything is asked, if one of its lines is no conversation. Otherwise such a line
            is a failed row.
        overwrite: forget finished rows and an earlier output, and start over.
        tenant: the name under which the batch shares the engine's limiter fairly with other callers.
        weight: its share, a positive number.

    Returns:
        `BatchSummary`; ``.ok`` is False if rows failed.

    Raises:
        ConfigError: a path or parameter is wrong, or (strict) a line is.
        BatchError: a file cannot be written, another process works on the same output, or the engine refuses every
            row for a reason that is not the row's. What was finished is kept.
    """
    config = _as_config(engine) or inference_config
    input_path = input_path or getattr(config, "input_path", None)
    output_path = output_path or getattr(config, "output_path", None)
    progress_path = progress_path or getattr(config, "progress_path", None)
    for name, path in (("input_path", input_path), ("output_path", output_path)):
        if not path:
            raise ConfigError(f"a batch needs an {name}: pass it, or set it in the configuration", path=name)
    assert input_path
    assert output_path
    source = InputFile(input_path)
    places = Places(input_path, output_path)
    opened = _open(engine)
    run = _Run(
        engine if opened is None else opened,
        opened is not None,
        source,
        places,
        inference_config=inference_config,
        tenant=tenant,
        weight=weight,
        on_progress=on_progress,
        progress_file=ProgressFile(progress_path) if progress_path else None,
    )
    try:
        return await run.run(strict=strict, overwrite=overwrite)
    finally:
        if opened is not None:
            with anyio.CancelScope(shield=True):
                await opened.aclose()


def _as_config(engine: Any) -> InferenceConfig | None:
    from .. import InferenceConfig

    return engine if isinstance(engine, InferenceConfig) else None


def _open(engine: Any) -> Any:
    """A new engine, if ``engine`` is not one."""
    if engine is None or isinstance(engine, str) or _as_config(engine) is not None:
        from .. import open_engine

        return open_engine(engine)
    return None


class _Run:
    """One run of one batch."""

    def __init__(
        self,
        engine: Any,
        owned: bool,
        source: InputFile,
        places: Places,
        *,
        inference_config: InferenceConfig | None,
        tenant: str,
        weight: float,
        on_progress: Callable[[BatchProgress], object] | None,
        progress_file: ProgressFile | None,
    ) -> None:
        self._engine = engine
        self._owned = owned
        self._source = source
        self._places = places
        self._call = {"inference_config": inference_config, "tenant": tenant, "weight": weight}
        self._on_progress = on_progress
        self._progress_file = progress_file
        self._settings = describe_settings(engine, inference_config)
        self._key = digest_settings(self._settings)
        self._secrets = Secrets(
            getattr(engine, "remote_params", None), getattr(inference_config, "remote_params", None)
        )
        self._asked: dict[int, tuple[Row, bytes]] = {}
        self._taken = 0
        self._completed = self._failed = self._input_tokens = self._output_tokens = 0
        self._hopeless = 0
        self._began = time.monotonic()
        self._started: float | None = None
        self._phase: Any = "reading"
        self._plan = Plan(array("q"), 0, None, "")
        self._journal: Journal

    async def run(self, *, strict: bool, overwrite: bool) -> BatchSummary:
        self._tell()
        self._journal = await anyio.to_thread.run_sync(Journal, self._places.journal)
        try:
            return await self._locked(strict=strict, overwrite=overwrite)
        finally:
            self._journal.close()

    async def _locked(self, *, strict: bool, overwrite: bool) -> BatchSummary:
        """Everything that needs the journal's lock."""
        places, journal = self._places, self._journal
        if overwrite:
            journal.clear()
        elif journal.damaged:
            _log.warning("%d damaged line(s) in %s; their rows are asked again", journal.damaged, journal.path)
        try:
            self._plan = plan = await drive(make_plan(self._source, journal, self._key, strict=strict))
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        self._completed = plan.resumed
        receipt = Receipt.read(places.receipt)
        ours = receipt is not None and receipt.job == plan.job and receipt.describes(places.output)
        if ours and not overwrite and receipt is not None and receipt.failed == 0:
            return self._nothing_to_do()
        foreign = places.output.exists() and not ours and not overwrite
        if foreign and receipt is not None:
            foreign = not await self._take_over(receipt)
        if foreign:
            _log.warning(
                "%s was made from another input or with other parameters; once this run is complete it is kept as %s",
                places.output,
                places.backup.name,
            )
        if plan.resumed:
            _log.info("%d of %d rows have an answer already", plan.resumed, plan.total)
        await self._report_while(self._ask)
        self._phase = "writing"
        replaced = await self._report_while(self._assemble, foreign)
        return self._summary(replaced=replaced)

    async def _take_over(self, receipt: Receipt) -> bool:
        """Use the answers of an output that these settings made of other rows. Whether all of them are in use: else it
        has something that the new one will not."""
        if receipt.settings != self._key.hex() or not receipt.describes(self._places.output):
            return False
        steps = take_over(self._source, self._plan, self._journal, self._key, self._places.output)
        try:
            taken, all_of_them = await drive(steps)
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        if taken:
            _log.info("%d rows have their answers in %s already", taken, self._places.output)
        self._completed = self._plan.resumed
        return all_of_them

    def _unreadable(self, error: Exception) -> BatchError:
        return BatchError(f"cannot read the input {self._source.path}: {error}")

    def _nothing_to_do(self) -> BatchSummary:
        # Killed after the output appeared and before the journal went: finish that.
        self._places.failures.unlink(missing_ok=True)
        self._journal.remove()
        self._completed = self._plan.total
        self._plan.resumed = self._plan.total
        self._tell()
        return self._summary(already_complete=True)

    # -- asking ------------------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """Every row without an answer, through the engine."""
        plan = self._plan
        if plan.first is None:
            return
        self._phase = "running"
        self._started = time.monotonic()
        header = {
            "engine": self._settings["engine"],
            "model": self._settings["model"].get("model_name"),
            "input": self._source.path.name,
            "started_at": datetime.now(UTC).isoformat(),
        }
        self._journal.append(SETTINGS, self._key, header)
        if self._owned:
            await self._engine.__aenter__()  # what cannot be opened says so here, once, and not for each row
        try:
            call = {name: value for name, value in self._call.items() if value is not None}
            async with self._engine.generate_many(self._rows(plan.first), ordered=False, **call) as results:
                async for result in results:
                    self._note(result)
        except AsyncInferError:
            raise
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        await anyio.to_thread.run_sync(self._journal.sync)
        self._source.check_unchanged()

    def _rows(self, first: Row) -> Iterator[Conversation]:
        """The conversations to ask, in order. What is no conversation fails here."""
        where = self._plan.where
        for row in self._source.rows(first):
            if row.number >= len(where):
                return  # the file has grown since it was read: `check_unchanged` will say so
            if where[row.number]:
                continue
            digest = digest_row(self._key, row.raw)
            try:
                conversation = conversation_of(parse_row(row.raw))
            except ConfigError as error:
                self._fail(row, digest, error)
                continue
            self._asked[self._taken] = (row._replace(raw=b""), digest)
            self._taken += 1
            yield conversation

    def _note(self, result: Completion | Failure) -> None:
        assert result.index is not None
        row, digest = self._asked.pop(result.index)
        if not result:
            self._fail(row, digest, result.error)
            self._stop_if_hopeless(result.error)
            return
        self._hopeless = 0
        self._plan.where[row.number] = self._journal.append(ANSWER, digest, answer_record(result))
        self._completed += 1
        self._input_tokens += result.usage.input_tokens
        self._output_tokens += result.usage.output_tokens

    def _fail(self, row: Row, digest: bytes, error: AsyncInferError) -> None:
        record = failure_record(error, row.line, self._secrets)
        self._plan.where[row.number] = -self._journal.append(FAILURE, digest, record)
        self._failed += 1
        _log.debug("row %d (line %d) failed: %s", row.number, row.line, record["message"])

    def _stop_if_hopeless(self, error: AsyncInferError) -> None:
        if not isinstance(error, _HOPELESS):
            self._hopeless = 0
            return
        self._hopeless += 1
        remaining = self._plan.total - self._completed - self._failed
        if self._hopeless < _HOPELESS_LIMIT or not remaining:
            return
        stop = BatchError(
            f"stopped: {_HOPELESS_LIMIT} rows in a row failed with {type(error).__name__}, and the {remaining} others "
            f"would, too: {self._secrets.redact(error.message)}",
            provider=error.provider,
            status=error.status,
            request_id=error.request_id,
            code=error.code,
        )
        raise stop from error

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _assemble(self, keep_earlier: bool) -> Path | None:
        assembly = Assembly(self._source, self._plan, self._places)
        reader = self._journal.reader()
        try:
            failed = await drive(assembly.write(reader))
        finally:
            reader.close()
        # From here on no await: a cancellation cannot come between two renames.
        replaced = assembly.move_into_place(failed, keep_earlier=keep_earlier)
        if not failed:
            self._journal.remove()
        return replaced

    # -- telling -----------------------------------------------------------------------------------------------------

    async def _report_while(self, work: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Await the work while a second task reports and forces the journal to the disk."""
        result: Any = None
        error: BaseException | None = None
        cancelled = anyio.get_cancelled_exc_class()
        try:
            async with anyio.create_task_group() as group:

                async def ticker() -> None:
                    nonlocal error
                    try:
                        await self._tick()
                    except Exception as raised:  # noqa: BLE001 -- handed to the caller, bare
                        error = raised
                        group.cancel_scope.cancel()

                group.start_soon(ticker)
                try:
                    result = await work(*args)
                except cancelled:
                    raise
                except BaseException as raised:  # noqa: BLE001 -- handed to the caller, bare: Ctrl-C, too
                    error = raised
                group.cancel_scope.cancel()
        finally:
            self._tell()  # also where it was cancelled: what is said last must be what is kept
        if error is not None:
            raise error
        return result

    async def _tick(self) -> None:
        filed = synced = time.monotonic()
        self._tell()
        while True:
            await anyio.sleep(_TICK)
            now = time.monotonic()
            self._tell(file=now - filed >= _FILE_EVERY)
            if now - filed >= _FILE_EVERY:
                filed = now
            if now - synced >= _SYNC_EVERY:
                await anyio.to_thread.run_sync(self._journal.sync)
                synced = time.monotonic()

    def _tell(self, *, file: bool = True) -> None:
        progress = self.progress()
        if file and self._progress_file is not None:
            self._progress_file.write(progress)
        if self._on_progress is not None:
            self._on_progress(progress)

    def progress(self) -> BatchProgress:
        """How far the run is."""
        return BatchProgress(
            phase=self._phase,
            total=self._plan.total,
            completed=self._completed,
            failed=self._failed,
            resumed=self._plan.resumed,
            in_flight=len(self._asked),
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            elapsed=0.0 if self._started is None else time.monotonic() - self._started,
        )

    def _summary(self, *, already_complete: bool = False, replaced: Path | None = None) -> BatchSummary:
        return BatchSummary(
            total=self._plan.total,
            completed=self._completed,
            failed=self._failed,
            resumed=self._plan.resumed,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            elapsed=time.monotonic() - self._began,
            output_path=self._places.output,
            failures_path=self._places.failures if self._failed else None,
            already_complete=already_complete,
            replaced=replaced,
        )
