"""Draft as much as pays: the tree size with the most expected tokens a second on the measured curve.

Expected tokens come from the drafter's confidence corrected by what was really accepted; seconds come from
T(n), corrected by what steps really took: the curve was measured behind a short text and in a moment of its
own, and behind a long one every node costs more. One decision is made for the whole batch, so a busy batch
drafts less. Cheap drafters are asked for more than is worth scoring and trimmed afterwards; dear ones are
told how far to draft beforehand, by what their calls took and by how often tokens of each depth were kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from ventris.cost.curve import CostCurve
from ventris.engine.parts import NO_DRAFT, Budget, DraftRecord, Load
from ventris.engine.tree import TokenTree
from ventris.policy.best_lengths import best_depths
from ventris.policy.best_rate import (
    Tabled,
    best_count,
    best_draft,
    chosen_nodes,
    keep_nodes,
    likeliest_nodes,
    price_of_drafts,
    unscored_chances,
)
from ventris.policy.catching_up import tokens_behind
from ventris.policy.confidence import Correction, judged_nodes
from ventris.policy.running_fit import RunningFit

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
"""Acceptance assumed before anything was judged."""

DEPTH_WEIGHT = 2.0
"""Judgements that the acceptance of one depth counts for in that of the next."""

FADING = 0.95
"""Factor on the judgements of depths that were not drafted to, so that they are tried again."""

MANY = 8
"""Nodes that count as a unit where the time of a step is learnt."""

LEAST = 0.1
"""Share of T(1) that a step takes at least, whatever a line through a few steps says."""

WARM_UP = 2
"""Calls of a drafter that say nothing about its price."""

OUTLIER = 2.0
"""A call or a step counts for at most so many times what was expected: something else ran on the machine."""


@dataclass(slots=True)
class _Known:
    """What was learnt from one request.

    Attributes:
        kept_at, judged_at: By depth, tokens that were kept and judged.
        silent: Steps since a draft of it was last scored.
        trying: This step's draft is a trial: one token is scored whether it seems to pay or not.
        drafted: The drafter was asked in this step.
        unscored: For nodes of this step's tree below which nothing was scored, the chance that one of the
            drafts there would have been kept.
        seen: Length of its text when it was last drafted for.
    """

    trust: Correction = field(default_factory=lambda: Correction(FORGETTING))
    kept_at: list[float] = field(default_factory=list)
    judged_at: list[float] = field(default_factory=list)
    silent: int = 0
    trying: bool = False
    drafted: bool = False
    unscored: dict[int, float] = field(default_factory=dict)
    seen: int = 0

    def reach(self, depth: int) -> list[float]:
        """For each depth from 1 on, the chance that a token there and all before it are kept.

        A depth that was seldom judged is thought to be like the one before it.
        """
        reached, acceptance, found = 1.0, FIRST_ACCEPTANCE, []
        for level in range(depth):
            if level < len(self.kept_at):
                kept, judged = self.kept_at[level], self.judged_at[level]
                acceptance = (kept + DEPTH_WEIGHT * acceptance) / (judged + DEPTH_WEIGHT)
            reached *= acceptance
            found.append(reached)
        return found

    def fade(self, first: int) -> None:
        """Forget some of the depths from ``first`` on, which were not judged."""
        for level in range(first, len(self.kept_at)):
            self.kept_at[level] *= FADING
            self.judged_at[level] *= FADING

    def judge(self, level: int, kept: float) -> None:
        """Count a judgement of a depth."""
        while len(self.kept_at) <= level:
            self.kept_at.append(0.0)
            self.judged_at.append(0.0)
        self.kept_at[level] = FORGETTING * self.kept_at[level] + kept
        self.judged_at[level] = FORGETTING * self.judged_at[level] + 1.0


@dataclass(slots=True)
class _Calls:
    """What is known of a drafter's calls.

    Attributes:
        depth: Running mean of the levels that it drafted.
        count: Calls that there were.
        behind: Tokens that it has to catch up on in this step.
        fit: Times T(1): a call itself, each level, each token that it had to catch up on. That a prompt is
            read in the first call says nothing about the next one.
    """

    depth: float
    behind: int = 0
    count: int = 1
    fit: RunningFit = field(default_factory=lambda: RunningFit((0.0,) * 3, (0.3, 0.1, 0.3)))

    def learn(self, depth: int, took: float) -> None:
        """Count a call that took so many times T(1)."""
        self.depth += 0.1 * (depth - self.depth)
        self.count += 1
        if self.count <= WARM_UP:
            return
        features = (1.0, depth, self.behind)
        if self.count > WARM_UP + 1:
            expected = sum(c * f for c, f in zip(self.fit.coefficients(), features, strict=True))
            took = min(took, OUTLIER * expected)
        self.fit.observe(features, took)


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
        self._unit = curve(1)
        self._curve = Tabled(curve)
        # Times T(1): a step itself, what the curve adds for its nodes beyond the first, and what it misses.
        self._steps = RunningFit((1.0, 1.0, 0.0), (3.0, 1.0, 0.5))
        self._calls: dict[str, _Calls] = {}
        self._behind: dict[str, int] = {}
        self._seen: object = None

    @classmethod
    def build(cls, options: Options, workshop: Workshop) -> Goodput:
        """Take the target's measured curve; without a target a flat one stands in for checking."""
        curve = workshop.cost_curve() if workshop.cost_curve else CostCurve((1, 2), (1.0, 1.0))
        return cls(curve, **options.model_dump())

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        self._learn(load)
        for record in records:
            _knowledge(record).trying = False
        budgets = []
        lengths = [self.budget.depth] * len(records)
        for drafter in dict.fromkeys(record.drafter for record in records):
            places = [place for place, record in enumerate(records) if record.drafter == drafter]
            calls = self._calls.get(drafter)
            once, level = calls.fit.coefficients()[:2] if calls else (0.0, 0.0)
            if calls and once + level * calls.depth >= DEAR:
                own = [_knowledge(records[place]) for place in places]
                for place, length in zip(places, self._lengths(own, load, once, level), strict=True):
                    lengths[place] = length
            self._behind[drafter] = 0
        for record, length in zip(records, lengths, strict=True):
            budgets.append(Budget(self.budget.nodes, length) if length else NO_DRAFT)
            if length:
                known, text = _knowledge(record), len(record.request.tokens)
                self._behind[record.drafter] += tokens_behind(text, known.seen, length)
                known.seen = text
        return budgets

    def _learn(self, load: Load) -> None:
        """Look at what the drafters' calls of the last step took."""
        last = load.last
        if last is None or last is self._seen:
            return
        self._seen = last
        if last.nodes <= self.curve.sizes[-1]:
            took, expected = last.seconds, self._seconds(last.nodes)
            features = (1.0, self._curve(last.nodes) / self._unit - 1.0, (last.nodes - 1) / MANY)
            self._steps.observe(features, min(took, OUTLIER * expected) / self._unit)
        for drafter, call in last.drafts.items():
            if drafter not in self._calls:
                # The first call warms up.
                self._calls[drafter] = _Calls(call.depth)
                continue
            calls = self._calls[drafter]
            calls.behind = self._behind.get(drafter, 0)
            calls.learn(call.depth, call.seconds / self._unit)

    def _seconds(self, nodes: Any) -> Any:
        """What a step over so many nodes takes, one number or many."""
        once, slope, further = self._steps.coefficients()
        flat = max(once, LEAST) + further / MANY * (nodes - 1)
        return flat * self._unit + slope * (self._curve(nodes) - self._unit)

    def _lengths(self, learnt: Sequence[_Known], load: Load, once: float, level: float) -> list[int]:
        """How far a dear drafter drafts: its time counts, and grows with the depth that it drafts to."""
        reach = np.array([known.reach(self.budget.depth) for known in learnt])
        price = price_of_drafts(self._seconds, load)

        def drafting(depth: Any, drafts: Any) -> Any:
            return self._unit * (once + level * depth)

        lengths = best_depths(reach, load.running, price, drafting, MARGIN)
        for place, known in enumerate(learnt):
            if lengths[place]:
                continue
            known.silent += 1
            if known.silent >= self.retry:
                known.silent, known.trying, lengths[place] = 0, True, 1
        return lengths

    def trim(self, records: Sequence[DraftRecord], trees: Sequence[TokenTree], load: Load) -> list[TokenTree]:
        learnt = [_knowledge(record) for record in records]
        chances = [
            [known.trust.chance(confidence, confidence, PRIOR_WEIGHT) for confidence in tree.confidence]
            for known, tree in zip(learnt, trees, strict=True)
        ]
        found = likeliest_nodes(trees, chances)
        drawn = sum(len(tree) - 1 for tree in trees if tree.draws)
        seconds = price_of_drafts(self._seconds, load)(drawn + np.arange(len(found) + 1))
        count, _ = best_count([chance for chance, _, _ in found], load.running, seconds, MARGIN)
        kept = chosen_nodes(trees, found[:count])
        for place, (known, tree) in enumerate(zip(learnt, trees, strict=True)):
            kept[place] = self._probed(known, tree, kept[place])
            known.drafted = True
            known.unscored = unscored_chances(tree, kept[place], chances[place])
        return keep_nodes(trees, kept)

    def _probed(self, known: _Known, tree: TokenTree, kept: list[int]) -> list[int]:
        """What is kept of a tree, or the best single draft once nothing was kept for long enough."""
        if tree.draws or len(tree) == 1:
            return kept
        known.silent = 0 if len(kept) > 1 else known.silent + 1
        if len(kept) > 1 or not (known.trying or known.silent >= self.retry):
            return kept
        known.silent = 0
        return [0, best_draft(tree)]

    def observe(self, record: DraftRecord, tree: TokenTree, path: Sequence[int], seconds: float) -> None:
        known = _knowledge(record)
        drafted, known.drafted = known.drafted, False
        if not drafted:
            # A bare root, or tokens that a guide forced; neither tells anything about the drafter.
            return
        depth = tree.depths()
        judged_levels: dict[int, bool] = {}
        for node, kept in judged_nodes(tree, path):
            known.trust.observe(tree.confidence[node], kept)
            level = depth[node] - 1
            judged_levels[level] = judged_levels.get(level, False) or kept
        for level, kept in judged_levels.items():
            known.judge(level, kept)
        known.fade(max(judged_levels, default=-1) + 1)
        if path[-1] in known.unscored:
            # Drafts were paid for that were not scored; the likely ones alone would say too much.
            known.judge(len(path) - 1, known.unscored[path[-1]])


def _knowledge(record: DraftRecord) -> _Known:
    if record.memory is None:
        record.memory = _Known()
    known: _Known = record.memory
    return known
