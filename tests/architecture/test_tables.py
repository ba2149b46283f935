"""The README's tables are what the code says."""

from __future__ import annotations

from tests.architecture.tables import BEGIN, README, written


def test_the_readme_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert BEGIN in text
    assert text == written(text), "run: python -m tests.architecture.tables"
