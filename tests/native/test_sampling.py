"""The choice of tokens, row by row, held against plain arithmetic."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncinfer.engines.local.ask import Ask
from asyncinfer.engines.native.sampling import Chooser, choose

pytestmark = [pytest.mark.native]

SIZE = 7
scores_of = st.lists(st.floats(-8, 8, width=32), min_size=SIZE, max_size=SIZE)


def chooser(prompt=(), ends=(), **ask):
    return Chooser(Ask(messages=[], **ask), list(prompt), ends, None)


def tensor(rows):
    import torch

    return torch.tensor(rows, dtype=torch.float32)


def allowed(scores, temperature, top_k, top_p, min_p):
    """Shares of the tokens that may come, the likeliest first."""
    order = sorted(range(SIZE), key=lambda token: -scores[token])
    weights = [math.exp((scores[token] - scores[order[0]]) / temperature) for token in order]
    kept = list(zip(order, weights, strict=True))[: top_k or SIZE]
    total = sum(weight for _, weight in kept)
    shares = [(token, weight / total) for token, weight in kept]
    out, before = [], 0.0
    for token, share in shares:
        if out and (before >= top_p or share < min_p * shares[0][1]):
            break
        out.append((token, share))
        before += share
    return out


@settings(max_examples=150, deadline=None)
@given(
    scores_of,
    st.floats(0.2, 3),
    st.integers(0, SIZE + 2),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 1 << 30),
)
def test_only_what_the_parameters_leave_can_come(scores, temperature, top_k, top_p, min_p, seed):
    ours = chooser(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    token = choose([ours], tensor([scores]))[0].token
    may = allowed(scores, temperature, top_k, top_p, min_p)
    # (what stands exactly on an edge may fall on either side, by rounding)
    edge = allowed(scores, temperature, top_k, min(1.0, top_p + 1e-4), max(0.0, min_p - 1e-4))
    assert token in {one for one, _ in may} | {one for one, _ in edge} | {
        one for one in range(SIZE) if any(math.isclose(scores[one], scores[other], abs_tol=1e-5) for other, _ in may)
    }


def test_tokens_come_as_often_as_their_probabilities_say():
    scores = [0.0, 1.0, 2.0, -1.0, -50.0, 0.5, 1.5]
    ours = chooser(temperature=1.0, top_p=0.9, seed=5)
    drawn = Counter(choose([ours], tensor([scores]))[0].token for _ in range(4000))
    may = dict(allowed(scores, 1.0, 0, 0.9, 0.0))
    total = sum(may.values())
    assert set(drawn) == set(may)
    for token, share in may.items():
        assert abs(drawn[token] / 4000 - share / total) < 0.04


def test_a_seed_repeats_itself_in_any_company():
    rng = random.Random(1)
    steps = [[[rng.gauss(0, 2) for _ in range(SIZE)] for _ in range(3)] for _ in range(20)]
    alone = chooser(temperature=1.2, seed=9)
    others = [chooser(temperature=0.7, top_k=3, seed=1), chooser(), chooser(temperature=1.2, seed=9)]
    for rows in steps:
        together = choose(others, tensor(rows))
        assert choose([alone], tensor(rows[2:]))[0].token == together[2].token
        assert together[1].token == max(range(SIZE), key=rows[1].__getitem__)


def test_logit_bias_and_least_tokens():
    scores = [0.0, 5.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert choose([chooser(logit_bias={1: -100.0, 99: 5.0})], tensor([scores]))[0].token == 2
    ours = chooser(min_tokens=2, ends=[1])
    assert [choose([ours], tensor([scores]))[0].token for _ in range(3)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("penalty", "tokens"),
    [
        ({"frequency_penalty": 0.6}, [1, 1, 2, 1, 2]),
        ({"presence_penalty": 1.1}, [1, 2, 1, 1, 1]),
        ({"repetition_penalty": 2.5}, [1, 2, 1, 1, 1]),
    ],
)
def test_penalties(penalty, tokens):
    scores = [-5.0, 3.0, 2.0, -5.0, -5.0, -5.0, -5.0]
    ours = chooser(**penalty)
    assert [choose([ours], tensor([scores]))[0].token for _ in range(5)] == tokens


def test_repetition_is_also_that_of_the_prompt():
    scores = [-5.0, 3.0, 2.0, -5.0, -5.0, -5.0, -5.0]
    assert choose([chooser(prompt=[1], repetition_penalty=2.0)], tensor([scores]))[0].token == 2
    assert choose([chooser(prompt=[1], frequency_penalty=2.0)], tensor([scores]))[0].token == 1
    below = [-1.0, -1.5, -9.0, -9.0, -9.0, -9.0, -9.0]
    assert choose([chooser(prompt=[0], repetition_penalty=2.0)], tensor([below]))[0].token == 1


@settings(max_examples=50, deadline=None)
@given(scores_of)
def test_logprobs_are_the_model_s_own(scores):
    total = math.log(sum(map(math.exp, scores)))
    ours = chooser(logprobs=3, logit_bias={0: 100.0})
    one = choose([ours], tensor([scores]))[0]
    assert one.token == 0
    assert math.isclose(one.logprob, scores[0] - total, abs_tol=1e-4)
    assert [value for _, value in one.top] == sorted((value for _, value in one.top), reverse=True)
    assert math.isclose(one.top[0][1], max(scores) - total, abs_tol=1e-4)
