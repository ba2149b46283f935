"""The README's tables are what the code says, and no promise of the comparison guide is broken."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from asyncinfer.engines.features import COLUMNS, FEATURES
from asyncinfer.engines.opening import ENGINES
from asyncinfer.params import InferenceEngineType

from .guide import EVIDENCE, GUIDE, PENDING, SERVERS_OWN
from .tables import BEGIN, BEGIN_FEATURES, README, features, written

ROOT = Path(__file__).parents[2]
CELLS = [(feature, engine) for feature in GUIDE for engine in GUIDE[feature]]
OURS = [
    (feature, engine)
    for feature, facts in FEATURES.items()
    for engine, fact in facts.items()
    if fact.can and InferenceEngineType(engine) in ENGINES and (feature, engine) not in PENDING
]


def test_the_readme_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert BEGIN in text
    assert BEGIN_FEATURES in text
    assert text == written(text), "run: python -m tests.architecture.tables"


def test_our_table_is_the_guides() -> None:
    assert list(FEATURES) == list(GUIDE)
    assert all(list(facts) == list(COLUMNS) == list(GUIDE[feature]) for feature, facts in FEATURES.items())


@pytest.mark.parametrize(("feature", "engine"), CELLS)
def test_every_tick_of_the_guide_is_true_here(feature: str, engine: str) -> None:
    if GUIDE[feature][engine]:
        assert FEATURES[feature][engine].can is True


@pytest.mark.parametrize(("feature", "engine"), OURS)
def test_every_tick_of_ours_has_a_test(feature: str, engine: str) -> None:
    evidence = EVIDENCE[feature].get(engine)
    assert evidence, "name the test that proves it in tests/architecture/guide.py"
    if evidence == SERVERS_OWN:
        assert engine in {"REMOTE_VLLM", "SGLANG"}
        return
    file, _, name = evidence.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    # A test that a file imports runs there, with the engine of its room.
    tests |= {name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert name in tests


def test_crosses_that_we_lift_are_marked() -> None:
    lines = {line.split(" | ")[0].strip("| "): line for line in features().splitlines() if line.startswith("| ")}
    lifted = [(feature, engine) for feature, engine in OURS if GUIDE[feature][engine] is False]
    assert ("Continuous batching", "LLAMACPP") in lifted
    for feature in GUIDE:
        stars = lines[feature].count("yes\\*")
        expected = sum(
            bool(fact.can) and not GUIDE[feature][engine]
            for engine, fact in FEATURES[feature].items()
            if InferenceEngineType(engine) in ENGINES
        )
        assert stars == expected
