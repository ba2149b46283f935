"""Provider jobs from a JSONL file to a JSONL file. Rule: neither file is ever in memory; the job is saved as it grows.

The output is that of `run_file`: the input's rows in order with the new message and its metadata, failed rows in
``<output>.failures.jsonl`` with their index.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import anyio.to_thread

from ... import BatchJob, ConfigError
from ..places import Places
from ..record import Secrets, answer_record, answered_row, failure_record
from ..rows import InputFile, conversation_of, parse_json, parse_row, to_line
from ..summary import BatchError
from .submission import submit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ... import Completion, Failure

_SOURCE = "input"
_SIZE = "input_bytes"


async def submit_file(engine: Any, input_path: str | Path, job_path: str | Path, **options: Any) -> BatchJob:
    """Give every conversation of a JSONL file to the provider's batch API; keep the job in a file.

    The file is written again whenever the provider has taken a part, so that a crash loses nothing paid for:
    `resume_file` goes on from there.

    Args:
        engine: as for `submit`.
        input_path: JSONL, or ``.gz`` of it. A line that is no conversation becomes a failed row.
        job_path: where the job's JSON goes; must not exist.
        options: as for `submit`.

    Raises:
        ConfigError: a path or parameter is wrong.
        BatchError: the job's file cannot be written.
        AsyncInferError: the provider refuses.
    """
    source, target = InputFile(input_path), Path(job_path)
    _claim(target)
    labels = {_SOURCE: str(source.path.resolve()), _SIZE: str(source.path.stat().st_size), **options.pop("labels", {})}
    try:
        job = await submit(
            engine, _conversations(source), labels=labels, on_part=lambda job: _save(target, job.to_json()), **options
        )
    except BaseException:
        _release(target)
        raise
    _save(target, job.to_json())
    return job


async def resume_file(
    job: BatchJob, job_path: str | Path, input_path: str | Path | None = None, **options: Any
) -> BatchJob:
    """Submit the rest of a file whose submission was interrupted; the job is kept in its file as it grows.

    Args:
        job: what `submit_file` left behind, from its JSON.
        job_path: the file that it was read from; written again.
        input_path: the input, where it is no longer where it was.
        options: as for `submit`; what is left out is as the job has it.

    Raises:
        ConfigError: the input is not there, or not the one whose first rows were submitted.
        BatchError: the job's file cannot be written.
        AsyncInferError: the provider refuses; what it took meanwhile is in the file.
    """
    source, target = _input_of(job, input_path), Path(job_path)
    await job.engine.batch.submit(  # type: ignore[attr-defined]
        _conversations(source), resume=job, on_part=lambda job: _save(target, job.to_json()), **options
    )
    _save(target, job.to_json())
    return job


async def collect_file(
    job: BatchJob, output_path: str | Path, input_path: str | Path | None = None, *, partial: bool = False
) -> tuple[int, int]:
    """Write the answers of a job that `submit_file` made.

    Args:
        job: the job.
        output_path: where the answers go.
        input_path: the input, where it is no longer where it was.
        partial: the job need not have ended; rows without an answer yet are left out.

    Returns:
        How many rows have an answer, and how many failed.

    Raises:
        ConfigError: the input is not there, or not the one that was submitted.
        BatchError: a file cannot be written.
        AsyncInferError: the job has not ended, or the provider does not give the answers.
    """
    source = _input_of(job, input_path)
    places = Places(source.path, output_path)
    secrets = Secrets(getattr(job.engine, "remote_params", None))
    with tempfile.TemporaryFile(prefix="asyncinfer-") as spool:
        where = array("q", bytes(8 * job.total))
        async with job.results(partial=partial) as results:
            async for result in results:
                assert result.index is not None
                where[result.index] = _note(spool, result, secrets)
        return await anyio.to_thread.run_sync(_assemble, source, places, where, spool)


def _note(spool: IO[bytes], result: Completion | Failure, secrets: Secrets) -> int:
    """Put a result into the spool; its place there, from 1, negative for a failure."""
    place = spool.seek(0, os.SEEK_END) + 1
    record = answer_record(result) if result else failure_record(result.error, 0, secrets)
    spool.write(to_line(record))
    return place if result else -place


def _assemble(source: InputFile, places: Places, where: array[int], spool: IO[bytes]) -> tuple[int, int]:
    done = failed = 0
    try:
        with places.output_part.open("wb") as output, places.failures_part.open("wb") as failures:
            for row in source.rows():
                place = where[row.number] if row.number < len(where) else 0
                if not place:
                    continue
                spool.seek(abs(place) - 1)
                record = json.loads(spool.readline())
                if place > 0:
                    output.write(to_line(answered_row(parse_row(row.raw), record)))
                    done += 1
                    continue
                record = {"index": row.number, **record, "line": row.line}
                try:
                    record["conversation"] = parse_json(row.raw)
                except ConfigError:
                    record["text"] = row.raw.decode("utf-8", "replace")
                failures.write(to_line(record))
                failed += 1
        places.output_part.replace(places.output)
        if failed:
            places.failures_part.replace(places.failures)
        else:
            places.failures_part.unlink()
            places.failures.unlink(missing_ok=True)
    except OSError as error:
        raise BatchError(f"cannot write the output {places.output}: {error.strerror or error}") from error
    return done, failed


def _conversations(source: InputFile) -> Iterator[Any]:
    """The conversations of a file; for a line that is none, the error that says why."""
    for row in source.rows():
        try:
            yield conversation_of(parse_row(row.raw))
        except ConfigError as error:
            yield error


def _input_of(job: BatchJob, path: str | Path | None) -> InputFile:
    """The file that a job was made from. Raises `ConfigError`."""
    source = InputFile(path or job.labels.get(_SOURCE) or "")
    size = job.labels.get(_SIZE)
    if size is not None and source.path.stat().st_size != int(size):
        raise ConfigError(f"{source.path} is not the file that was submitted: its size differs", path="input_path")
    return source


def _claim(path: Path) -> None:
    """Make the job's file, empty: what cannot be written says so before anything is paid for."""
    if path.exists() and path.stat().st_size:
        raise ConfigError(
            f"{path} exists: it may be the only way to the answers of another job; choose another name, or go on with "
            "it (--resume, `asyncinfer.batch.resume_file`)",
            path="job",
        )
    _save(path, "")


def _release(path: Path) -> None:
    """Remove it, unless a job is in it."""
    if not path.stat().st_size:
        path.unlink()


def _save(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise BatchError(f"cannot write {path}: {error.strerror or error}") from error
