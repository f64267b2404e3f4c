"""How far a drafter's confidence can be trusted: its tokens' chances by what became of earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ventris.engine.tree import TokenTree

BUCKETS = 10
"""Confidence is corrected in tenths."""


class Correction:
    """Counts, for each tenth of confidence, how many drafted tokens were judged and how many kept.

    Args:
        forgetting: Factor on old counts of a tenth at each new one, so that they follow the text.
    """

    __slots__ = ("_forgetting", "_judged", "_kept")

    def __init__(self, forgetting: float) -> None:
        self._forgetting = forgetting
        self._kept = [0.0] * BUCKETS
        self._judged = [0.0] * BUCKETS

    def chance(self, confidence: float, prior: float, weight: float) -> float:
        """The chance that a token of this confidence is kept once its parent is.

        Args:
            prior: What is thought of it otherwise; counts as much as ``weight`` judgements.
        """
        bucket = _bucket(confidence)
        return (self._kept[bucket] + weight * prior) / (self._judged[bucket] + weight)

    def observe(self, confidence: float, kept: bool) -> None:
        """Count a token that was judged."""
        bucket = _bucket(confidence)
        self._kept[bucket] = self._forgetting * self._kept[bucket] + kept
        self._judged[bucket] = self._forgetting * self._judged[bucket] + 1.0

    def fade(self, factor: float) -> None:
        """Let what was counted count for less."""
        self._kept = [factor * count for count in self._kept]
        self._judged = [factor * count for count in self._judged]


def judged_nodes(tree: TokenTree, path: Sequence[int]) -> Iterator[tuple[int, bool]]:
    """The drafted nodes of a verified tree that were judged, and whether each was kept."""
    on_path = set(path)
    for node in range(1, len(tree)):
        if tree.parents[node] in on_path:
            yield node, node in on_path


def _bucket(confidence: float) -> int:
    return min(int(confidence * BUCKETS), BUCKETS - 1)
