"""The README promises only what is there, and CI runs what the README says."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import asyncinfer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_ci_runs_the_two_commands_of_the_readme():
    commands = [block.strip() for block in blocks("sh") if "-m venv" in block]
    assert len(commands) == 2
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command in commands:
        assert command in script


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().splitlines()[0][:60])
def test_python_in_the_readme_uses_public_names(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module == "asyncinfer":
            for alias in node.names:
                assert alias.name in asyncinfer.__all__, alias.name


def test_the_stream_in_ten_lines_is_the_example():
    example = (ROOT / "examples/stream_in_ten_lines.py").read_text(encoding="utf-8")
    tree = ast.parse(example)
    shown = ast.unparse(ast.Module(body=tree.body[1:], type_ignores=[]))  # without the docstring
    assert shown in [ast.unparse(ast.parse(code)) for code in blocks("python")]


def test_every_engine_is_in_the_table():
    table = [line.split("|")[1].strip(" `") for line in README.splitlines() if line.startswith("| `")]
    engines = [name for name in asyncinfer.__all__ if name.endswith("InferenceEngine")]
    assert sorted(table) == sorted(engines)


def test_extras_of_the_readme_exist():
    named = set(re.findall(r"asyncinfer\[([\w,-]+)\]|'\.\[([\w,-]+)\]'", README))
    extras = {extra for pair in named for group in pair if group for extra in group.split(",")}
    assert extras
    assert extras <= set(PROJECT["optional-dependencies"])


def test_links_to_files_of_the_repository_resolve():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_changelog_has_the_released_version_or_an_unreleased_section():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{asyncinfer.__version__}]" in text or "## [Unreleased]" in text
