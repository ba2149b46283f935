"""Tokens become whole characters, with tokenizers in Rust and in Python alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.engines.native.text import Speller, Spelling
from asyncinfer.models import embedded_model

pytestmark = [pytest.mark.native]

_loaded = {}


def tokenizer():
    if not _loaded:
        from transformers import AutoTokenizer

        _loaded["it"] = AutoTokenizer.from_pretrained(embedded_model("hf"))
    return _loaded["it"]


class InPython:
    """The same tokenizer without its Rust half, as Transformers' slow ones are."""

    def __init__(self, inner):
        self.decode = inner.decode
        self.all_special_ids = inner.all_special_ids
        self.convert_tokens_to_ids = inner.convert_tokens_to_ids
        self.convert_ids_to_tokens = inner.convert_ids_to_tokens


def spelled(speller, tokens):
    pieces = [speller.feed(token) for token in tokens]
    return [*pieces, speller.close()]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_comes_out_as_it_was_and_never_in_halves(text):
    tokens = tokenizer()(text, add_special_tokens=False)["input_ids"]
    for words in (tokenizer(), InPython(tokenizer())):
        pieces = spelled(Speller(Spelling(words), skip_special=False), tokens)
        assert "".join(pieces) == tokenizer().decode(tokens)
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1023), max_size=30))
def test_any_tokens_make_text_that_can_be_written(tokens):
    for words in (tokenizer(), InPython(tokenizer())):
        "".join(spelled(Speller(Spelling(words), skip_special=True), tokens)).encode()


def byte_fallback():
    """A tokenizer of Llama 2's kind: ``▁`` for spaces, a token for each byte."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "▁fox", "ick", "▁"]
    inner = Tokenizer(
        models.BPE({word: at for at, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def test_a_byte_that_makes_no_character_does_not_break_the_answer_off():
    words = byte_fallback()
    tokens = [1 + ord("A"), 1 + 0xC3, *words.convert_tokens_to_ids(["ick", "▁the", "▁fox"])]
    pieces = spelled(Speller(Spelling(words), skip_special=True), tokens)
    assert pieces == ["A", "", "\ufffdick", " the", " fox", ""]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 260), max_size=30))
def test_any_bytes_make_text_that_can_be_written(tokens):
    "".join(spelled(Speller(Spelling(byte_fallback()), skip_special=True), tokens)).encode()


def test_special_tokens_are_left_out_or_shown():
    tokens = tokenizer()("Hello<|im_end|> you")["input_ids"]
    assert "".join(spelled(Speller(Spelling(tokenizer()), skip_special=True), tokens)) == "Hello you"
    assert "".join(spelled(Speller(Spelling(tokenizer()), skip_special=False), tokens)) == "Hello<|im_end|> you"


def test_special_tokens_that_are_markup_are_shown():
    tokens = tokenizer()("a<|im_start|>b<|im_end|>")["input_ids"]
    spelling = Spelling(tokenizer(), ("<|im_start|>", "<tool_call>"))
    assert "".join(spelled(Speller(spelling, skip_special=True), tokens)) == "a<|im_start|>b"


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_the_bytes_of_tokens_are_those_of_the_text(text):
    spelling = Spelling(tokenizer())
    tokens = tokenizer()(text, add_special_tokens=False)["input_ids"]
    assert b"".join(map(spelling.bytes_of, tokens)).decode() == tokenizer().decode(tokens)
    assert spelling.bytes_of(1 << 20) == b""
