"""Draft until the drafter doubts itself: the fallback policy of Big Little Decoder.

Kim et al. 2023 (arXiv 2302.07863), section 3.2: the small model hands over where its best token has less
than a threshold's probability, and that token is thrown away; it also hands over after so many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from ventris.engine.parts import Budget, DraftRecord, Load
from ventris.engine.tree import TokenTree

ALL_NODES = 256
"""Nodes of a tree; the depth is what this policy limits."""


class ConfidenceStop:
    """The same threshold at every step; how far a draft gets depends on the drafter's confidence.

    Drafters that can stop while they draft do (:class:`~ventris.engine.parts.Budget`); what others draft
    beyond the threshold is not scored.

    Args:
        confidence: Probability below which the drafter hands over; above 1 nothing is drafted.
        depth: Drafted tokens in a row at most; a drafter with a smaller depth of its own stops there.
    """

    name = "confidence-stop"

    class Options(BaseModel):
        """Options of stopping by confidence."""

        confidence: float = Field(0.6, ge=0, description="probability below which the drafter hands over")
        depth: int = Field(10, ge=1, le=64, description="drafted tokens in a row at most")

    def __init__(self, confidence: float = 0.6, depth: int = 10) -> None:
        self.confidence = confidence
        self.depth = depth

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        nodes = ALL_NODES if self.confidence <= 1 else 0
        return [Budget(nodes, self.depth, self.confidence)] * len(records)

    def trim(self, records: Sequence[DraftRecord], trees: Sequence[TokenTree], load: Load) -> list[TokenTree]:
        return [self._sure_part(tree) for tree in trees]

    def _sure_part(self, tree: TokenTree) -> TokenTree:
        """The tree up to the first unsure node of each path.

        Drawn nodes stay, as a draw must not be dropped for what it brought.
        """
        kept = [0]
        for node in range(1, len(tree)):
            parent = tree.parents[node]
            if parent in kept and (parent in tree.draws or tree.confidence[node] >= self.confidence):
                kept.append(node)
        return tree.keep(kept) if len(kept) < len(tree) else tree

    def observe(self, record: DraftRecord, tree: TokenTree, path: Sequence[int], seconds: float) -> None:
        """The threshold is fixed, so nothing is learnt."""
