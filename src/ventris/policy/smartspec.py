"""SmartSpec: the draft lengths with the most goodput, every step anew.

Liu, Daniel, Hu, Kwon, Li, Mo, Cheung, Deng, Stoica and Zhang 2024, "Optimizing Speculative Decoding for
Serving Large Language Models Using Goodput" (arXiv 2406.14066; later TurboSpec). Goodput is kept tokens a
second: a draft of k tokens that are kept with chance a brings (1 - a^(k+1)) / (1 - a) tokens, and a step
takes T(draft) + T(target) + T(overhead). Length 0 is one of the choices, so a busy server drafts nothing.

Where this differs from the authors' code, it does so on purpose:

- a is estimated from kept and refused tokens alone (:mod:`ventris.policy.acceptance`), not from kept over
  drafted, and each request has an a of its own, drawn towards that of all requests;
- each request has its own length: tokens are added in the order of their chances, over the whole batch, and
  every count is tried;
- once tokens are drafted, each has the chance that goes with the drafter's confidence in it, by what became
  of earlier ones (:mod:`ventris.policy.confidence`); one number for all would score doubtful tokens and drop
  sure ones;
- a request that is not drafted for is tried again with one token after a while, where sure hits would pay
  and as far as a hundredth of the time goes; under a load where not even those pay, it is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from ventris.cost.batch_latency import BatchLatency
from ventris.cost.curve import CostCurve
from ventris.engine.parts import NO_DRAFT, Budget, DraftRecord, Load
from ventris.engine.tree import TokenTree
from ventris.policy.acceptance import Acceptance, judged
from ventris.policy.best_lengths import best_lengths
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

FREE = 0.04
"""A drafter that takes less than this share of a step is asked first, and its drafts cut to length after."""

MARGIN = 0.02
"""Gain in goodput below which drafting is not worth its noise."""

FIRST_ACCEPTANCE = 0.7
"""Acceptance assumed before anything was judged."""

SURE = 0.95
"""Acceptance that is thought possible of a request that was not drafted for in a while."""

FADING = 0.99
"""Factor on what is known of a request's acceptance at each step without a draft for it."""

COMMON_WEIGHT = 2.0
"""Judgements that the first guess counts for in the acceptance of all requests."""

OWN_WEIGHT = 4.0
"""Judgements that the acceptance of all requests counts for in that of one."""

COMMON_FORGETTING = 0.99
OWN_FORGETTING = 0.95

COMMON_TRUST, OWN_TRUST = 2.0, 6.0
"""As the weights above, for the chances that go with a drafter's confidence."""

TRUST_FORGETTING = 0.98

TRIAL_SHARE = 0.01
"""Share of the time that drafts may take that are tried though they seem not to pay."""

OUTLIER = 3.0
"""A step that took longer than so many times the prediction counts as if it had taken just that."""


@dataclass(slots=True)
class _Known:
    """What is remembered about one request.

    Attributes:
        silent: Steps since it was last drafted for.
        trust: By the part that drafted, how far its confidence holds in this text.
        trying: This step's draft is such a trial.
        drafted: Tokens drafted in this step, whether they were scored or not.
        unscored: For nodes of this step's tree below which nothing was scored, the chance that one of the
            drafts there would have been kept.
        seen: Length of its text when it was last drafted for.
    """

    acceptance: Acceptance = field(default_factory=lambda: Acceptance(OWN_FORGETTING))
    trust: dict[str, Correction] = field(default_factory=dict)
    silent: int = 0
    trying: bool = False
    drafted: int = 0
    unscored: dict[int, float] = field(default_factory=dict)
    seen: int = 0

    def fade(self) -> None:
        """Let what was seen count for less, because the text went on without drafts."""
        self.acceptance.fade(FADING)
        for trust in self.trust.values():
            trust.fade(FADING)


