"""Start-time fair queuing: shares, order, and a model that it must agree with."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from asyncinfer.scheduling.fairness import FairQueue


@dataclass(eq=False)
class Entry:
    number: int
    tenant: str = ""
    size: int = 1
    weight: float = 1.0
    turn: int = 0
    need: tuple[int, int, int, int] = field(init=False)

    def __post_init__(self):
        self.need = (1, self.size, 0, 0)


class Numbers:
    def __init__(self):
        self.last = 0

    def __call__(self) -> int:
        self.last += 1
        return self.last


def take(queue: FairQueue[Entry]) -> Entry:
    call = queue.head()
    queue.pop(call)
    return call


def backlog(queue, number, tenant, count, size=1, weight=1.0):
    for _ in range(count):
        queue.push(Entry(number(), tenant, size, weight), number())


def served(queue, count):
    got: dict[str, int] = {}
    for _ in range(count):
        call = take(queue)
        got[call.tenant] = got.get(call.tenant, 0) + call.size
    return got


def test_one_tenant_is_first_come_first_served():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "", 50)
    order = [take(queue).number for _ in range(50)]
    assert order == sorted(order)
    assert queue.size == 0


def test_sizes_that_differ_four_times_share_evenly():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "large", 1000, size=400)
    backlog(queue, number, "small", 1000, size=100)
    got = served(queue, 1000)
    assert 0.98 < got["large"] / got["small"] < 1.02


def test_weights():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "three", 1000, weight=3.0)
    backlog(queue, number, "one", 1000, weight=1.0)
    got = served(queue, 800)
    assert 2.95 < got["three"] / got["one"] < 3.05


def test_an_interactive_call_is_next_however_long_the_batch():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "batch", 20_000, size=700)
    served(queue, 5000)
    queue.push(Entry(number(), "person", 700), number())
    assert "person" in {take(queue).tenant, take(queue).tenant}


def test_absence_saves_up_no_claim():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "always", 2000)
    served(queue, 1000)
    backlog(queue, number, "back", 1000)
    got = served(queue, 200)
    assert 95 <= got["back"] <= 105


def test_a_refused_call_comes_back_to_the_front_of_its_tenant():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "", 10)
    first, second = take(queue), take(queue)
    queue.push(second, number())
    queue.push(first, number())
    assert [take(queue), take(queue)] == [first, second]


def test_answers_longer_than_expected_are_paid_for():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "verbose", 500, size=10)
    backlog(queue, number, "brief", 500, size=10)
    got = {"verbose": 0, "brief": 0}
    for _ in range(400):
        call = take(queue)
        got[call.tenant] += 1
        queue.correct(call, 40 if call.tenant == "verbose" else 10)
    assert 3.8 < got["brief"] / got["verbose"] < 4.2


def test_what_was_not_served_is_not_paid_for():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "refused", 300)
    backlog(queue, number, "served", 300)
    got = {"refused": 0, "served": 0}
    for _ in range(200):
        call = take(queue)
        if call.tenant == "refused" and got["refused"] % 2:
            queue.correct(call, 0)
            queue.push(call, number())
        got[call.tenant] += 1
    assert 1.8 < got["refused"] / got["served"] < 2.2, "half of its starts came to nothing"


def test_many_tenants_that_come_and_go_are_forgotten():
    queue, number = FairQueue(), Numbers()
    for user in range(10_000):
        queue.push(Entry(number(), f"user {user}", 5), number())
        take(queue)
    assert len(queue._tenants) < 200
    assert len(queue._order) < 200


def test_calls_that_left_do_not_pile_up_behind_a_closed_gate():
    queue, number = FairQueue(), Numbers()
    backlog(queue, number, "", 1)
    for _ in range(10_000):
        entry = Entry(number())
        queue.push(entry, number())
        queue.drop(entry)
    assert queue.size == 1
    assert len(queue._tenants[""].calls) < 100


@given(
    st.lists(st.tuples(st.sampled_from(["push", "pop", "drop", "again", "correct"]), st.integers(0, 9)), max_size=300)
)
def test_agrees_with_a_list(steps):
    """Against a model: who waits, and in which order within a tenant."""
    queue, number = FairQueue(), Numbers()
    waiting: list[Entry] = []
    started: list[Entry] = []
    for what, pick in steps:
        if what == "push":
            entry = Entry(number(), "abc"[pick % 3], 1 + pick, 1 + pick % 2)
            queue.push(entry, number())
            waiting.append(entry)
        elif what == "pop" and waiting:
            entry = take(queue)
            mine = [other.number for other in waiting if other.tenant == entry.tenant]
            assert entry.number == min(mine)
            waiting.remove(entry)
            started.append(entry)
        elif what == "drop" and waiting:
            entry = waiting.pop(pick % len(waiting))
            queue.drop(entry)
        elif what == "again" and started:
            entry = started.pop(pick % len(started))
            queue.correct(entry, 0)
            queue.push(entry, number())
            waiting.append(entry)
        elif what == "correct" and started:
            queue.correct(started.pop(pick % len(started)), pick * 3)
        assert queue.size == len(waiting)
        assert sorted(entry.number for entry in queue.calls()) == sorted(entry.number for entry in waiting)
        assert sum(queue.tenants().values()) == len(waiting)
