"""What may stand for a prompt, and what may not."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncinfer import ConfigError, Prompt, Type


class FakeImage:
    """As much of a ``PIL.Image.Image`` as is used of it."""

    def __init__(self, mode="RGB"):
        self.mode = mode

    def convert(self, mode):
        return FakeImage(mode)

    def save(self, buffer: io.BytesIO, **how: str):
        buffer.write(f"{how['format']} {self.mode}".encode())


@given(st.text(min_size=1).filter(lambda text: text.isascii() or text.encode("utf-8", "replace").decode() == text))
def test_text(text):
    for value in (text, {"prompt": text}, {"prompt": text, "prompt_token_ids": None}, Prompt(text)):
        assert Prompt.of(value) == Prompt(text)
    assert Prompt(text).conversation().messages[0].content == text


@given(st.lists(st.integers(0, 2**31), min_size=1))
def test_tokens(tokens):
    for value in (tokens, tuple(tokens), {"prompt_token_ids": tokens}, {"prompt": "x", "prompt_token_ids": tokens}):
        assert Prompt.of(value) == Prompt(token_ids=tuple(tokens))


def test_whatever_counts_as_a_whole_number_is_a_token():
    class Whole:
        def __index__(self):
            return 7

    assert Prompt.of([Whole(), 1]).token_ids == (7, 1)


def test_images_become_bytes():
    prompt = Prompt.of({"prompt": "What?", "multi_modal_data": {"image": [FakeImage(), FakeImage("CMYK"), b"\x89PNG"]}})
    assert prompt.images == (b"PNG RGB", b"PNG RGB", b"\x89PNG")
    assert Prompt.of({"prompt": "What?", "multi_modal_data": {"image": FakeImage("L")}}).images == (b"PNG L",)
    assert Prompt.of({"prompt": "What?", "multi_modal_data": {"image": None}}).images == ()
    items = prompt.conversation().messages[0].content
    assert [item.type for item in items] == [Type.IMAGE_BINARY] * 3 + [Type.TEXT]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "\ud800",
        None,
        7,
        b"bytes",
        [],
        [-1],
        ["a"],
        [1.5],
        {},
        {"prompt": 3},
        {"prompt_token_ids": "123"},
        {"prompt": "x", "multi_modal_data": {"video": 1}},
        {"prompt": "x", "multi_modal_data": {"image": "a path"}},
        {"prompt": "x", "multi_modal_data": {"image": b""}},
        {"prompt": "x", "multi_modal_data": 3},
        {"prompt": "x", "cache_salt": "y"},
    ],
)
def test_what_is_no_prompt(value):
    with pytest.raises(ConfigError) as caught:
        Prompt.of(value)
    assert str(caught.value.path).startswith("prompt")


def test_text_and_tokens_exclude_each_other():
    with pytest.raises(ConfigError):
        Prompt("x", (1,))
    with pytest.raises(ConfigError):
        Prompt()
