"""How many of the likeliest nodes to score: what the policies that go by tokens a second share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from ventris.engine.parts import Load
from ventris.engine.tree import TokenTree

CERTAIN = 0.999
"""A hair below one, so that sorting keeps parents before their children among equals."""


class Tabled:
    """A function of whole numbers from 0, asked once for each and then looked up, many at a time.

    A step's time is wanted for every count of drafts at every step; computed anew it would cost more than
    the best count gains.
    """

    def __init__(self, function: Callable[[int], float]) -> None:
        self._function = function
        self._known = np.empty(0)

    def __call__(self, numbers: Any) -> Any:
        """Values at one number, or at each number of an array."""
        most = int(np.max(numbers))
        if most >= len(self._known):
            further = [self._function(number) for number in range(len(self._known), 2 * most + 1)]
            self._known = np.append(self._known, further)
        return self._known[numbers]


def price_of_drafts(seconds: Callable[[Any], Any], load: Load) -> Callable[[Any], Any]:
    """Seconds of the coming step by drafted tokens (one number or many), without the reading of prompts.

    Prompts have to be read in any case. Counted in, they would make the step slow already and every draft
    look cheap, just when the requests that wait want the machine. What drafts cost *besides* them counts.

    Args:
        seconds: Of a step by its nodes.
    """
    base = load.running + load.other_nodes
    prompts = seconds(base) - seconds(load.running) if load.other_nodes else 0.0
    return lambda drafts: seconds(base + drafts) - prompts


def best_count(
    chances: Sequence[float],
    running: int,
    seconds: Sequence[float] | npt.NDArray[np.float64],
    margin: float,
) -> tuple[int, float]:
    """Of drafts with these chances, likeliest first, how many give most expected tokens a second.

    Every running request brings one token without drafts. All counts are looked at, since steps of the
    cost (of a kernel that works on blocks, say) may make a longer draft pay where a shorter one does not.

    Args:
        running: Requests in the step.
        seconds: Time of the step by the number of drafts, none first; one entry more than ``chances``.
        margin: Share by which drafting has to be better than not drafting.

    Returns:
        The count and its expected tokens a second.
    """
    expected = max(running, 1) + np.cumsum([0.0, *chances])
    rates = expected / np.asarray(seconds)
    best = int(rates.argmax())
    if rates[best] <= rates[0] * (1 + margin):
        best = 0
    return best, float(rates[best])


def likeliest_nodes(
    trees: Sequence[TokenTree], chances: Sequence[Sequence[float]]
) -> list[tuple[float, int, int]]:
    """All drafted nodes with the chance that they are reached, likeliest first, parents before children.

    Args:
        chances: For each tree and node, that the node is kept once its parent is.

    Returns:
        Chance, place of the tree, node. Trees that were drawn are left out: to drop a draw after looking
        at it would bias a rejection rule.
    """
    found: list[tuple[float, int, int]] = []
    for place, (tree, own) in enumerate(zip(trees, chances, strict=True)):
        if tree.draws:
            continue
        reach, parents = [1.0], tree.parents
        for node in range(1, len(parents)):
            chance = own[node]
            reach.append(reach[parents[node]] * (chance if chance < CERTAIN else CERTAIN))
            found.append((reach[node], place, node))
    # Stable in reverse too: among equals, parents stay before their children.
    found.sort(key=itemgetter(0), reverse=True)
    return found


def chosen_nodes(trees: Sequence[TokenTree], chosen: Sequence[tuple[float, int, int]]) -> list[list[int]]:
    """For each tree the nodes that stay, ascending: the root with the chosen ones, and all of a drawn tree.

    Args:
        chosen: As :func:`likeliest_nodes` gives them.
    """
    kept: list[list[int]] = [list(range(len(tree))) if tree.draws else [0] for tree in trees]
    for _, place, node in chosen:
        kept[place].append(node)
    return [sorted(nodes) for nodes in kept]


def unscored_chances(tree: TokenTree, kept: Sequence[int], chances: Sequence[float]) -> dict[int, float]:
    """For nodes that stay while all drafts below them go: the chance that one of those would have been kept.

    An estimate of acceptance from scored tokens alone would count the likely ones only.

    Args:
        kept: Nodes that stay, ascending.
        chances: Of each node of ``tree``, once its parent is kept.

    Returns:
        By index in the tree that is left.
    """
    staying = set(kept)
    below: dict[int, float] = {}
    for node in range(1, len(tree)):
        if node not in staying:
            below[tree.parents[node]] = below.get(tree.parents[node], 0.0) + chances[node]
    open_nodes = {tree.parents[node] for node in kept[1:]}
    return {
        index: min(below[node], CERTAIN)
        for index, node in enumerate(kept)
        if node in below and node not in open_nodes
    }


def keep_nodes(trees: Sequence[TokenTree], kept: Sequence[Sequence[int]]) -> list[TokenTree]:
    """The trees cut down to nodes of theirs, ascending, the root first."""
    return [
        tree if len(nodes) == len(tree) else tree.keep(nodes) for tree, nodes in zip(trees, kept, strict=True)
    ]


def best_draft(tree: TokenTree) -> int:
    """The likeliest node right below the root of a tree that holds drafts."""
    first = [node for node in range(1, len(tree)) if tree.parents[node] == 0]
    return max(first, key=lambda node: tree.confidence[node])
