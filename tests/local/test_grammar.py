"""Regular expressions and choices as GBNF: what is written, and what is refused. (That models obey: test_llama_cpp.)"""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncinfer.engines.llama_cpp.grammar import from_choice, from_regex
from asyncinfer.errors import ConfigError


@pytest.mark.parametrize(
    ("pattern", "grammar"),
    [
        ("abc", '"a" "b" "c"'),
        ("^a|b$", '"a" | "b"'),
        ("a*b+c?", '"a"* "b"+ "c"?'),
        ("a{2}b{2,}c{,3}d{1,4}", '"a"{2} "b"{2,} "c"{0,3} "d"{1,4}'),
        ("a*?b+?", '"a"* "b"+'),
        ("(ab|c)+", '("a" "b" | "c")+'),
        ("(?:a)(?P<n>b)", '("a") ("b")'),
        (r"\d\D\w\s", r"[0-9] [^0-9] [0-9A-Za-z_] [ \t\n\r]"),
        (r"[a-z\d_]", "[a-z0-9_]"),
        (r"[^]a]", r"[^\x5Da]"),
        (r"[a\]^-]", r"[a\x5D\x5E\x2D]"),
        (r"[\[-\]]", r"[\x5B-\x5D]"),
        (r"\.\"\\", r'"." "\"" "\\"'),
        (r"\x41\u00e9\n", '"A" "é" "\\x0A"'),
        (".", r"[^\n]"),
        ("", '""'),
        ("(|a)", '("" | "a")'),
        (r"a\$", '"a" "$"'),
    ],
)
def test_a_pattern_as_a_grammar(pattern, grammar):
    assert from_regex(pattern) == "root ::= " + grammar


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(?i)a", "inline flag"),
        (r"(a)\1", "back reference"),
        (r"\bword\b", "assertion"),
        ("a^b", "anchor"),
        ("(a", "without"),
        ("a)", "unmatched"),
        ("[a", "unexpected end"),
        ("*a", "nothing to repeat"),
        ("a**", "repetition of a repetition"),
        ("a{3}{2}", "repetition of a repetition"),
        ("a++", "possessive"),
        ("a{,}", "not a repetition"),
        ("a{x}", "not a repetition"),
        ("a{99999}", "more than"),
        ("a{3,2}", "backwards"),
        ("[z-a]", "backwards"),
        (r"[\D]", "inside a class"),
        ("a\\", "unexpected end"),
        (r"\xZZ", "escape"),
        ("(?P<x", "without >"),
    ],
)
def test_what_a_grammar_cannot_say_is_refused_with_its_place(pattern, why):
    with pytest.raises(ConfigError, match=why) as caught:
        from_regex(pattern)
    assert caught.value.path == "generation.guided_decoding.regex"


@given(st.text(r"ab01.*+?|()[]{}\^$-,dwsx", max_size=12) | st.text(max_size=12))
@example("[")
@example("\\")
def test_any_pattern_becomes_a_grammar_or_a_typed_error(pattern):
    try:
        grammar = from_regex(pattern)
    except ConfigError:
        return
    assert grammar.startswith("root ::= ") and "\n" not in grammar


def test_a_pattern_that_python_refuses_is_refused():
    for pattern in ("(", "[z-a]", "a**", "*", "a{2,1}"):
        with pytest.raises(re.error):
            re.compile(pattern)
        with pytest.raises(ConfigError):
            from_regex(pattern)


def test_choices():
    assert from_choice(["yes", 'n"o', "a\\b\n"]) == r'root ::= "yes" | "n\"o" | "a\\b\x0A"'
    for nothing in ([], [""], ["a", ""]):
        with pytest.raises(ConfigError, match="choice"):
            from_choice(nothing)
