"""Typical acceptance keeps its promise: each kept draft passes its threshold, the longest path is kept."""

from __future__ import annotations

import math

import pytest
import random_heads
import torch
from hypothesis import given
from hypothesis import strategies as st

from ventris.engine.errors import Incompatible
from ventris.engine.ledger import MemoryLedger
from ventris.engine.parts import RequestView
from ventris.engine.sampling import Sampling, SamplingState
from ventris.engine.tree import TokenTree
from ventris.engine.walk import Walk
from ventris.parts import Workshop, build_one
from ventris.testing import ToyTarget, check_verifier
from ventris.testing.checks import run
from ventris.testing.guides import Amateur
from ventris.verify.match import Greedy
from ventris.verify.typical import Typical

VOCABULARY = 6
PARENTS = [-1, 0, 0, 0, 1, 1, 2, 4, 4, 6]


def walk_of(seed: int, temperature: float, end_ids: frozenset[int] = frozenset()) -> Walk:
    generator = torch.Generator().manual_seed(seed)
    tokens = [0]
    for node in range(1, len(PARENTS)):
        used = {tokens[n] for n in range(1, node) if PARENTS[n] == PARENTS[node]}
        tokens.append(
            next(int(t) for t in torch.randperm(VOCABULARY, generator=generator) if int(t) not in used)
        )
    sampling = Sampling(temperature=temperature)
    target = ToyTarget(VOCABULARY)
    view = RequestView(target, [0], [0], sampling, 20, end_ids, MemoryLedger())
    logits = 2 * torch.randn((len(PARENTS), VOCABULARY), generator=generator)
    state = SamplingState(sampling, [0], sorted(end_ids), 20, VOCABULARY)
    return Walk(TokenTree(tokens, list(PARENTS)), logits, view, state)


def accepted(walk: Walk, logits: torch.Tensor, temperature: float) -> list[list[int]]:
    """Every path whose nodes all pass, computed apart from the verifier."""
    paths = [[0]]
    for node in range(1, len(PARENTS)):
        p = (logits[PARENTS[node]] / temperature).softmax(-1)
        entropy = -sum(float(x) * math.log(float(x) + 1e-5) for x in p)
        if float(p[walk.tree.tokens[node]]) > min(0.09, 0.3 * math.exp(-entropy)):
            paths += [[*path, node] for path in paths if path[-1] == PARENTS[node]]
    return paths


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.7, 1.0, 2.0]))
def test_the_longest_accepted_path_is_kept(seed, temperature):
    walk = walk_of(seed, temperature)
    logits = torch.from_numpy(walk._rows.copy())
    paths = accepted(walk, logits, temperature)
    Typical().select(walk)
    assert walk.path in paths
    assert len(walk.path) == max(map(len, paths))
    assert len(walk.taken) == len(walk.path)  # the path below the root, and one token more
    assert walk.taken[-1] == int(logits[walk.path[-1]].argmax())


def test_at_temperature_0_it_is_the_greedy_rule():
    for seed in range(50):
        one, other = walk_of(seed, 0.0), walk_of(seed, 0.0)
        Typical().select(one)
        Greedy().select(other)
        assert one.taken == other.taken


def test_an_end_token_inside_the_path_ends_it():
    for seed in range(200):
        walk = walk_of(seed, 1.0, frozenset([3]))
        Typical().select(walk)
        assert 3 not in walk.taken[:-1]


def test_it_keeps_more_than_sampling_and_says_that_it_is_approximate():
    target = random_heads.tiny_target()
    drafter = random_heads.medusa(target, random_heads.medusa_heads(target, "tied", listed=96))
    completion = run(target, Typical(epsilon=0.01), drafter, temperature=1.0)[0]
    assert completion.guarantee is not None
    assert not completion.guarantee.exact
    assert "typical" in completion.guarantee.statement
    assert len(completion.tokens) == 24
    check_verifier(Typical)


def test_a_guide_that_cannot_fork_is_refused():
    target = ToyTarget(12)
    with pytest.raises(Incompatible, match="cannot fork"):
        run(target, Typical(), None, [Amateur(ToyTarget(12))], temperature=1.0)


def test_it_is_registered_with_its_options():
    built = build_one("verifier", "typical:epsilon=0.2,delta=0.4", Workshop())
    assert (built.epsilon, built.delta) == (0.2, 0.4)
