"""One prompt in, one answer out: what goes where, what the exit code says, how mistakes are explained."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

import asyncinfer
from asyncinfer import ConfigError
from asyncinfer.cli.app import app
from asyncinfer.cli.arguments import OPTIONS, split_overrides
from tests.servers.provider import Fail, Reply

from .conftest import ROOT


def test_version_is_quick_and_right(program):
    for words in (["--version"], ["-V"]):
        assert program(*words).stdout == f"asyncinfer {asyncinfer.__version__}\n"
    code = (
        "import sys; sys.argv = ['asyncinfer', '--version']; import asyncinfer.__main__ as m; m.main(); "
        "print(sorted({'typer', 'rich', 'pydantic', 'asyncio', 'anyio'} & set(sys.modules)))"
    )
    words = [program.command()[0], "-c", code]
    found = subprocess.run(words, env=program.environment(), capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_only_the_answer_is_on_stdout(program, provider, at):
    done = program("infer", "Hello there", *at)
    assert (done.stdout, done.stderr, done.returncode) == ("Hello there\n", "", 0)
    done = program("infer", *at, "-v", "Hello there")
    assert done.stdout == "Hello there\n"
    assert f"fake-1 on remote at 127.0.0.1:{provider.port}" in done.stderr
    assert "tokens in" in done.stderr


def test_a_pipe_is_a_prompt(program, provider, at):
    assert program("infer", *at, stdin="from a pipe\n").stdout == "from a pipe\n"
    assert program("infer", "-", *at, stdin="two\nlines").stdout == "two\nlines\n"
    done = program("infer", *at, stdin="  \n")
    assert done.returncode == 2
    assert "nothing to answer" in done.stderr


def test_a_given_prompt_does_not_wait_for_a_pipe_that_stays_open(program, provider, at):
    process = program.start("infer", "Hello", *at, stdin=subprocess.PIPE)
    try:
        assert process.stdout.read() == "Hello\n"
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_answer_streams(program, provider, at):
    provider.tokens, provider.per_token = 20, 0.1
    process = program.start("infer", "one two", *at)
    start = process.stdout.read(3)
    assert start == "one"
    assert provider.stats.completed == 0
    assert len(process.stdout.read()) > 20
    assert process.wait(30) == 0
    process.communicate()


def test_options_reach_the_wire_and_the_line_wins_over_the_file(program, provider, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        f"engine: remote\nmodel: {{model_name: from-file}}\ngeneration: {{temperature: 0.1, max_new_tokens: 7}}\n"
        f"remote_params: {{api_url: '{provider.url}'}}\n"
    )
    words = ["--generation.temperature", "0.5", "--seed", "42", "generation.top_p=0.25", "--min_p=0.125"]
    done = program("infer", "-c", "c.yaml", "--system-prompt", "Be brief", *words, "Hi")
    assert (done.stdout, done.returncode) == ("Hi\n", 0)
    body = provider.stats.requests[-1].body
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert (body["model"], body["temperature"], body["seed"], body["top_p"]) == ("from-file", 0.5, 42, 0.25)
    assert body["min_p"] == 0.125
    assert 7 in {body.get("max_tokens"), body.get("max_completion_tokens")}
    program("infer", "-c", "c.yaml", "-m", "other", "Hi")
    assert provider.stats.requests[-1].body["model"] == "other"
    program("infer", "-c", "c.yaml", "-m", "remote:third", "Hi")
    assert provider.stats.requests[-1].body["model"] == "third"


def test_an_image_goes_along(program, provider, at, tmp_path):
    (tmp_path / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    assert program("infer", "What is it?", "--image", "dot.png", *at).returncode == 0
    parts = provider.stats.requests[-1].body["messages"][-1]["content"]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert parts[1] == {"type": "text", "text": "What is it?"}
    (tmp_path / "secret.txt").write_text("no image")
    done = program("infer", "What is it?", "--image", "secret.txt", *at)
    assert (done.returncode, done.stderr.strip()) == (2, "error: secret.txt is not a PNG, JPEG, GIF or WebP image")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--generation.temprature", "1"], "did you mean 'temperature'?"),
        (["--temprature", "1"], "--generation.temperature"),
        (["--inputpath", "x"], "did you mean --input_path?"),
        (["--intractive"], "did you mean --interactive?"),
        (["--generation.temperature", "hot"], "generation.temperature"),
        (["--engine", "OPENA"], "OPENAI"),
        (["-c", "none.yaml"], "none.yaml: cannot be read"),
        (["-m", "openai:gpt-4o-mini"], "OPENAI_API_KEY"),
        (["--log-level", "LOUD"], "DEBUG, INFO"),
    ],
)
def test_a_mistake_is_one_clear_message(program, words, hint):
    done = program("infer", "Hi", *words)
    assert done.returncode == 2, done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


def test_unknown_commands_and_short_options(program):
    for words in (["infr"], ["infer", "-z"]):
        done = program(*words)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert "infer" in program("infr").stderr


@pytest.mark.parametrize("words", [[], ["infer"], ["chat"], ["engines"], ["models"]])
def test_help_has_examples(program, words):
    done = program(*words, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert "asyncinfer " in done.stdout


def test_a_provider_that_fails_is_exit_1(program, provider, at):
    provider.fail.append(Fail(status=400, body={"error": {"message": "no such thing"}}))
    done = program("infer", "Hi", *at)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no such thing")
    assert len(done.stderr.strip().splitlines()) == 1
    provider.fail[:] = [Fail(cut_after=2)]
    provider.tokens = 8
    done = program("infer", "alpha beta", *at)
    assert done.returncode == 1
    assert done.stdout.startswith("alpha beta")  # what had arrived
    assert done.stderr.startswith("error: ")


def test_an_answer_that_was_cut_is_said_to_be(program, provider, at):
    provider.reply = lambda body: Reply("cut", finish_reason="length")
    done = program("infer", "Hi", *at)
    assert done.returncode == 0
    assert "max_new_tokens" in done.stderr
    assert program("infer", "Hi", "-q", *at).stderr == ""


def test_ctrl_c_is_130_without_a_traceback(program, provider, at):
    provider.tokens, provider.per_token = 1000, 0.05
    process = program.start("infer", "Hi", *at)
    assert process.stdout.read(1) == "H"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_stops_ends_it_quietly(program, provider, at):
    provider.tokens, provider.per_token = 500, 0.005
    process = program.start("infer", "Hi", *at)
    assert process.stdout.read(1) == "H"
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(30) == 141
    assert err == ""
    process.stderr.close()
    end = time.monotonic() + 10
    while provider.stats.in_flight and time.monotonic() < end:
        time.sleep(0.01)
    assert not provider.stats.in_flight


def test_an_answer_that_cannot_be_written_is_said(program, provider, at):
    with Path("/dev/full").open("w") as full:
        process = program.start("infer", "Hi", *at, stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err == "error: cannot write the answer: No space left on device\n"


def test_bytes_that_are_no_text_are_said(program, provider, at):
    process = program.start("infer", *at, stdin=subprocess.PIPE)
    process.stdin.buffer.write(b"\xff\xfe")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err == "error: the prompt is not UTF-8 text\n"


def test_without_a_binding_the_command_that_installs_one_is_printed(program, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in {'xllamacpp', 'llama_cpp'} else find(name, *rest)\n"
    )
    process = program.start("infer", "Hi", env={**program.environment(), "PYTHONPATH": f"{tmp_path}:{ROOT}"})
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "pip install 'asyncinfer[llamacpp]'" in err
    assert "Traceback" not in err


def test_without_anything_the_embedded_model_answers_and_says_so(program):
    done = program("infer", "What is the capital of France?")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert done.stderr.startswith("asyncinfer-tiny (embedded, ")
    assert "a demo, not an assistant" in done.stderr


def test_engines_and_models(program, provider, at):
    program.env["TOGETHER_API_KEY"] = "t"
    table = {line.split("\t")[0]: line.split("\t")[1:] for line in program("engines").stdout.splitlines()}
    assert table["LLAMACPP"][:3] == ["ready", table["LLAMACPP"][1], "in process"]
    assert table["OPENAI"][:2] == ["not ready", "set OPENAI_API_KEY"]
    assert table["TOGETHER"][:2] == ["ready", "TOGETHER_API_KEY is set"]
    assert program("models").stdout == "asyncinfer-tiny\n"
    assert program("models", *at).stdout == "fake-1\nfake-2\n"
    assert program("models", "--remote_params.api_url", provider.origin + "/none/x").returncode in {0, 1}


def test_an_engine_without_its_vendors_package_is_not_ready(monkeypatch):
    from asyncinfer.cli import listing

    hints = ["pip install 'asyncinfer[bedrock]'", "pip install 'asyncinfer[google]'"]
    for present, state in (False, hints), (True, []):
        monkeypatch.setattr(listing, "find_spec", lambda name, here=present: object() if here else None)
        rows = {row.name: row for row in listing.engine_rows()}
        found = [rows["BEDROCK"], rows["GOOGLE_VERTEX"]]
        assert [row.ready for row in found] == [present, present]
        assert [row.state for row in found if not row.ready] == state


def test_where_engines_go_and_what_they_sign_with(monkeypatch):
    from asyncinfer.cli import listing

    monkeypatch.setattr(listing, "find_spec", lambda _: object())
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    rows = {row.name: row for row in listing.engine_rows()}
    assert rows["BEDROCK"].where == "https://bedrock-runtime.{region}.amazonaws.com"
    assert rows["BEDROCK"].state == "AWS credentials, or AWS_BEARER_TOKEN_BEDROCK"
    assert rows["GOOGLE_VERTEX"].state == "Google's default credentials"
    assert {name for name, row in rows.items() if row.where == "your server (api_url)"} == {
        "LAMBDA",
        "REMOTE",
        "REMOTE_VLLM",
    }


# -- which words are overrides -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "rest", "overrides"),
    [
        (["infer", "--model.x", "1", "Hi"], ["infer", "Hi"], ["--model.x=1"]),
        (["--model.x=1 2", "Hi"], ["Hi"], ["--model.x=1 2"]),
        (["--generation.x", "-1.5"], [], ["--generation.x=-1.5"]),
        (["--model.flag", "--model.y", "2"], [], ["--model.flag", "--model.y=2"]),
        (["--model.flag", "-v"], ["-v"], ["--model.flag"]),
        (["--model.flag"], [], ["--model.flag"]),
        (["-output_path", "o", "-seed=4", "-v"], ["--output_path", "o", "--seed=4", "-v"], []),
        (["-model.x", "1", "-i", "-m", "model.gguf"], ["-i", "-m", "model.gguf"], ["--model.x=1"]),
        (["model.x=1", "engine=VLLM", "2+2=4", "x=1"], ["2+2=4", "x=1"], ["model.x=1", "engine=VLLM"]),
        (["--seed", "4", "--temperature", "0"], ["--seed", "4"], ["--temperature=0"]),
        (["--", "--model.x", "1"], ["--", "--model.x", "1"], []),
        (["--config=a", "Hi"], ["--config=a", "Hi"], []),
        (["--generation.stop_strings[0]", "a=b"], [], ["--generation.stop_strings[0]=a=b"]),
        (["--generation.stop", ""], [], ["--generation.stop="]),
    ],
)
def test_overrides_are_told_from_other_words(words, rest, overrides):
    assert split_overrides(words) == (rest, overrides)


def test_a_key_of_text_is_not_set_to_true_for_want_of_a_value(program):
    done = program("infer", "Hello", "--model.model_name")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--model.model_name needs a value" in done.stderr


def test_one_dash_is_enough_for_a_long_option(program, at):
    """As in the guide's own table: ``-output_path results.jsonl``."""
    (program.folder / "in.jsonl").write_text('{"messages": [{"role": "user", "content": "Hello"}]}\n')
    done = program("infer", *at, "--input_path", "in.jsonl", "-output_path", "results.jsonl")
    assert done.returncode == 0, done.stderr
    assert '"assistant"' in (program.folder / "results.jsonl").read_text()


