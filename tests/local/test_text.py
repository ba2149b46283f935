"""Token bytes to text: whole characters, exact stops, markup; however the input is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.engines.local.text import StopStrings, Tagged, Utf8Pieces


def cut(data, at):
    """``data`` in pieces that end at the given places."""
    places = sorted({min(place, len(data)) for place in at})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


cuts = st.lists(st.integers(0, 60), max_size=12)


@given(st.text(max_size=40), cuts)
def test_characters_are_whole_wherever_their_bytes_are_cut(text, at):
    pieces = Utf8Pieces()
    out = [pieces.feed(piece) for piece in cut(text.encode(), at)]
    assert "".join(out) + pieces.close() == text
    assert not any("\ufffd" in piece for piece in out) or "\ufffd" in text


@given(st.binary(max_size=40), cuts)
def test_any_bytes_decode_as_they_would_in_one_piece(data, at):
    pieces = Utf8Pieces()
    out = "".join(pieces.feed(piece) for piece in cut(data, at)) + pieces.close()
    assert out == data.decode("utf-8", "replace")


def test_an_unfinished_character_is_not_lost_in_silence():
    pieces = Utf8Pieces()
    assert pieces.feed("é".encode()[:1]) == ""
    assert pieces.close() == "\ufffd"


# -- stop strings ----------------------------------------------------------------------------------------------------

letters = st.text("abc", max_size=25)
stops = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


def first_stop(text, stops):
    """The specification, one character at a time."""
    for end in range(1, len(text) + 1):
        matching = [stop for stop in stops if text[:end].endswith(stop)]
        if matching:
            longest = max(matching, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(letters, stops, cuts)
def test_the_answer_ends_right_before_the_first_stop_string(text, stops, at):
    cutter = StopStrings(stops)
    shown = "".join(cutter.feed(piece) for piece in cut(text, at)) + cutter.close()
    assert (shown, cutter.matched) == first_stop(text, stops)


@given(letters, stops, cuts)
def test_nothing_shown_is_ever_the_beginning_of_a_stop_string_that_follows(text, stops, at):
    cutter = StopStrings(stops)
    shown = ""
    for piece in cut(text, at):
        shown += cutter.feed(piece)
        expected, _ = first_stop(text, stops)
        assert expected.startswith(shown)


@given(letters, stops)
def test_text_that_cannot_become_a_stop_string_is_shown_at_once(text, stops):
    cutter = StopStrings(stops)
    seen = ""
    for char in text:
        cutter.feed(char)
        seen += char
        if cutter.matched:
            break
        held = cutter.close()
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)
        cutter._held = held


def test_no_stop_strings_hold_nothing_back():
    assert StopStrings([]).feed("abc") == "abc"
    assert StopStrings([""]).feed("abc") == "abc"


# -- markup ------------------------------------------------------------------------------------------------------------


def joined(pieces):
    """Neighbours of one kind together; an empty inside piece (a closing tag) is kept."""
    out = []
    for inside, text in pieces:
        if text and out and out[-1][0] == inside and out[-1][1]:
            out[-1] = (inside, out[-1][1] + text)
        else:
            out.append((inside, text))
    return out


@given(st.lists(st.sampled_from(["<t>", "</t>", "<", ">", "t", "/", "x"]), max_size=14).map("".join), cuts)
def test_tags_are_found_wherever_the_text_is_cut(text, at):
    whole, pieces = Tagged("<t>", "</t>"), Tagged("<t>", "</t>")
    expected = joined(whole.feed(text) + whole.close())
    assert joined([p for piece in cut(text, at) for p in pieces.feed(piece)] + pieces.close()) == expected
    rebuilt, inside = "", False
    for is_inside, part in expected:
        if is_inside and not inside:
            rebuilt += "<t>"
        if is_inside and not part:
            rebuilt += "</t>"
        inside = is_inside and bool(part)
        rebuilt += part
    assert rebuilt == text or text.startswith(rebuilt)


def test_a_thought_that_the_prompt_opened():
    tags = Tagged("<think>", "</think>", inside=True)
    assert tags.feed("so</thi") == [(True, "so")]
    assert tags.feed("nk>yes") == [(True, ""), (False, "yes")]
