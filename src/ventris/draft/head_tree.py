"""Which ranks of which heads form the draft tree: best-first search over measured acceptance.

A node is named by its path ``(i_1, .., i_m)``: the i_1-th best token of the first head, then the i_2-th
best of the second, and so on (Cai et al. 2024, arXiv 2401.10774, section 2.3 and ``eval/gen_results.py``).
Its value is the chance that the whole path is right. Starting at ``(0)``, the search adds the most valuable
of all next siblings and first children of what it has, so the first n nodes are the best tree of n nodes,
and every beginning of the list is a tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import prod
from typing import Any

from torch import Tensor

Path = tuple[int, ...]

LARGEST_TREE = 64
"""Nodes of a static tree at most; a policy takes as many of the first ones as pay."""


@dataclass(frozen=True, slots=True)
class StaticTree:
    """Paths in the order in which they were added, best first.

    Attributes:
        values: The chance that the whole path is right.
    """

    paths: Sequence[Path]
    values: Sequence[float]

    @property
    def expected_tokens(self) -> list[float]:
        """Tokens a step by number of nodes: entry n - 1 for the first n nodes, the root's token included."""
        expected, sizes = 1.0, []
        for value in self.values:
            expected += value
            sizes.append(expected)
        return sizes

    def stored(self) -> dict[str, Any]:
        """For a checkpoint's configuration."""
        return {"paths": [list(path) for path in self.paths], "values": list(self.values)}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> StaticTree:
        """What :meth:`stored` gave."""
        return cls([tuple(path) for path in stored["paths"]], stored["values"])

    def confidences(self) -> list[float]:
        """For each node the chance that it is accepted once its parent is."""
        known = dict(zip(self.paths, self.values, strict=True))
        return [
            min(value / known[path[:-1]], 1.0) if len(path) > 1 and known[path[:-1]] > 0 else value
            for path, value in zip(self.paths, self.values, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Planned:
    """A node of a static tree, ready to be planted.

    Attributes:
        parent: Place of its parent in the list, -1 for the root.
        rank: Which guess of its head.
        confidence: The chance that it is accepted once its parent is.
    """

    parent: int
    depth: int
    rank: int
    confidence: float


def plan(tree: StaticTree) -> list[Planned]:
    """The nodes of a tree in its order."""
    place = {path: index for index, path in enumerate(tree.paths)}
    return [
        Planned(place.get(path[:-1], -1), len(path), path[-1], confidence)
        for path, confidence in zip(tree.paths, tree.confidences(), strict=True)
    ]


def grow(value: Callable[[Path], float], nodes: int, depth: int, width: int) -> StaticTree:
    """The best tree of ``nodes`` nodes, at most ``depth`` deep with ``width`` children at a node.

    Args:
        value: The chance that a path is right; worthless paths (0) are never added.
    """
    paths: list[Path] = []
    values: list[float] = []
    heap: list[tuple[float, Path]] = [(-value((0,)), (0,))] if nodes and depth and width else []
    while heap and len(paths) < nodes:
        cost, path = heappop(heap)
        if cost >= 0:
            break
        paths.append(path)
        values.append(-cost)
        if path[-1] + 1 < width:
            sibling = (*path[:-1], path[-1] + 1)
            heappush(heap, (-value(sibling), sibling))
        if len(path) < depth:
            child = (*path, 0)
            heappush(heap, (-value(child), child))
    return StaticTree(paths, values)


def grow_from_accuracies(accuracies: Sequence[Sequence[float]], nodes: int, depth: int = 64) -> StaticTree:
    """The tree of heads that do not see each other: a path's value is the product of its ranks' accuracies.

    Args:
        accuracies: ``accuracies[k][i]`` is the chance that the rank-i guess of head k is right, ``[K,
            ranks]``.
    """

    width = len(accuracies[0]) if accuracies else 0
    return grow(lambda path: accuracy_of_path(accuracies, path), nodes, min(depth, len(accuracies)), width)


def accuracy_of_path(accuracies: Sequence[Sequence[float]], path: Path) -> float:
    """The product of the accuracies of a path's ranks."""
    return prod(accuracies[head][rank] for head, rank in enumerate(path))


def grow_from_ranks(ranks: Tensor, nodes: int, width: int) -> StaticTree:
    """The tree of heads that follow one another: a path's value is how often exactly its ranks were right.

    Sequentially dependent heads guess better below a right guess, so the product of marginals would
    undervalue deep paths (Ankner et al. 2024, arXiv 2402.05109, measure accepted paths likewise).

    Args:
        ranks: For each position and head the rank of the right token among the guesses, given the right
            tokens before it; int ``[positions, K]``.
    """
    counts: Counter[Path] = Counter()
    for row in ranks.tolist():
        path: Path = ()
        for rank in row:
            if rank >= width:
                break
            path = (*path, rank)
            counts[path] += 1
    total = max(len(ranks), 1)
    return grow(lambda path: counts[path] / total, nodes, ranks.shape[1], width)


def accuracies_of(ranks: Tensor, width: int) -> list[list[float]]:
    """How often each head's rank-i guess was right, ``[K, width]``, of ``ranks: [positions, K]``."""
    total = max(len(ranks), 1)
    return [[int((column == rank).sum()) / total for rank in range(width)] for column in ranks.T]
