"""What reaches the terminal of the log: of this package, of other libraries, of errors."""

from __future__ import annotations

import subprocess

import pytest

from asyncinfer import InferenceConfig, open_engine
from asyncinfer.cli.listing import engine_rows
from asyncinfer.cli.setup import describe


@pytest.fixture
def said(program):
    """``said(level, code)``: what a program that logs at ``level`` writes to stderr."""

    def run(level, code):
        words = [
            program.command()[0],
            "-c",
            f"import logging\nfrom asyncinfer.cli.logs import set_up\nset_up({level!r})\n{code}",
        ]
        return subprocess.run(words, env=program.environment(), capture_output=True, text=True, check=True).stderr

    return run


def test_other_libraries_are_heard_from_warnings_on(said):
    code = "for name in ('asyncinfer.batch', 'other'): logging.getLogger(name).info('done by %s', name)"
    assert "done by asyncinfer.batch" in said("INFO", code)
    assert "done by other" not in said("INFO", code)
    assert "done by other" in said("DEBUG", code)
    assert said("WARNING", code) == ""
    assert "watch out" in said("INFO", "logging.getLogger('other').warning('watch out')")


def test_what_a_library_writes_itself_is_not_written_twice(said):
    code = (
        "logging.getLogger('other').addHandler(logging.StreamHandler())\n"
        "logging.getLogger('silent').addHandler(logging.NullHandler())\n"
        "logging.getLogger('other.part').warning('once')\n"
        "logging.getLogger('silent').warning('heard')"
    )
    assert said("WARNING", code).count("once") == 1
    assert said("WARNING", code).count("heard") == 1


def test_a_traceback_in_the_log_shows_no_variables(said):
    code = (
        "def fail(key):\n    raise ValueError('broken')\n"
        "try:\n    fail('-'.join(['very', 'secret']))\n"
        "except ValueError:\n    logging.getLogger('asyncinfer').exception('it failed')"
    )
    err = said("WARNING", code)
    assert "it failed" in err
    assert "ValueError: broken" in err
    assert "very-secret" not in err


def test_an_engine_in_the_process_is_nowhere_else():
    config = InferenceConfig.from_str("engine: NATIVE\nremote_params: {api_url: 'https://api.example.com/v1'}")
    assert describe(open_engine(config)) == "the default model on native"


def test_every_engine_is_listed_by_a_name_that_can_be_given():
    names = {row.name for row in engine_rows()}
    assert {"LLAMACPP", "NATIVE", "VLLM"} <= names
    for name in names:
        assert InferenceConfig.from_str(f"engine: {name}").engine is not None
