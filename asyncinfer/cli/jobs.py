"""``batch submit|status|wait|results|cancel``: rows left to a provider's batch API; the job lies in a file between."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from .. import BatchJob, ConfigError
from ..batch import collect_file, resume_file, submit_file
from .exits import DONE, FAILED, SOME_ROWS_FAILED, say
from .setup import make_engine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .. import BatchStatus, InferenceConfig


def submit(config: InferenceConfig, input_path: Path | None, job_path: Path | None, max_rows: int | None) -> int:
    """Give a file of conversations to the provider; keep the job in ``job_path``."""
    source = input_path or (Path(config.input_path) if config.input_path else None)
    if source is None:
        raise ConfigError("which conversations? give --input_path FILE.jsonl", path="input_path")
    target = job_path or source.with_name(f"{source.stem}.job.json")
    engine = make_engine(config)

    async def work() -> BatchJob:
        return await submit_file(engine, source, target, max_rows=max_rows)

    return _submitted(engine, work, target)


def resume(job_path: Path, config: InferenceConfig, input_path: Path | None, max_rows: int | None) -> int:
    """Submit what an interrupted `submit` did not."""
    job = _load(job_path, config)
    source = input_path or (Path(config.input_path) if config.input_path else None)
    if config.model.model_name not in {None, job.model}:
        raise ConfigError(f"{job_path} is a job of {job.model}: leave the model out", path="model.model_name")
    if job.complete:
        say(f"all {job.total:,} rows were submitted already")
        print(job_path)
        return DONE
    given = config.generation if config.generation.model_fields_set else None  # checked: it must be that of the job
    work = partial(resume_file, job, job_path, source, generation=given, max_rows=max_rows)
    return _submitted(job.engine, work, job_path)


def _submitted(engine: Any, work: Callable[[], Awaitable[BatchJob]], target: Path) -> int:
    """Do it, and tell what came of it."""
    try:
        job = _run(engine, work)
    except BaseException as failure:
        if not isinstance(failure, ConfigError) and target.is_file() and target.stat().st_size:
            say(f"{target} has what was submitted; for the rest: asyncinfer batch submit --resume {target}")
        raise
    parts = f" in {len(job.parts)} provider jobs" if len(job.parts) > 1 else ""
    say(f"{job.total - len(job.unsent):,} of {job.total:,} rows submitted to {job.provider}{parts}")
    if job.unsent:
        index, error = next(iter(job.unsent.items()))
        say(f"{len(job.unsent):,} rows could not be sent; the first, row {index}: {error.message}")
    print(target)
    return DONE


def status(job_path: Path, config: InferenceConfig, *, as_json: bool) -> int:
    """Say how far a job is."""
    job = _load(job_path, config)
    found = _run(job.engine, job.status)
    _show(found, as_json=as_json)
    return DONE


def wait(job_path: Path, config: InferenceConfig, *, interval: float, timeout: float | None, quiet: bool) -> int:
    """Return when a job has ended; its state decides the exit code."""
    job = _load(job_path, config)
    last = [""]

    def tell(now: BatchStatus) -> None:
        line = _line(now)
        if line != last[0] and not quiet:
            say(line)
        last[0] = line

    look = partial(job.wait, interval=interval, longest=max(interval, 60.0), timeout=timeout, on_progress=tell)
    found = _run(job.engine, look)
    return FAILED if found.state == "failed" else DONE


def results(
    job_path: Path, config: InferenceConfig, output_path: Path | None, input_path: Path | None, *, partly: bool
) -> int:
    """Write the answers of a job."""
    job = _load(job_path, config)
    output = output_path or (Path(config.output_path) if config.output_path else None)
    if output is None:
        raise ConfigError("where should the answers go? give --output_path FILE.jsonl", path="output_path")
    done, failed = _run(job.engine, partial(collect_file, job, output, input_path, partial=partly))
    say(f"{done:,} of {job.total:,} rows answered" + (f", {failed:,} FAILED" if failed else ""))
    if failed:
        say(f"failed rows: {output.with_name(output.stem + '.failures' + output.suffix)}")
    print(output)
    return SOME_ROWS_FAILED if failed else DONE


def cancel(job_path: Path, config: InferenceConfig) -> int:
    """Ask the provider to stop a job."""
    job = _load(job_path, config)
    _show(_run(job.engine, job.cancel), as_json=False)
    return DONE


def _load(path: Path, config: InferenceConfig) -> BatchJob:
    """The job in a file; on the engine of the configuration where one is named, else on one like that which made it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the job {path}: {error.strerror}", path="job") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no job: it is not text", path="job") from error
    named = config.engine is not None or config.remote_params is not None
    return BatchJob.from_json(text, make_engine(config) if named else None)


def _run(engine: Any, work: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        try:
            return await work()
        finally:
            with anyio.CancelScope(shield=True):
                await engine.aclose()

    return anyio.run(run)


def _line(now: BatchStatus) -> str:
    parts = [f"{now.state}: {now.completed:,} of {now.total:,} rows done"]
    if now.failed:
        parts.append(f"{now.failed:,} failed")
    reasons = [part.reason for part in now.parts if part.reason]
    return ", ".join(parts) + (f" ({reasons[0]})" if reasons else "")


def _show(now: BatchStatus, *, as_json: bool) -> None:
    if as_json:
        parts = [{"id": part.id, "state": str(part.state), "said": part.said} for part in now.parts]
        value = {"state": str(now.state), "ended": now.ended, "total": now.total, "completed": now.completed}
        print(json.dumps({**value, "failed": now.failed, "parts": parts}))
        return
    print(_line(now))
    if len(now.parts) > 1:
        for part in now.parts:
            print(f"  {part.id}  {part.said}  {part.completed:,} of {part.total:,}")
