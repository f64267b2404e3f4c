"""The draft tree keeps its shape and refuses to be cut in ways that would bias a verifier."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ventris.engine.tree import TokenTree


@st.composite
def trees(draw: st.DrawFn) -> TokenTree:
    count = draw(st.integers(1, 12))
    parents = [-1] + [draw(st.integers(0, node - 1)) for node in range(1, count)]
    return TokenTree([draw(st.integers(0, 9)) for _ in range(count)], parents)


@given(trees())
def test_children_depths_and_paths_agree(tree: TokenTree) -> None:
    depths, below = tree.depths(), tree.children()
    for node in range(len(tree)):
        path = tree.path_to(node)
        assert path[0] == 0
        assert path[-1] == node
        assert len(path) == depths[node] + 1
        assert all(child in below[parent] for parent, child in pairwise(path))
    assert sum(map(len, below)) == len(tree) - 1


@given(trees(), st.data())
def test_keeping_a_closed_set_keeps_its_paths(tree: TokenTree, data: st.DataObject) -> None:
    leaf = data.draw(st.integers(0, len(tree) - 1))
    path = tree.path_to(leaf)
    kept = tree.keep(path)
    assert kept.tokens == [tree.tokens[node] for node in path]
    assert kept.parents == list(range(-1, len(path) - 1))


def test_keeping_an_orphan_is_refused() -> None:
    tree = TokenTree([0, 1, 2], [-1, 0, 1])
    with pytest.raises(ValueError, match="parent of every kept node"):
        tree.keep([0, 2])


def test_draws_are_kept_or_dropped_whole() -> None:
    tree = TokenTree.root(0)
    first, second, again = tree.add_draws(0, [3, 4, 3], torch.full((5,), 0.2))
    assert (first, second, again) == (1, 2, 1)
    assert tree.keep([0]).draws == {}
    assert tree.keep([0, 1, 2]).draws == {0: [1, 2, 1]}
    with pytest.raises(ValueError, match="together"):
        tree.keep([0, 1])


@pytest.mark.parametrize(
    ("tokens", "parents", "message"),
    [
        ([], [], "root"),
        ([1, 2], [-1, 1], "parents come first"),
        ([1, 2], [0, 0], "node 0 must be the root"),
        ([1, 99], [-1, 0], "outside the vocabulary"),
    ],
)
def test_malformed_trees_are_named(tokens: list[int], parents: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenTree(tokens, parents).validate(10)
