"""The words of ``asyncinfer batch``. Rule: as in `app`, words in, one function call out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .. import InferenceConfig
from .logs import set_up

Job = Annotated[Path, typer.Argument(help="The file that `batch submit` wrote.", metavar="JOB")]
Config = Annotated[Path | None, typer.Option("-c", "--config", help="YAML configuration.", metavar="FILE")]
EngineName = Annotated[str | None, typer.Option("--engine", help="Engine, as in `asyncinfer engines`.")]
Model = Annotated[str | None, typer.Option("-m", "--model", help="provider:model.", metavar="MODEL")]
Input = Annotated[
    Path | None, typer.Option("--input_path", "--input-path", help="JSONL of conversations.", metavar="FILE")
]
Output = Annotated[
    Path | None, typer.Option("--output_path", "--output-path", help="Where the answers go.", metavar="FILE")
]

Configure = Callable[[Path | None, str | None, str | None], InferenceConfig]
"""Configuration file, engine and model to a configuration, with the command line's overrides."""
Ended = Callable[[Callable[[], int]], None]
"""Runs a command's work and keeps its exit code."""


def batch_commands(configure: Configure, ended: Ended) -> typer.Typer:
    """The group of commands.

    Args:
        configure: makes the configuration.
        ended: runs a command's work and keeps its exit code.
    """
    group = typer.Typer(
        no_args_is_help=True,
        help=(
            "Leave a file of conversations to a provider's batch API: half the price, answers within hours.\n\n"
            "\b\nExamples:\n"
            "  asyncinfer batch submit -m openai:gpt-4o-mini --input_path in.jsonl     writes in.job.json\n"
            "  asyncinfer batch submit --resume in.job.json                            after an interruption\n"
            "  asyncinfer batch wait in.job.json\n"
            "  asyncinfer batch results in.job.json --output_path out.jsonl"
        ),
    )

    _add_first(group, configure, ended)
    _add_rest(group, configure, ended)
    return group


def _add_first(group: typer.Typer, configure: Configure, ended: Ended) -> None:
    """To give a job away, and to look at it."""

    @group.command(help="Submit a file; the job is kept in JOB, by default beside the input.")
    def submit(
        input_path: Input = None,
        job: Annotated[Path | None, typer.Option("--job", help="Where the job is kept.", metavar="JOB")] = None,
        resume: Annotated[
            Path | None, typer.Option("--resume", help="Go on with a job that was interrupted.", metavar="JOB")
        ] = None,
        max_rows: Annotated[
            int | None,
            typer.Option("--max_rows", "--max-rows", help="Rows of one provider job, at most.", metavar="N", min=1),
        ] = None,
        config: Config = None,
        engine: EngineName = None,
        model: Model = None,
    ) -> None:
        def work() -> int:
            set_up("WARNING")
            from . import jobs

            if resume is not None:
                return jobs.resume(resume, configure(config, engine, model), input_path, max_rows)
            return jobs.submit(configure(config, engine, model), input_path, job, max_rows)

        ended(work)

    @group.command(help="Say how far a job is.")
    def status(
        job: Job,
        as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
        config: Config = None,
    ) -> None:
        def work() -> int:
            set_up("WARNING")
            from . import jobs

            return jobs.status(job, configure(config, None, None), as_json=as_json)

        ended(work)


def _add_rest(group: typer.Typer, configure: Configure, ended: Ended) -> None:
    """To wait for a job, take its answers, stop it."""

    @group.command(help="Wait until a job has ended. Ctrl-C leaves the job alone.")
    def wait(
        job: Job,
        interval: Annotated[float, typer.Option("--interval", help="Seconds between the first looks.", min=0)] = 10.0,
        timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds to wait at most.", min=0)] = None,
        quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")] = False,
        config: Config = None,
    ) -> None:
        def work() -> int:
            set_up("WARNING")
            from . import jobs

            return jobs.wait(job, configure(config, None, None), interval=interval, timeout=timeout, quiet=quiet)

        ended(work)

    @group.command(help="Write the answers; exit code 3: some rows failed, they are in <output>.failures.jsonl.")
    def results(
        job: Job,
        output_path: Output = None,
        input_path: Input = None,
        partial: Annotated[bool, typer.Option("--partial", help="The job need not have ended.")] = False,
        config: Config = None,
    ) -> None:
        def work() -> int:
            set_up("WARNING")
            from . import jobs

            return jobs.results(job, configure(config, None, None), output_path, input_path, partly=partial)

        ended(work)

    @group.command(help="Ask the provider to stop a job; finished answers stay.")
    def cancel(job: Job, config: Config = None) -> None:
        def work() -> int:
            set_up("WARNING")
            from . import jobs

            return jobs.cancel(job, configure(config, None, None))

        ended(work)
