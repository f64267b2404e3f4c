"""Routers: when to ask the large model, told from the small one's distribution alone.

Zhang et al. 2024 (FS-GEN, arXiv 2406.12295): a threshold on the best probability, one on its distance from
the second, and a classifier on the sorted probabilities. Theirs is a support vector machine trained on as
many mismatches as matches, which shifts where it decides; here it is a logistic unit trained at the natural
rate, so that its score is the probability of a mismatch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ventris.study.areas import Area, area
from ventris.study.seen_tokens import Beliefs, SeenTokens
from ventris.study.shares import Share, share
from ventris.train.probe import fit_probe

Signal = Callable[[Beliefs], Tensor]
"""Beliefs before n tokens to scores ``[n]``; the higher, the rather is the large model asked."""

SIGNALS: dict[str, Signal] = {
    "confidence": lambda seen: 1 - seen.top[:, 0],
    "margin": lambda seen: 1 - (seen.top[:, 0] - seen.top[:, 1]),
    "entropy": lambda seen: seen.entropy,
}
"""What needs no training: 1 minus the best probability, 1 minus its lead on the second, and the entropy."""

LEARNED = "learned"

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Tried for the weights of the learned router."""

SMALLEST = 1e-6
"""Probabilities below it are taken for it before their logarithm is."""

RATES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Points of a router's curve."""

CAUGHT = (0.5, 0.8, 0.9, 0.95)
"""Shares of the mismatches for which a cut is found."""

FEWEST_ANSWERS = 4
"""Below it answers cannot be divided into those that fit and those that judge."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a router calls the large model: at scores of at least ``score``.

    Attributes:
        wanted: Share of the mismatches that it catches on the answers it was chosen on.
        caught: The share on answers held out.
        calls: Share of all tokens there at which it calls.
    """

    wanted: float
    score: float
    caught: Share
    calls: Share


@dataclass(frozen=True, slots=True)
class RouterFound:
    """A router judged on answers held out.

    Attributes:
        area: Area under its ROC curve.
        curve: Shares of tokens called and of mismatches caught there, for the cuts that call at
            :data:`RATES` of the tokens of the other answers.
        cuts: For :data:`CAUGHT`.
        expected: Mean of its scores where they are probabilities, to hold against ``seen``.
        seen: Share of mismatches.
    """

    name: str
    area: Area
    curve: list[tuple[float, float]]
    cuts: list[Cut]
    expected: float | None
    seen: float


@dataclass(frozen=True, slots=True)
class FittedRouters:
    """Routers for a pair of models, fitted on every second answer and judged on the others.

    Attributes:
        signals: The score of each router.
        fitting, judging: The two halves of the tokens.
        found: In the order of ``signals``.
    """

    signals: dict[str, Signal]
    fitting: SeenTokens
    judging: SeenTokens
    found: list[RouterFound]


def fit_routers(seen: SeenTokens, seed: int = 0) -> FittedRouters | str:
    """Fit routers on every second answer and judge them on the others.

    Returns:
        Why there are none, if there is too little to fit or to judge them on.
    """
    if len(set(seen.question.tolist())) < FEWEST_ANSWERS:
        return f"routers need at least {FEWEST_ANSWERS} answers, half of them to be judged on"
    fitting, judging = seen.of(seen.question % 2 == 0), seen.of(seen.question % 2 == 1)
    for part, name in ((fitting, "fitted"), (judging, "judged")):
        if not bool(part.mismatch.any()) or bool(part.mismatch.all()):
            kind = "never" if not bool(part.mismatch.any()) else "always"
            return f"the small model {kind} differs on the answers that routers are {name} on"
    signals = dict(SIGNALS)
    learned = _learn(fitting)
    if learned is not None:
        signals[LEARNED] = learned
    found = [judge_router(name, signal, fitting, judging, seed) for name, signal in signals.items()]
    return FittedRouters(signals, fitting, judging, found)


def judge_router(
    name: str, signal: Signal, fitting: SeenTokens, judging: SeenTokens, seed: int = 0
) -> RouterFound:
    """What cuts chosen on some answers do on others."""
    known, scores = signal(fitting.beliefs), signal(judging.beliefs)
    curve = []
    for rate in RATES:
        called = scores >= cut_for_rate(known, rate)
        caught = int((called & judging.mismatch).sum()) / max(int(judging.mismatch.sum()), 1)
        curve.append((float(called.float().mean()), caught))
    everything = torch.ones_like(judging.mismatch)
    cuts = []
    for wanted in CAUGHT:
        cut = cut_that_catches(known, fitting.mismatch, wanted)
        called = scores >= cut
        cuts.append(
            Cut(
                wanted,
                cut,
                share(called, judging.mismatch, judging.question, seed),
                share(called, everything, judging.question, seed),
            )
        )
    found = area(scores, judging.mismatch, judging.question, seed)
    assert found is not None  # both kinds are there, or there is nothing to judge
    expected = float(scores.mean()) if name == LEARNED else None
    return RouterFound(name, found, curve, cuts, expected, float(judging.mismatch.float().mean()))


def cut_for_rate(scores: Tensor, rate: float) -> float:
    """The cut from which on a share ``rate`` of the scores lies, as nearly as ties allow without more."""
    if rate <= 0:
        return float("inf")
    ordered = scores.sort(descending=True).values
    count = min(round(rate * len(ordered)), len(ordered))
    if count == len(ordered):
        return float("-inf")
    # Of equal scores either all are called or none; all would be more than was asked for.
    above = ordered[ordered > ordered[count]]
    return float(above[-1]) if len(above) else float("inf")


def cut_that_catches(scores: Tensor, mismatch: Tensor, wanted: float) -> float:
    """The highest cut from which on at least a share ``wanted`` of the mismatches lies."""
    ordered = scores[mismatch].sort(descending=True).values
    # A little less, for 0.95 of 20 is 19 but for rounding.
    count = max(math.ceil(wanted * len(ordered) - 1e-9), 1)
    return float(ordered[count - 1])


def features(beliefs: Beliefs) -> Tensor:
    """What the learned router looks at, float32 ``[n, BEST + 3]``.

    The logarithms of the sorted best probabilities, the best one and its lead as they are, and the entropy.
    """
    top = beliefs.top
    plain = torch.stack([top[:, 0], top[:, 0] - top[:, 1], beliefs.entropy], dim=1)
    return torch.cat([top.clamp_min(SMALLEST).log(), plain], dim=1)


def _learn(fitting: SeenTokens) -> Signal | None:
    """A logistic unit, its penalty chosen on every second of the answers; ``None`` with too few for that."""
    order = torch.tensor(_ranks(fitting.question.tolist()))
    first, second = fitting.of(order % 2 == 0), fitting.of(order % 2 == 1)
    for part in (first, second):
        if not bool(part.mismatch.any()) or bool(part.mismatch.all()):
            return None
    held_out = features(second.beliefs), ~second.mismatch
    probe = fit_probe(features(first.beliefs), ~first.mismatch, held_out, PENALTIES, weighted=False)
    return lambda beliefs: 1 - probe.scores(features(beliefs))


def _ranks(values: list[int]) -> list[int]:
    """Each value's place among the different ones."""
    place = {value: rank for rank, value in enumerate(sorted(set(values)))}
    return [place[value] for value in values]


def random_signal(seed: int) -> Signal:
    """A coin for each token, with scores uniform in [0, 1): a cut at 1 - r calls at a share r."""
    random = torch.Generator().manual_seed(seed)
    return lambda beliefs: torch.rand(len(beliefs.entropy), generator=random)