class SmartSpec:
    """Chooses draft lengths from 0 to ``longest``, for each request and step, by predicted goodput.

    What a drafter takes is learnt from its calls. One that takes time is told its lengths beforehand; one
    that takes next to none (n-grams) drafts at full length, and of that is verified what pays. In a tree, a
    level's acceptance is shared among siblings by the drafter's confidence. Drawn trees are planned and never
    cut: dropping a draw after looking at it would bias a rejection rule.

    Outputs do not depend on it. To see the load of all requests, they must share one object, as those do
    that name it ``policy="smartspec"``.

    Args:
        latency: Seconds of the target's pass over so many nodes with so many cached rows behind them; what
            the rows add is taken to be the same for any number of nodes.
        longest: Tokens drafted ahead at most.
        nodes: Drafted tokens of one request at most, where the drafter grows trees.
        retry: Steps without a draft after which one is tried wherever it might pay.
    """

    name = "smartspec"

    class Options(BaseModel):
        """Options of the SmartSpec policy."""

        longest: int = Field(8, ge=1, le=64, description="tokens drafted ahead at most")
        nodes: int = Field(32, ge=1, le=256, description="drafted tokens of one request, in a tree")
        retry: int = Field(32, ge=1, description="steps without a draft after which one is tried")

    def __init__(
        self, latency: Callable[[int, int], float], longest: int = 8, nodes: int = 32, retry: int = 32
    ) -> None:
        self.latency = latency
        self.longest = longest
        self.nodes = nodes
        self.retry = retry
        self._unit = latency(1, 0)
        self._pass_seconds = Tabled(lambda nodes: latency(max(nodes, 1), 0))
        # Seconds of a step, by the model's prediction and by running requests.
        self._steps = RunningFit((1.0, 0.0), (3.0, 3.0))
        # Seconds of a drafter's call: once, by level, by drafted token, by token that it had to catch up.
        self._calls: dict[str, RunningFit] = {}
        self._behind: dict[str, int] = {}
        self._common: dict[str, Acceptance] = {}
        self._trust: dict[str, Correction] = {}
        self._drawing: set[str] = set()
        self._seen: object = None
        # Seconds that trials may take still.
        self._allowance = self._unit

    @classmethod
    def build(cls, options: Options, workshop: Workshop) -> SmartSpec:
        """Take the target's measured latency; without a target a flat one stands in for checking."""
        if workshop.batch_latency is None:
            return cls(BatchLatency(CostCurve((1, 2), (1.0, 1.0))), **options.model_dump())
        return cls(workshop.batch_latency(), **options.model_dump())

    # Before drafting.

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        self._learn(load)
        seconds = self._seconds(records, load)
        for record in records:
            known = _known(record)
            known.trying, known.drafted = False, 0
        budgets = [NO_DRAFT] * len(records)
        for drafter in dict.fromkeys(record.drafter for record in records):
            members = [place for place, record in enumerate(records) if record.drafter == drafter]
            own = [records[place] for place in members]
            if self._is_free(drafter, len(own), seconds(0)):
                lengths = [self.longest] * len(own)
            else:
                lengths = self._lengths(drafter, own, load, seconds)
            for place, length in zip(members, lengths, strict=True):
                if length:
                    budgets[place] = Budget(max(self.nodes, length), length)
            self._behind[drafter] = _catch_up(own, lengths)
        return budgets

    def _lengths(
        self, drafter: str, records: Sequence[DraftRecord], load: Load, seconds: Callable[[Any], Any]
    ) -> list[int]:
        """Lengths of a drafter that takes time, trials included."""

        once, level, node = self._draft_price(drafter)

        def drafting(depth: Any, drafts: Any) -> Any:
            return once + level * depth + node * drafts

        rates = [self.acceptance(record) for record in records]
        lengths = best_lengths(rates, self.longest, load.running, seconds, drafting, MARGIN)
        for place in self._trials(records, rates, lengths, load, seconds, drafting):
            _known(records[place]).trying, lengths[place] = True, 1
        return lengths

    def _trials(
        self,
        records: Sequence[DraftRecord],
        rates: Sequence[float],
        lengths: Sequence[int],
        load: Load,
        seconds: Callable[[Any], Any],
        drafting: Callable[[Any, Any], Any] | None = None,
    ) -> list[int]:
        """Places of requests that get no draft in this step but should be tried, to learn how they do now."""
        due = []
        for place, (record, length) in enumerate(zip(records, lengths, strict=True)):
            known = _known(record)
            if length:
                known.silent = 0
                continue
            known.silent += 1
            known.fade()
            if known.silent >= self.retry:
                due.append(place)
        if not due or self._allowance <= 0.0:
            return []
        if not any(lengths):
            for trust in self._trust.values():
                trust.fade(FADING**self.retry)
        hopes = [SURE if place in due else rate for place, rate in enumerate(rates)]
        hoped = best_lengths(hopes, self.longest, load.running, seconds, drafting, MARGIN)
        tried = [place for place in due if hoped[place]]
        price = seconds(1) - seconds(0) + (drafting(1, 1) if drafting else 0.0)
        # Those go first that have waited for longest.
        tried.sort(key=lambda place: -_known(records[place]).silent)
        tried = tried[: math.ceil(self._allowance / price)] if price > 0.0 else tried
        self._allowance -= price * len(tried)
        for place in tried:
            _known(records[place]).silent = 0
        return tried

    def _is_free(self, drafter: str, count: int, step: float) -> bool:
        if drafter not in self._calls or drafter in self._drawing:
            return False
        return self.draft_seconds(drafter, self.longest, self.longest * count) < FREE * step

    # Before verifying.

    def trim(self, records: Sequence[DraftRecord], trees: Sequence[TokenTree], load: Load) -> list[TokenTree]:
        self._drawing |= {record.drafter for record, tree in zip(records, trees, strict=True) if tree.draws}
        chances = [
            [self.chance(record, tree, node) for node in range(len(tree))]
            for record, tree in zip(records, trees, strict=True)
        ]
        found = likeliest_nodes(trees, chances)
        drawn = sum(len(tree) - 1 for tree in trees if tree.draws)
        predicted = self._seconds(records, load)

        def seconds(drafts: Any) -> Any:
            # What it took to draft is spent, whatever is verified of it.
            return predicted(drawn + drafts)

        table = seconds(np.arange(len(found) + 1))
        count, _ = best_count([chance for chance, _, _ in found], load.running, table, MARGIN)
        kept = chosen_nodes(trees, found[:count])
        open_to = [
            place
            for place, tree in enumerate(trees)
            if len(tree) > 1 and not tree.draws and not _known(records[place]).trying
        ]
        tried = self._trials(
            [records[place] for place in open_to],
            [self.acceptance(records[place]) for place in open_to],
            [len(kept[place]) - 1 for place in open_to],
            load,
            seconds,
        )
        trying = {open_to[place] for place in tried}
        for place, (record, tree) in enumerate(zip(records, trees, strict=True)):
            known = _known(record)
            if len(kept[place]) == 1 < len(tree) and (known.trying or place in trying):
                kept[place] = [0, best_draft(tree)]
            known.drafted = len(tree) - 1
            known.unscored = unscored_chances(tree, kept[place], chances[place])
        return keep_nodes(trees, kept)

    # What is known.

    def acceptance(self, record: DraftRecord) -> float:
        """The chance that a token drafted for this request is kept once all before it are."""
        return _known(record).acceptance.rate(self._usual(record.drafter), OWN_WEIGHT)

    def chance(self, record: DraftRecord, tree: TokenTree, node: int) -> float:
        """The chance that a drafted node is kept once its parent is, by the drafter's confidence in it."""
        confidence = tree.confidence[node]
        known, common = _known(record).trust.get(tree.source), self._trust.get(tree.source)
        usual = confidence if common is None else common.chance(confidence, confidence, COMMON_TRUST)
        return usual if known is None else known.chance(confidence, usual, OWN_TRUST)

    def _usual(self, drafter: str) -> float:
        """The acceptance of all requests with this drafter."""
        common = self._common.get(drafter)
        return FIRST_ACCEPTANCE if common is None else common.rate(FIRST_ACCEPTANCE, COMMON_WEIGHT)

    def draft_seconds(self, drafter: str, depth: int, nodes: int) -> float:
        """Predicted seconds of a drafter's call; 0 for one that was never called."""
        if nodes == 0:
            return 0.0
        once, level, node = self._draft_price(drafter)
        return once + level * depth + node * nodes

    def _draft_price(self, drafter: str) -> tuple[float, float, float]:
        """Predicted seconds of a drafter's call: for itself, by level, by token."""
        fit = self._calls.get(drafter)
        if fit is None:
            return 0.0, 0.0, 0.0
        once, level, node, _ = fit.coefficients()
        return once * self._unit, level * self._unit, node * self._unit

    def _seconds(self, records: Sequence[DraftRecord], load: Load) -> Callable[[Any], Any]:
        """Predicted seconds of scoring and verifying, by the number of drafted tokens (one, or an array)."""
        scale, each = self._steps.coefficients()
        context = sum(len(record.request.tokens) for record in records)
        besides = scale * (self.latency(1, context) - self.latency(1, 0)) + each * load.running * self._unit
        return price_of_drafts(lambda nodes: scale * self._pass_seconds(nodes) + besides, load)

    # After verifying.

    def _learn(self, load: Load) -> None:
        """Compare the last step with its prediction."""
        last = load.last
        if last is None or last is self._seen:
            return
        self._seen = last
        predicted = self.latency(last.nodes, last.context) / self._unit
        took = min(last.seconds / self._unit, OUTLIER * predicted)
        self._steps.observe((predicted, last.running), took)
        self._allowance = min(self._allowance + TRIAL_SHARE * last.seconds, last.seconds)
        for drafter, call in last.drafts.items():
            if drafter not in self._calls:
                self._calls[drafter] = RunningFit((0.0,) * 4, (0.3, 0.1, 0.3, 0.3))
            features = (1.0, call.depth, call.nodes, self._behind.get(drafter, 0))
            self._calls[drafter].observe(features, call.seconds / self._unit)

    def observe(self, record: DraftRecord, tree: TokenTree, path: Sequence[int], seconds: float) -> None:
        known = _known(record)
        drafted, known.drafted = known.drafted, 0
        if not drafted:
            # A bare root, or tokens that a guide forced; neither tells anything about the drafter.
            return
        ended = record.request.tokens[-1] in record.request.end_ids
        kept, missed = judged(tree, path, ended)
        unscored = 0.0 if ended else known.unscored.get(path[-1], 0.0)
        run = (kept + unscored, 1.0 - unscored) if unscored else (kept, float(missed))
        common = self._common.setdefault(record.drafter, Acceptance(COMMON_FORGETTING))
        for acceptance in (known.acceptance, common):
            acceptance.observe(*run)
        for trust in (known.trust, self._trust):
            correction = trust.setdefault(tree.source, Correction(TRUST_FORGETTING))
            for node, was_kept in judged_nodes(tree, path):
                # What stood behind the end of the text was not judged.
                if was_kept or not ended or tree.parents[node] != path[-1]:
                    correction.observe(tree.confidence[node], was_kept)


def _known(record: DraftRecord) -> _Known:
    if record.memory is None:
        record.memory = _Known()
    known: _Known = record.memory
    return known


def _catch_up(records: Sequence[DraftRecord], lengths: Sequence[int]) -> int:
    """Tokens that the drafter has to read first, for requests that it has not drafted for in a while."""
    behind = 0
    for record, length in zip(records, lengths, strict=True):
        if length:
            known = _known(record)
            behind += tokens_behind(len(record.request.tokens), known.seen, length)
            known.seen = len(record.request.tokens)
    return behind
