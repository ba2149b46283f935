"""The package keeps the rules of the house; and each rule, given a house that breaks it, says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import rules
from .source import Package

HOUSE = Package(Path(__file__).parents[2] / "asyncinfer")

RULES = [
    rules.lower_rooms_are_strangers,
    rules.imports_point_down,
    rules.wire_is_pure,
    rules.scheduling_policy_is_pure,
    rules.only_transport_speaks_http,
    rules.libraries_stay_with_their_engine,
    rules.only_loops_knows_the_event_loop,
    rules.no_circle,
    rules.surfaces_are_strangers,
    rules.nothing_imports_a_surface,
    rules.provider_classes_are_rows,
    rules.sizes,
    rules.names_say_something,
    rules.modules_say_what_they_are_for,
]

BROKEN = {
    rules.lower_rooms_are_strangers: ("wire/a.py", "from ..transport import protocol"),
    rules.imports_point_down: ("events.py", "from .engines import base"),
    rules.wire_is_pure: ("wire/a.py", "def f():\n    import time"),
    rules.scheduling_policy_is_pure: ("scheduling/window.py", "from time import monotonic"),
    rules.only_transport_speaks_http: ("engines/a.py", "def f():\n    import httpx"),
    rules.libraries_stay_with_their_engine: ("engines/vllm.py", "import vllm"),
    rules.only_loops_knows_the_event_loop: ("engines/a.py", "def f():\n    import trio.lowlevel"),
    rules.no_circle: ("errors.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .events import X"),
    rules.surfaces_are_strangers: ("cli/a.py", "from ..engines.base import Engine"),
    rules.nothing_imports_a_surface: ("engines/a.py", "from ..cli import app"),
    rules.provider_classes_are_rows: ("engines/a.py", "class A(RemoteInferenceEngine):\n    def f(self): ..."),
    rules.sizes: ("engines/a.py", "def f():\n" + "    x = 1\n" * rules.FUNCTION_LINES),
    rules.names_say_something: ("engines/_utils.py", "x = 1"),
    rules.modules_say_what_they_are_for: ("engines/a.py", "x = 1"),
}


def build(folder: Path, files: dict[str, str]) -> Package:
    root = folder / "house"
    for name, text in {"__init__.py": '"""h"""', "errors.py": '"""e"""', **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        for room in path.relative_to(root).parents[:-1]:
            (root / room / "__init__.py").touch()
    return Package(root)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule):
    assert not (found := rule(HOUSE)), "\n" + "\n".join(found)


def test_the_house_tests_no_provider_by_name():
    from asyncinfer.providers import PROVIDERS

    found = rules.no_provider_is_named_in_code(HOUSE, set(PROVIDERS))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_a_broken_house_is_found(rule, tmp_path):
    name, text = BROKEN[rule]
    files = {name: text}
    if rule is rules.no_circle:
        files = {"events.py": "from .errors import Y", name: text}
    found = rule(build(tmp_path, files))
    assert any(line.startswith(f"house/{name}:") for line in found), found


@pytest.mark.parametrize(
    "code",
    [
        'if provider == "openai": ...',
        'x = engine.provider.name in ("together", "openai")',
        'match name:\n    case "openai": ...',
        'name.startswith("openai")',
    ],
)
def test_a_provider_tested_by_name_is_found(code, tmp_path):
    house = build(tmp_path, {"wire/a.py": code})
    assert "house/wire/a.py" in rules.no_provider_is_named_in_code(house, {"openai"})[0]


def test_imports_are_resolved_to_modules(tmp_path):
    house = build(
        tmp_path, {"wire/a.py": "from .. import errors\nfrom . import b\nfrom ..wire.b import c", "wire/b.py": ""}
    )
    targets = [item.target for item in house.imports["house.wire.a"]]
    assert targets == ["house.errors", "house.wire.b", "house.wire.b"]


def test_a_front_door_may_open_its_own_room_lazily(tmp_path):
    house = build(tmp_path, {"loops/a.py": "from . import Loop"})
    (house.root / "loops/__init__.py").write_text("def f():\n    from .a import x\n")
    assert Package(house.root).circles() == []
    (house.root / "loops/__init__.py").write_text("from .a import x\n")
    assert Package(house.root).circles() == [["house.loops", "house.loops.a"]]
