"""Regular expressions for answers: what Python says of them, in a time that nobody can make long."""

from __future__ import annotations

import re
import time

import pytest

from asyncinfer.engines.expressions import _bounded, _translated, matcher

ENDLESS = [
    (r"(a+)+b", "a" * 60),
    (r"(a|aa)+", "a" * 60 + "!"),
    (r"(\w+\s?)*\.", "word " * 20 + "!"),
    (r"a?" * 60 + "a" * 60, "a" * 59),
    (r"(a{1,40}){1,40}b", "a" * 60),
    (r"(?=a)(a+)+b", "a" * 60),
    (r"(a+)+\1b", "a" * 60),
    (r"(?P<x>a+)+(?P=x)b", "a" * 60),
    (r".*.*.*.*.*b", "a" * 4000),
    (r"([^\W\d]+|\d+)*-", "ab1" * 40),
]
SAME = [
    (r"\d{4}-\d\d", "2026-11 ٢٠٢٦-١١ 2026-1"),
    (r"-?\d+(\.\d+)?", "1 -1.5 1. ٣ x"),
    (r"\w+(-\w+)*", "a-b é-ü_1 日本-語 - a--b"),
    (r"(?:[^[\]]+,)*[]x]+", "a,b,] x [ a,x"),
    (r"[^]]+[&~|]*", "a&&~ ] &"),
    (r"(\<b\>|<i>)+", "<b><i> <u>"),
    (r"(?:a|b)*?\Z", "abab c"),
    (r"\A(\S+\.)*\S+@\W?x", "a.b@x a@-x a@éx"),
    (r"(?i:yes|no)+[\D]?", "YESno yes1 yes!"),
    (r"(?P<quote>['\"])\w*(?P=quote)", "'a' \"b' ''"),
    (r"a(?!b)\w*(?<!c)", "ad ab adc a"),
    (r"[a-c\-x]+\b.*", "a-x b? d"),
    (r".+,.+", "a,b a, \u2028,\u0085 a\n,b"),
    (r"(\x41|\u00e9|\t)+", "A é B"),
    (r"^(a|b)+$", "ab c"),
    (r"[\]\[{}]+x*", "[]{} ("),
]


@pytest.mark.parametrize(("pattern", "text"), ENDLESS)
def test_no_expression_holds_the_loop(pattern: str, text: str) -> None:
    began = time.process_time()
    assert not matcher(pattern)(text)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(("pattern", "texts"), SAME)
def test_it_says_what_python_says(pattern: str, texts: str) -> None:
    """Both ways: by whichever matcher is chosen, and by the bounded one."""
    for text in [*texts.split(" "), "", texts]:
        expected = re.fullmatch(pattern, text) is not None
        assert bool(matcher(pattern)(text)) is expected, text
        assert bool(_bounded(_translated(re.compile(pattern)))(text)) is expected, text


def test_letters_may_carry_marks() -> None:
    assert matcher(r"\w+ \w+")("नमस्ते दुनिया")


@pytest.mark.parametrize("pattern", [r"(?>a+)+b", r"(a)?(?(1)b|c)+d*e*"])
def test_what_cannot_be_bounded_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="could take for ever"):
        matcher(pattern)


def test_what_is_no_expression_is_refused_in_pythons_words() -> None:
    with pytest.raises(ValueError, match="unterminated"):
        matcher("(a")


def test_large_ones_that_repeat_one_piece() -> None:
    assert matcher(r"\w{1,5000}")("é" * 4999)
    assert matcher(r".*")("a" * 100_000)