def test_an_output_path_without_a_batch_is_not_ignored_in_silence(program, at):
    done = program("infer", "Hello", *at, "--output_path", "out.jsonl")
    assert (done.stdout, done.returncode) == ("Hello\n", 0)
    assert "no file is written" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_no_traceback(program, at, closed):
    """Services start programs that way; Python then has None for the stream."""
    line = 'exec "$@" ' + closed
    for words, codes in (["infer", "Hello", *at], {0}), (["infer", *at], {2}), (["chat", "Hello", *at], {0}):
        done = subprocess.run(
            ["sh", "-c", line, "sh", *program.command(*words)],
            env=program.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in codes, done.stderr
        assert "Traceback" not in done.stderr


def test_a_misspelt_option_is_refused():
    with pytest.raises(ConfigError, match="--output_path"):
        split_overrides(["--outputpath", "x"])


def test_the_options_are_those_of_the_commands():
    import typer.main

    group = typer.main.get_command(app)
    found = {"--help"}
    groups = [group, *(command for command in group.commands.values() if hasattr(command, "commands"))]
    for command in [group, *(command for each in groups for command in each.commands.values())]:
        for parameter in command.params:
            found |= {option for option in [*parameter.opts, *parameter.secondary_opts] if option.startswith("--")}
    assert found == OPTIONS
