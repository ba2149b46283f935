"""The commands and their options. Rule: words in, one function call out; what happens stands in the other files."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .arguments import split_overrides
from .batchcommands import batch_commands
from .exits import DONE, WRONG_USAGE, guarded, say
from .logs import set_up
from .setup import Choices

_EXAMPLES = """\b
Examples:
  asyncinfer infer "What is the capital of France?"     the embedded model: no key, no network
  asyncinfer chat                                       a conversation with it
  asyncinfer infer -m openai:gpt-4o-mini "Hello"        a provider (key in OPENAI_API_KEY)
  asyncinfer infer -c config.yaml --input_path in.jsonl --output_path out.jsonl
  asyncinfer engines                                    what can run here
"""

_OVERRIDES = """\b
Every key of the configuration can be given as --section.key value, for example
  --generation.temperature 0.2   --model.model_kwargs.n_ctx 4096   --remote_params.api_url http://localhost:8000
"""

app = typer.Typer(
    name="asyncinfer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"Run language models, in this process or behind an API, through one interface.\n\n{_EXAMPLES}",
)

# What several commands share. Underscore and hyphen are the same in option names, as in the configuration guide.
Config = Annotated[Path | None, typer.Option("-c", "--config", help="YAML configuration.", metavar="FILE")]
EngineName = Annotated[
    str | None, typer.Option("--engine", help="Engine, as in `asyncinfer engines`: LLAMACPP, OPENAI, REMOTE ...")
]
Model = Annotated[
    str | None, typer.Option("-m", "--model", help="provider:model, or a model of the engine.", metavar="MODEL")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the sampler.")]
System = Annotated[str | None, typer.Option("--system-prompt", "--system_prompt", help="System prompt.")]
Images = Annotated[
    list[str] | None, typer.Option("--image", help="Image for the (first) prompt: a path or URL; repeatable.")
]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", "--log_level", help="DEBUG, INFO, WARNING (default; INFO in a batch) ...")
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tell about tokens, times and reasoning, on stderr.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")]

_state: dict[str, list[str]] = {"overrides": []}
_exit: dict[str, int] = {}


def run(words: list[str]) -> int:
    """Run a command line (without the program's name); return the exit code."""
    _exit.clear()
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an answer that the terminal cannot show must not end the program
    rest: list[str] = []

    def split() -> int:
        rest[:], _state["overrides"] = split_overrides(words)
        return DONE

    if guarded(split) != DONE:
        return WRONG_USAGE
    try:
        code = app(rest, prog_name="asyncinfer", standalone_mode=True)
    except SystemExit as end:
        code = end.code
    if _exit:
        return _exit["code"]
    return code if isinstance(code, int) else 0 if code is None else 1


def _open_what_is_closed() -> None:
    """A caller may close a standard stream (``>&-``): Python then has None there, and a file would get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 -- open to the end


def _choices(config: Path | None, engine: str | None, model: str | None, seed: int | None) -> Choices:
    return Choices(config, engine, model, seed, list(_state["overrides"]))


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("-V", "--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from .. import __version__

        print(f"asyncinfer {__version__}")
        raise typer.Exit


@app.command(
    epilog=_OVERRIDES,
    help=(
        "Answer one prompt, a piped text, a conversation (-i), or a whole file of them.\n\n"
        "\b\nExamples:\n"
        '  asyncinfer infer "Write a haiku about rain"\n'
        "  git diff | asyncinfer infer -m openai:gpt-4o-mini --system-prompt 'Review this diff'\n"
        "  asyncinfer infer -i -c config.yaml\n"
        "  asyncinfer infer -c config.yaml --input_path in.jsonl --output_path out.jsonl\n\n"
        "A stopped or killed batch goes on where it was when the same command is given again. Exit code 3: some rows "
        "failed; they are in <output>.failures.jsonl, and the same command tries them again."
    ),
)
def infer(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; without it, or as -, standard input.")] = None,
    config: Config = None,
    interactive: Annotated[bool, typer.Option("-i", "--interactive", help="A conversation, as in `chat`.")] = False,
    input_path: Annotated[
        Path | None, typer.Option("--input_path", "--input-path", help="JSONL of conversations.", metavar="FILE")
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("--output_path", "--output-path", help="Where the answers go.", metavar="FILE")
    ] = None,
    progress_path: Annotated[
        Path | None,
        typer.Option("--progress_path", "--progress-path", help="Small JSON with the progress.", metavar="FILE"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Batch: start over, forget what is done.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Batch: refuse a file with a bad line.")] = False,
    engine: EngineName = None,
    model: Model = None,
    system: System = None,
    image: Images = None,
    seed: Seed = None,
    log_level: LogLevel = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Answer one prompt, a conversation, or a file of them."""

    def work() -> int:
        choices = _choices(config, engine, model, seed)
        loaded = choices.load()
        source = input_path or loaded.input_path
        if source:
            set_up(log_level or ("ERROR" if quiet else "INFO"))
            _warn_of_what_a_batch_ignores(interactive=interactive, prompt=prompt, system=system, image=image)
            from .batchfile import BatchChoices, run

            return run(
                loaded,
                BatchChoices(
                    Path(source),
                    output_path or (Path(loaded.output_path) if loaded.output_path else None),
                    progress_path or (Path(loaded.progress_path) if loaded.progress_path else None),
                    overwrite,
                    strict,
                    quiet,
                ),
            )
        set_up(log_level or ("ERROR" if quiet else "WARNING"))
        if output_path or overwrite or strict:
            say("note: --output_path, --overwrite and --strict belong to --input_path; without it no file is written")
        if interactive:
            from .chat import chat

            return chat(choices, system=system, images=image or [], first=prompt, verbose=verbose, quiet=quiet)
        from .oneshot import answer

        return answer(loaded, _prompt(prompt), system=system, images=image or [], verbose=verbose, quiet=quiet)

    _exit["code"] = guarded(work)


@app.command(
    name="chat",
    epilog=_OVERRIDES,
    help=(
        "Talk with a model. /help inside lists the commands; Ctrl-C stops an answer, Ctrl-D leaves.\n\n"
        "\b\nExamples:\n  asyncinfer chat\n  asyncinfer chat -m openai:gpt-4o-mini --system-prompt 'Be brief'\n"
        "  asyncinfer chat --engine LLAMACPP --model.model_name model.gguf"
    ),
)
def chat_command(
    prompt: Annotated[str | None, typer.Argument(help="What to say first.")] = None,
    config: Config = None,
    engine: EngineName = None,
    model: Model = None,
    system: System = None,
    image: Images = None,
    seed: Seed = None,
    log_level: LogLevel = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Talk with a model."""

    def work() -> int:
        set_up(log_level or ("ERROR" if quiet else "WARNING"))
        from .chat import chat

        choices = _choices(config, engine, model, seed)
        return chat(choices, system=system, images=image or [], first=prompt, verbose=verbose, quiet=quiet)

    _exit["code"] = guarded(work)


@app.command(
    help="List the engines: what is installed, which keys are there.\n\n\b\nExample:\n  asyncinfer engines | grep ready"
)
def engines() -> None:
    """List the engines."""

    def work() -> int:
        from .listing import show_engines

        return show_engines()

    _exit["code"] = guarded(work)


@app.command(
    epilog=_OVERRIDES,
    help=(
        "List the models that an engine offers, one a line.\n\n\b\nExamples:\n  asyncinfer models\n"
        "  asyncinfer models --engine OPENAI\n  asyncinfer models --remote_params.api_url http://localhost:8000"
    ),
)
def models(config: Config = None, engine: EngineName = None, model: Model = None, log_level: LogLevel = None) -> None:
    """List an engine's models."""

    def work() -> int:
        set_up(log_level or "WARNING")
        from .listing import show_models

        return show_models(_choices(config, engine, model, None).load())

    _exit["code"] = guarded(work)


def _keep(work: Callable[[], int]) -> None:
    _exit["code"] = guarded(work)


app.add_typer(
    batch_commands(lambda config, engine, model: _choices(config, engine, model, None).load(), _keep), name="batch"
)


def _prompt(given: str | None) -> str:
    """The prompt: as given, or what standard input holds. Never both: an open pipe that never ends would hang."""
    from .. import ConfigError

    text = given
    try:
        if given is None or given == "-":
            text = "" if sys.stdin.isatty() and given is None else sys.stdin.read().strip("\n")
        (text or "").encode()  # in some locales Python lets bytes that are no text pass as lone surrogates
    except UnicodeError as error:
        raise ConfigError("the prompt is not UTF-8 text", path="prompt") from error
    if not text or not text.strip():
        raise ConfigError(
            'nothing to answer: give a prompt (asyncinfer infer "..."), pipe one in, use -i for a conversation, or '
            "--input_path for a file",
            path="prompt",
        )
    return text


def _warn_of_what_a_batch_ignores(
    *, interactive: bool, prompt: str | None, system: str | None, image: list[str] | None
) -> None:
    given = {"-i": interactive, "the prompt": prompt, "--system-prompt": system, "--image": image}
    ignored = [name for name, value in given.items() if value]
    if ignored:
        say(f"note: {', '.join(ignored)} ignored: there is an input_path, so its rows are answered")
