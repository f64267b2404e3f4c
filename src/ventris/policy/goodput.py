"""Draft as much as pays: the tree size with the most expected tokens a second on the measured curve.

Expected tokens come from the drafter's confidence corrected by what was really accepted; seconds come from
T(n). One decision is made for the whole batch, so a busy batch drafts less. Cheap drafters are asked for
more than is worth scoring and trimmed afterwards; dear ones are told how far to draft beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from ventris.cost.curve import CostCurve
from ventris.engine.parts import NO_DRAFT, Budget, DraftRecord, Load
from ventris.engine.tree import TokenTree
from ventris.policy.best_rate import best_count, best_draft, keep_nodes, likeliest_nodes, price_of_drafts
from ventris.policy.confidence import Correction, judged_nodes

if TYPE_CHECKING:
    from ventris.parts import Workshop

PRIOR_WEIGHT = 6.0
"""Judgements that the drafter's own confidence counts for in each bucket."""

FORGETTING = 0.98
"""Factor on old judgements, so that the correction follows the text."""

DEAR = 0.04
"""A drafter whose call takes more than this share of T(1) is planned for, not only trimmed."""

MARGIN = 0.01
"""Gain in rate below which drafting is not worth its noise."""

FIRST_ACCEPTANCE = 0.6
"""Acceptance assumed at a depth that was never judged."""


@dataclass(slots=True)
class _Known:
    """What was learnt from one request."""

    trust: Correction = field(default_factory=lambda: Correction(FORGETTING))
    kept_at: list[float] = field(default_factory=list)
    judged_at: list[float] = field(default_factory=list)
    drafted_depth: float = 4.0
    silent: int = 0


class Goodput:
    """Chooses every step's tree sizes by expected tokens a second.

    Falls back to plain decoding where drafting does not pay, and tries again every ``retry`` steps, so it
    recovers when the text becomes predictable.

    Trees that were *drawn* are never trimmed: dropping a draw after looking at it would bias a rejection
    rule. Their depth is planned before drafting.

    Args:
        curve: T(n) of the target on this machine.
        retry: Steps without a draft after which a small one is tried.
        nodes: Drafted tokens of one request at most.
        depth: Drafted tokens in a row at most.
    """

    name = "goodput"

    class Options(BaseModel):
        """Options of the goodput policy."""

        retry: int = Field(24, ge=1, description="steps without a draft after which a small one is tried")
        nodes: int = Field(32, ge=1, le=256, description="drafted tokens of one request at most")
        depth: int = Field(16, ge=1, le=64, description="drafted tokens in a row at most")

    def __init__(self, curve: CostCurve, retry: int = 24, nodes: int = 32, depth: int = 16) -> None:
        self.curve = curve
        self.retry = retry
        self.budget = Budget(nodes, depth)

    @classmethod
    def build(cls, options: Options, workshop: Workshop) -> Goodput:
        """Take the target's measured curve; without a target a flat one stands in for checking."""
        curve = workshop.cost_curve() if workshop.cost_curve else CostCurve((1, 2), (1.0, 1.0))
        return cls(curve, **options.model_dump())

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        return [self._plan_one(record, load) for record in records]

    def _plan_one(self, record: DraftRecord, load: Load) -> Budget:
        known = _knowledge(record)
        call = load.draft_seconds.get(record.drafter)
        if call is None or call < DEAR * self.curve(1):
            return self.budget
        # A dear drafter: its time counts, and it grows with the depth it drafts to.
        each = call / max(known.drafted_depth, 1.0)
        price = price_of_drafts(self.curve, load)
        best, depth, expected, reach = max(load.running, 1) / price(0), 0, 1.0, 1.0
        for level in range(self.budget.depth):
            reach *= _acceptance(known, level)
            expected += reach
            seconds = price(level + 1) / max(load.running, 1) + each * (level + 1)
            if expected / seconds > best * (1 + MARGIN):
                best, depth = expected / seconds, level + 1
        if depth == 0:
            known.silent += 1
            if known.silent < self.retry:
                return NO_DRAFT
            depth = 1
        known.silent = 0
        return Budget(self.budget.nodes, depth)

    def trim(self, records: Sequence[DraftRecord], trees: Sequence[TokenTree], load: Load) -> list[TokenTree]:
        learnt = [_knowledge(record) for record in records]

        def chance(place: int, node: int) -> float:
            confidence = trees[place].confidence[node]
            return learnt[place].trust.chance(confidence, confidence, PRIOR_WEIGHT)

        found = likeliest_nodes(trees, chance)
        price = price_of_drafts(self.curve, load)
        drawn = sum(len(tree) - 1 for tree in trees if tree.draws)
        seconds = [price(drawn + drafts) for drafts in range(len(found) + 1)]
        count, _ = best_count([chance for chance, _, _ in found], load.running, seconds, MARGIN)
        kept = keep_nodes(trees, found[:count])
        return [self._probed(*entry) for entry in zip(learnt, trees, kept, strict=True)]

    def _probed(self, known: _Known, tree: TokenTree, kept: TokenTree) -> TokenTree:
        """What is kept of a tree, or the best single draft once nothing was kept for long enough."""
        if tree.draws or len(tree) == 1:
            return tree
        known.silent = 0 if len(kept) > 1 else known.silent + 1
        if known.silent < self.retry:
            return kept
        known.silent = 0
        return tree.keep([0, best_draft(tree)])

    def observe(self, record: DraftRecord, tree: TokenTree, path: Sequence[int], seconds: float) -> None:
        if len(tree) == 1:
            return
        known = _knowledge(record)
        depth = tree.depths()
        known.drafted_depth += 0.2 * (max(depth) - known.drafted_depth)
        judged_levels: dict[int, bool] = {}
        for node, kept in judged_nodes(tree, path):
            known.trust.observe(tree.confidence[node], kept)
            level = depth[node] - 1
            judged_levels[level] = judged_levels.get(level, False) or kept
        for level, kept in judged_levels.items():
            while len(known.kept_at) <= level:
                known.kept_at.append(0.0)
                known.judged_at.append(0.0)
            known.kept_at[level] = FORGETTING * known.kept_at[level] + kept
            known.judged_at[level] = FORGETTING * known.judged_at[level] + 1.0


def _knowledge(record: DraftRecord) -> _Known:
    if record.memory is None:
        record.memory = _Known()
    known: _Known = record.memory
    return known


def _acceptance(known: _Known, level: int) -> float:
    if level >= len(known.kept_at):
        return _acceptance(known, level - 1) if level else FIRST_ACCEPTANCE
    return (known.kept_at[level] + 2 * FIRST_ACCEPTANCE) / (known.judged_at[level] + 2)
