"""Draft as much as pays: the tree size with the most expected tokens a second on the measured curve.

Expected tokens come from the drafter's confidence corrected by what was really accepted; seconds come from
T(n), corrected by what steps really took: the curve was measured behind a short text and in a moment of its
own, and behind a long one every node costs more. One decision is made for the whole batch, so a busy batch
drafts less. Cheap drafters are asked for more than is worth scoring and trimmed afterwards; dear ones are
told how far to draft beforehand, by what their calls took and by how often tokens of each depth were kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
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
from ventris.policy.by_depth import ByDepth
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

TRIAL = 0.01
"""Share of a text's time that a drafter may take to read its beginning though nothing promises a gain."""

MARGIN = 0.01
"""Gain in rate below which drafting is not worth its noise."""

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
        silent: Steps since a draft of it was last scored.
        trying: This step's draft is a trial: one token is scored whether it seems to pay or not.
        drafted: The drafter was asked in this step.
        unscored: For nodes of this step's tree below which nothing was scored, the chance that one of the
            drafts there would have been kept.
        seen: Length of its text when it was last drafted for; 0 if it never was.
        usual: Acceptance by depth of the texts before it. What this text adds to that of all texts is left
            out: it would count twice.
    """

    trust: Correction = field(default_factory=lambda: Correction(FORGETTING))
    by_depth: ByDepth = field(default_factory=lambda: ByDepth(FORGETTING))
    silent: int = 0
    trying: bool = False
    drafted: bool = False
    unscored: dict[int, float] = field(default_factory=dict)
    seen: int = 0
    usual: list[float] | None = None


@dataclass(slots=True)
class _Drafter:
    """What was learnt of a drafter from all requests.

    Attributes:
        depth: Running mean of the levels that it drafted.
        count: Calls that there were.
        behind: Tokens that it has to catch up on in this step.
        unread: Tokens of the texts that it begins in this step.
        fit: Times T(1): a call itself, each level, each token that it had to catch up on. Calls that begin a
            text say nothing about the next one, and are left out.
        learnt: Something was learnt of what a call takes.
        reading: Times T(1), for each token of a text that it begins.
    """

    depth: float = 0.0
    count: int = 0
    behind: int = 0
    unread: int = 0
    fit: RunningFit = field(default_factory=lambda: RunningFit((0.0,) * 3, (0.3, 0.1, 0.3)))
    learnt: bool = False
    reading: float = 0.0
    by_depth: ByDepth = field(default_factory=lambda: ByDepth(FORGETTING))

    def learn(self, depth: int, took: float) -> None:
        """Count a call that took so many times T(1)."""
        self.count += 1
        self.depth += (depth - self.depth) * max(1.0 / self.count, 0.1)
        if self.count <= WARM_UP:
            return
        features = (1.0, depth, self.behind)
        expected = sum(c * f for c, f in zip(self.fit.coefficients(), features, strict=True))
        if not self.unread:
            self.fit.observe(features, min(took, OUTLIER * expected) if self.learnt else took)
            self.learnt = True
        elif self.learnt:
            reading = max(took - expected, 0.0) / self.unread
            self.reading = 0.5 * (self.reading + reading) if self.reading else reading

    def price(self) -> tuple[float, float]:
        """Times T(1): a call itself and each level."""
        once, level, _ = self.fit.coefficients()
        return once, level

    def reach(self, known: _Known, depth: int) -> list[float]:
        """For each depth from 1 on, the chance that a token of a request there and all before it are kept."""
        if known.usual is None:
            known.usual = self.by_depth.rates(depth)
        return list(accumulate(known.by_depth.rates(depth, known.usual), mul))


class Goodput:
    """Chooses every step's tree sizes by expected tokens a second.

    Falls back to plain decoding where drafting does not pay, and tries again every ``retry`` steps, so it
    recovers when the text becomes predictable; a new text is tried once whatever others were like.

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
        self._drafters: defaultdict[str, _Drafter] = defaultdict(_Drafter)
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
        budgets = [NO_DRAFT] * len(records)
        for name in dict.fromkeys(record.drafter for record in records):
            drafter = self._drafters[name]
            places = [place for place, record in enumerate(records) if record.drafter == name]
            own = [records[place] for place in places]
            once, level = drafter.price()
            lengths = [self.budget.depth] * len(own)
            if once + level * drafter.depth >= DEAR:
                lengths = self._lengths(drafter, [_knowledge(record) for record in own], load)
            drafter.behind = drafter.unread = 0
            for place, record, length in zip(places, own, lengths, strict=True):
                known, text = _knowledge(record), len(record.request.tokens)
                if not length:
                    continue
                if not (known.seen or self._worth_reading(drafter, record)):
                    known.silent = 1
                    continue
                budgets[place] = Budget(self.budget.nodes, length)
                if known.seen:
                    drafter.behind += tokens_behind(text, known.seen, length)
                else:
                    drafter.unread += text
                known.seen = text
        return budgets

    def _worth_reading(self, drafter: _Drafter, record: DraftRecord) -> bool:
        """Whether what a drafter may save of the rest of a text is more than it takes to read its beginning.

        Reckoned as if the request were alone. A hundredth of the rest may be spent in any case, since how
        well this very text can be drafted is not known before.
        """
        reading = drafter.reading * len(record.request.tokens) * self._unit
        once, level = drafter.price()
        reach = drafter.reach(_knowledge(record), self.budget.depth)[: max(round(drafter.depth), 1)]
        lengths = np.arange(len(reach) + 1)
        seconds = self._seconds(1 + lengths) + self._unit * np.where(lengths, once + level * lengths, 0.0)
        each = seconds / np.cumsum([1.0, *reach])
        return bool(reading <= record.request.remaining * max(each[0] - each.min(), TRIAL * each[0]))

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
        for name, call in last.drafts.items():
            self._drafters[name].learn(call.depth, call.seconds / self._unit)

    def _seconds(self, nodes: Any) -> Any:
        """What a step over so many nodes takes, one number or many."""
        once, slope, further = self._steps.coefficients()
        flat = max(once, LEAST) + further / MANY * (nodes - 1)
        return flat * self._unit + slope * (self._curve(nodes) - self._unit)

    def _lengths(self, drafter: _Drafter, learnt: Sequence[_Known], load: Load) -> list[int]:
        """How far a dear drafter drafts: its time counts, and grows with the depth that it drafts to."""
        once, level = drafter.price()
        reach = np.array([drafter.reach(known, self.budget.depth) for known in learnt])
        price = price_of_drafts(self._seconds, load)

        def drafting(depth: Any, drafts: Any) -> Any:
            return self._unit * (once + level * depth)

        lengths = best_depths(reach, load.running, price, drafting, MARGIN)
        for place, known in enumerate(learnt):
            if lengths[place]:
                continue
            known.silent += 1
            if known.silent >= self.retry or (known.silent == 1 and not known.seen):
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
        drafter = self._drafters[record.drafter]
        depth = tree.depths()
        judged: dict[int, float] = {}
        for node, kept in judged_nodes(tree, path):
            level = depth[node] - 1
            judged[level] = max(judged.get(level, 0.0), float(kept))
            known.trust.observe(tree.confidence[node], kept)
        first_unjudged = max(judged, default=-1) + 1
        if path[-1] in known.unscored:
            # Drafts were paid for that were not scored; the likely ones alone would say too much.
            judged[len(path) - 1] = known.unscored[path[-1]]
        for by_depth in (known.by_depth, drafter.by_depth):
            by_depth.fade(first_unjudged)
            for level, share in judged.items():
                by_depth.judge(level, share)


def _knowledge(record: DraftRecord) -> _Known:
    if record.memory is None:
        record.memory = _Known()
    known: _Known = record.memory
    return known
