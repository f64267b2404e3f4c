"""Hydra: draft heads that see the guesses before theirs.

Ankner et al. 2024, arXiv 2402.05109. With E the target's embedding and r = x_{t+1} the root, head i of K
(from 0) predicts x_{t+2+i} from

    input_i = concat(g_t, E(x_{t+1}), E(guess_1), .., E(guess_i))           (i + 2) d numbers
    y = R_i input_i + SiLU(A_i input_i),  then  y = y + SiLU(B y)  layers - 1 times
    logits_i = W y

Plain Hydra has g_t = h_t, the final-normed last hidden row, and one layer. Hydra++ has g = P(h_1..h_t), see
:mod:`ventris.draft.prefix_attention`, four layers, and is trained against the target's distribution. Every
extra layer has weights of its own.

Exact with every exact verifier: drafts are chosen and not drawn, and the target decides on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ventris.draft.best_nodes import best_nodes
from ventris.draft.head_drafter import TreeChoice
from ventris.draft.head_tree import StaticTree
from ventris.draft.hydra_heads import FastHydra, HydraHeads
from ventris.draft.level_drafter import Draft, LevelDrafter, Node
from ventris.draft.listed_embedding import ListedEmbedding
from ventris.engine.cache import KVCache
from ventris.engine.footprint import SCRATCH_ROWS
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree
from ventris.models.stage import Array


@dataclass(slots=True)
class _Seen:
    """What a request has shown.

    Rows enter when their tokens are committed, so the cache never has to be rolled back.

    Attributes:
        fresh: Final-normed rows not yet summarised.
        cache: P's keys and values of the others; ``None`` without P.
        summary: g at the last position that has been summarised.
    """

    fresh: list[Array] = field(default_factory=list)
    cache: KVCache | None = None
    summary: Array | None = None


class Hydra(LevelDrafter):
    """Drafts with Hydra heads, level by level over the frontiers of all requests at once."""

    name = "hydra"
    network_class = HydraHeads

    def __init__(
        self,
        target: Target,
        network: HydraHeads,
        tree: StaticTree,
        nodes: int = 24,
        choose: TreeChoice = "static",
    ) -> None:
        super().__init__(target, network, tree, nodes, choose)
        self._heads = FastHydra(network, target)
        self._embed = ListedEmbedding(target, self._ids)

    def start(self, request: RequestView) -> _Seen:
        if self._heads.prefix is None:
            return _Seen()
        return _Seen(cache=self._heads.prefix.new_cache(request.rows + SCRATCH_ROWS, request.ledger))

    def observe(self, state: _Seen, commit: Commit) -> None:
        rows = commit.hidden[self.target.num_layers]
        if state.cache is None:
            state.fresh = [self._heads.normed(rows[-1:])]
        else:
            state.fresh.append(self._heads.normed(rows))

    def finish(self, state: _Seen) -> None:
        """Give P's cache back."""
        if state.cache is not None:
            state.cache.release()

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        seen = [bool(job.state.fresh) or job.state.summary is not None for job in jobs]
        levels = len(self._heads.heads)
        drafts = [self._begin(job, levels, known) for job, known in zip(jobs, seen, strict=True)]
        able = [index for index, draft in enumerate(drafts) if draft.nodes and draft.depth]
        if able:
            summaries = self._summaries([drafts[index].job.state for index in able])
            self._grow(drafts, [Node(index, 0, (), 1.0) for index in able], summaries)
        return [best_nodes(draft.tree, draft.nodes) if self.dynamic else draft.tree for draft in drafts]

    def _summaries(self, states: Sequence[_Seen]) -> Array:
        """g at the last committed position of each request, ``[n, d]``."""
        waiting = [state for state in states if state.fresh]
        rows = [state.fresh[0] if len(state.fresh) == 1 else np.concatenate(state.fresh) for state in waiting]
        caches = [state.cache for state in waiting if state.cache is not None]
        if self._heads.prefix is not None and waiting:
            summaries = list(self._heads.prefix.last_rows(list(zip(caches, rows, strict=True))))
        else:
            summaries = [row[-1] for row in rows]
        for state, summary in zip(waiting, summaries, strict=True):
            state.summary, state.fresh = summary, []
        return np.stack([state.summary for state in states if state.summary is not None])

    def _grow(self, drafts: list[Draft], frontier: list[Node], summaries: Array) -> None:
        inputs = summaries
        for level, head in enumerate(self._heads.heads):
            tokens = [drafts[node.draft].tree.tokens[node.node] for node in frontier]
            inputs = np.concatenate([inputs, self._embed(tokens)], axis=1)
            offered = self._offer(drafts, frontier, head(inputs), level)
            frontier = [node for node, _ in offered]
            if not frontier:
                return
            inputs = inputs[[parent for _, parent in offered]]
