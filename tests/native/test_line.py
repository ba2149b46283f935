"""Who may begin, and when: no library is needed for this."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.engines.native.line import AHEAD, Line, expected

PAGE = 32


class Pages:
    def __init__(self, capacity):
        self.capacity = capacity

    def sectors(self, tokens):
        return -(-tokens // PAGE)


def row(prompt, limit, made=0):
    return SimpleNamespace(
        prepared=SimpleNamespace(tokens=[5] * prompt, limit=limit), made=made, cancelled=False, ended=False
    )


def begin(line, memory):
    """Everybody who may begin does."""
    begun = []
    while (one := line.next(memory)) is not None:
        line.running[str(id(one))] = one
        begun.append(one)
    return begun


def test_rows_begin_when_all_of_them_fits_and_nobody_overtakes():
    line, memory = Line(8), Pages(6)
    long, short, tiny = row(32, 128), row(32, 64), row(1, 1)
    line.waiting.extend([long, short, tiny])
    assert begin(line, memory) == [long]  # 5 of 6 pages: the tiny one would fit, but it was last
    line.running.clear()
    assert begin(line, memory) == [short, tiny]


def test_a_row_that_is_alone_begins_whatever_it_takes():
    line = Line(8)
    line.waiting.extend([row(320, 320), row(1, 1)])
    assert len(begin(line, Pages(6))) == 1


def test_no_more_rows_than_slots():
    line = Line(3)
    line.waiting.extend(row(1, 1) for _ in range(5))
    assert len(begin(line, Pages(100))) == 3


def test_who_has_gone_leaves_the_line_at_once():
    line, memory = Line(1), Pages(6)
    first, gone, next_one = row(1, 1), row(1, 1), row(1, 1)
    line.waiting.extend([first, gone, next_one])
    assert begin(line, memory) == [first]
    gone.cancelled = True
    assert begin(line, memory) == []
    assert list(line.waiting) == [next_one]


def test_of_a_very_long_answer_only_the_next_part_is_counted():
    assert expected(row(10, 100)) == 110
    assert expected(row(10, 10 * AHEAD)) == 10 + AHEAD
    assert expected(row(10, 10 * AHEAD, made=500)) == 510 + AHEAD
    assert expected(row(10, 10 * AHEAD, made=10 * AHEAD - 1)) == 10 + 10 * AHEAD


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300), st.booleans()), max_size=30),
    st.integers(4, 40),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_everybody_gets_a_turn_in_order_and_memory_never_overflows(asked, capacity, slots, random):
    line, memory = Line(slots), Pages(capacity)
    rows = [row(min(prompt, PAGE * capacity - 1), limit) for prompt, limit, _ in asked]
    for one, (_, _, cancelled) in zip(rows, asked, strict=True):
        one.prepared.limit = min(one.prepared.limit, PAGE * capacity - len(one.prepared.tokens))
        one.cancelled = cancelled
    line.waiting.extend(rows)
    begun = []
    while True:
        begun += begin(line, memory)
        assert sum(memory.sectors(expected(one)) for one in line.running.values()) <= capacity
        assert len(line.running) <= slots
        if not line.running:
            break
        del line.running[random.choice(list(line.running))]
    assert begun == [one for one in rows if not one.cancelled]
    assert not line.waiting
