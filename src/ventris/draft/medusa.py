"""Medusa: heads on the last hidden state guess several tokens ahead, each without seeing the others' guesses.

Cai et al. 2024, arXiv 2401.10774. With h_t the final-normed last hidden row, head k of K predicts x_{t+1+k}:

    z = h_t + SiLU(A_k h_t + b_k),   logits_k = W z

A_k starts at zero, so at first every head is the target's own. W is the target's head, frozen ("tied" or
"stored"), or a copy that each head trains for itself ("own", the paper's form); either way only over the
shortlist.

Exact with every exact verifier: drafts are chosen and not drawn, and the target decides on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np

from ventris.draft.head_drafter import HeadDrafter, TreeChoice
from ventris.draft.head_tree import LARGEST_TREE, Planned, StaticTree, grow_from_accuracies, plan
from ventris.draft.medusa_heads import FastMedusa, MedusaHeads
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree
from ventris.models.native.rows import most_probable
from ventris.models.stage import Array
from ventris.models.stages import as_array

RANKS = 10
"""Guesses of a head that may enter the tree."""


@dataclass(slots=True)
class _LastRow:
    """The target's last-layer output at the last committed position that it has seen."""

    hidden: Array | None = None


class Medusa(HeadDrafter):
    """Drafts with Medusa heads: one pass over all heads at one position, then a tree of their best."""

    name = "medusa"
    network_class = MedusaHeads

    def __init__(
        self,
        target: Target,
        network: MedusaHeads,
        tree: StaticTree,
        nodes: int = 24,
        choose: TreeChoice = "static",
    ) -> None:
        super().__init__(target, network, tree, nodes, choose)
        self._heads = FastMedusa(network, target)
        self._plan = plan(tree)

    @classmethod
    def tree_of(cls, measured: Any) -> StaticTree:
        """The best tree by how often each head's rank-i guess was right, ``accuracies: [K, ranks]``."""
        return grow_from_accuracies(measured["accuracies"], LARGEST_TREE)

    def start(self, request: RequestView) -> _LastRow:
        return _LastRow()

    def observe(self, state: _LastRow, commit: Commit) -> None:
        # The heads run here at no row but the last one, and only if a draft is asked for: see propose.
        state.hidden = as_array(commit.hidden[self.target.num_layers])[-1]

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        trees = [self._root(job) for job in jobs]
        able = [
            index
            for index, job in enumerate(jobs)
            if job.state.hidden is not None and min(job.budget.nodes, job.budget.depth) > 0
        ]
        if able:
            logits = self._heads.logits(np.stack([jobs[index].state.hidden for index in able]))
            guesses = [most_probable(row, RANKS) for row in logits]
            for place, index in enumerate(able):
                own = guesses[place * self._heads.heads : (place + 1) * self._heads.heads]
                self._plant(jobs[index], trees[index], own)
        return trees

    def _plant(self, job: DraftJob, tree: TokenTree, guesses: list[list[tuple[int, float]]]) -> None:
        """Grow the tree of one request from each head's best places in the shortlist."""
        nodes, depth = min(job.budget.nodes, self.nodes), job.budget.depth
        chosen: Sequence[Planned] = self._plan
        if self.dynamic:
            chances = [[exp(chance) for _, chance in row] for row in guesses]
            chosen = plan(grow_from_accuracies(chances, nodes, depth))
        planted: list[int] = []  # where each planned node stands in the tree; -1 where it was left out
        for node in chosen:
            if len(tree) > nodes:
                break
            parent = planted[node.parent] if node.parent >= 0 else 0
            row = guesses[node.depth - 1]
            fits = parent >= 0 and node.depth <= depth and node.rank < len(row)
            if not fits or (parent and tree.tokens[parent] in job.request.end_ids):
                planted.append(-1)
                continue
            planted.append(tree.add(self._ids[row[node.rank][0]], parent, node.confidence))
