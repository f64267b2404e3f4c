"""The tree search, against the reference's released measurements."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ventris.draft.head_tree import accuracies_of, grow_from_accuracies, grow_from_ranks

# Vicuna-7B, five ranks of three heads, as the reference publishes them.
VICUNA = [
    [0.5604, 0.1113, 0.0554, 0.0328, 0.0200],
    [0.3164, 0.1072, 0.0615, 0.0431, 0.0343],
    [0.2010, 0.0869, 0.0597, 0.0359, 0.0334],
]


def test_the_first_nodes_are_those_of_the_reference():
    tree = grow_from_accuracies(VICUNA, 10)
    wanted = [(0,), (0, 0), (1,), (0, 1), (2,), (0, 0, 0), (1, 0), (0, 2), (3,), (0, 3)]
    assert list(tree.paths) == wanted


def test_expected_tokens_are_those_of_the_reference():
    expected = grow_from_accuracies(VICUNA, 63).expected_tokens
    sizes = {1: 1.56, 2: 1.74, 4: 1.91, 8: 2.07, 12: 2.17, 16: 2.22, 32: 2.32, 63: 2.38}
    for size, tokens in sizes.items():
        assert expected[size - 1] == pytest.approx(tokens, abs=0.005)


@given(st.integers(0, 1000), st.integers(1, 20))
def test_every_beginning_is_a_tree_and_no_tree_of_its_size_is_better(seed, nodes):
    generator = torch.Generator().manual_seed(seed)
    table = torch.rand((3, 4), generator=generator).sort(descending=True).values.tolist()
    tree = grow_from_accuracies(table, nodes)
    seen = {()}
    for path in tree.paths:
        assert path[:-1] in seen
        assert path[-1] == 0 or (*path[:-1], path[-1] - 1) in seen
        seen.add(path)
    everything = sorted(grow_from_accuracies(table, 10_000).values, reverse=True)
    assert sum(tree.values) == pytest.approx(sum(everything[:nodes]))


def test_confidences_multiply_to_the_values():
    tree = grow_from_accuracies(VICUNA, 30)
    confidence = dict(zip(tree.paths, tree.confidences(), strict=True))
    for path, value in zip(tree.paths, tree.values, strict=True):
        product = 1.0
        for length in range(1, len(path) + 1):
            product *= confidence[path[:length]]
        assert product == pytest.approx(value)


def test_joint_frequencies_see_that_right_guesses_come_together():
    # Independent marginals would give (0, 0) a quarter; here both are right or neither is.
    ranks = torch.tensor([[0, 0]] * 5 + [[1, 1]] * 5)
    tree = grow_from_ranks(ranks, 8, width=3)
    assert dict(zip(tree.paths, tree.values, strict=True)) == {(0,): 0.5, (0, 0): 0.5, (1,): 0.5}
    assert accuracies_of(ranks, 2) == [[0.5, 0.5], [0.5, 0.5]]


def test_a_budget_of_nothing_gives_no_tree():
    assert grow_from_accuracies(VICUNA, 0).paths == []
    assert all(len(path) == 1 for path in grow_from_accuracies(VICUNA, 30, depth=1).paths)
