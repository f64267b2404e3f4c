"""A draft tree under construction whose nodes a layer reads level by level, into a cache of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from torch import Tensor

from ventris.draft.guided_rows import Guess, GuidedRows
from ventris.engine.cache import KVCache
from ventris.engine.parts import DraftJob
from ventris.engine.target import Rows
from ventris.engine.tree import TokenTree


@dataclass(slots=True)
class Growth:
    """A tree, and where its nodes lie in the layer's cache.

    Attributes:
        guided: What the request's guides let follow.
        nodes: Drafted tokens that may be proposed.
        depth: Levels allowed.
        reach: For each node the chance that the path down to it is right, by the layer's probabilities.
        parents: Scratch rows' parents so far, as :class:`Rows` has them.
        row_of: Scratch row of each node that was read; -1 for the root, whose row is committed.
    """

    job: DraftJob
    tree: TokenTree
    guided: GuidedRows
    nodes: int
    depth: int
    reach: list[float] = field(default_factory=lambda: [1.0])
    parents: list[int] = field(default_factory=list)
    row_of: dict[int, int] = field(default_factory=lambda: {0: -1})

    @classmethod
    def begin(cls, job: DraftJob, source: str, guided: GuidedRows, nodes: int, depth: int) -> Self:
        """A root, to grow as far as the job's budget and these limits allow."""
        nodes = min(job.budget.nodes, nodes)
        tree = TokenTree([job.root], [-1], [1.0], source)
        return cls(job, tree, guided, nodes, min(job.budget.depth, depth, nodes))

    def add(self, token: int, parent: int, chance: float) -> int:
        """Append a node and return its index."""
        self.reach.append(self.reach[parent] * chance)
        return self.tree.add(token, parent, chance)

    def rows(self, nodes: Sequence[int], lent: KVCache | None = None) -> Rows:
        """What the layer reads next: nodes whose parents it has read."""
        start = len(self.parents)
        for row, node in enumerate(nodes, start):
            self.parents.append(self.row_of[self.tree.parents[node]])
            self.row_of[node] = row
        tokens = [self.tree.tokens[node] for node in nodes]
        return Rows(self.job.state.cache, tokens, self.parents, start, lent=lent)


def likeliest(logits: Tensor, places: Sequence[tuple[Growth, int]], width: int) -> list[list[Guess]]:
    """The likeliest tokens that may follow each place, best first.

    Args:
        logits: Over the listed tokens, ``[places, listed]``.
        places: Trees with the nodes that the rows belong to.
    """
    rows = logits.float().cpu().numpy()
    return [
        growth.guided.likeliest(growth.tree, node, row, width)
        for (growth, node), row in zip(places, rows, strict=True)
    ]
