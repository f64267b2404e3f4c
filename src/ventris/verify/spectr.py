"""SpecTr: choose among several independent drafts of the next token by optimal transport.

Sun, Suresh, Ro, Beirami, Jain and Yu 2023 (arXiv 2310.15141), the k-sequential selection rule (K-SEQ).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from ventris.engine.randomness import Purpose
from ventris.engine.walk import Walk

Probabilities = npt.NDArray[np.float64]

HALVINGS = 60
"""Steps of the bisection for the smallest valid ``rho``; float64 has no more to give."""


@dataclass(frozen=True, slots=True)
class Selection:
    """K-SEQ for one target distribution p and ``draws`` independent draws from q.

    Attributes:
        rho: Each draw x is accepted with ``min(1, p(x) / (rho q(x)))``, the first accepted one is taken.
        once: Chance that one draw is accepted: ``sum_x min(q(x), p(x) / rho)`` (beta in the paper).
        accepted: Chance that any of the draws is: ``1 - (1 - once)^draws``.
        rest: Distribution of the token when none is, ``[vocab]``.
    """

    rho: float
    once: float
    accepted: float
    rest: Probabilities

    @classmethod
    def best(cls, p: Probabilities, q: Probabilities, draws: int, slack: float = 1.0) -> Selection:
        """The valid rule that accepts most: its ``rho`` solves ``accepted(rho) = rho * once(rho)``.

        ``accepted`` falls as ``rho`` grows, and below that root ``rest`` would have negative entries.
        Within ``[1, draws]`` there is exactly one root.

        Args:
            p: Target, float64 ``[vocab]``, sums to one.
            q: What was drawn from, likewise.
            slack: Factor on the best ``rho``; above 1 the rule is still exact and accepts less.
        """
        once_at = _AcceptanceByRho(p, q)
        low, high = 1.0, float(draws)
        for _ in range(HALVINGS if draws > 1 else 0):
            middle = 0.5 * (low + high)
            once = once_at(middle)
            if _any_of(once, draws) > middle * once:
                low = middle
            else:
                high = middle
        rho = high * slack
        taken = np.minimum(q, p / rho)
        once = float(taken.sum())
        accepted = _any_of(once, draws)
        # P(y is accepted) = min(q, p / rho) * sum_i (1 - once)^i = taken * accepted / once, and the rest of
        # p is what must come when nothing is accepted. Rounding leaves entries of about -1e-17.
        rest = np.maximum(p - taken * (accepted / once), 0.0) if once > 0 else p
        total = rest.sum()
        return cls(rho, once, accepted, rest / total if total > 0 else p)

    def chance(self, p: float, q: float) -> float:
        """Chance to accept one draw of a token that target and draft give these probabilities."""
        return min(1.0, p / (self.rho * q))


def _any_of(chance: float, tries: int) -> float:
    # 1 - (1 - chance)^tries, without losing a small chance to rounding.
    return -math.expm1(tries * math.log1p(-chance)) if chance < 1.0 else 1.0


class _AcceptanceByRho:
    """``rho -> sum_x min(q(x), p(x) / rho)``, sorted once and asked often.

    A token gives q(x) where p(x) / q(x) is at least rho, and p(x) / rho elsewhere.
    """

    def __init__(self, p: Probabilities, q: Probabilities) -> None:
        support = np.flatnonzero(q)
        ratios = p[support] / q[support]
        order = np.argsort(ratios)
        self.ratios = ratios[order]
        self.target_below = np.concatenate([[0.0], np.cumsum(p[support][order])])
        self.draft_from = np.concatenate([np.cumsum(q[support][order][::-1])[::-1], [0.0]])

    def __call__(self, rho: float) -> float:
        place = int(np.searchsorted(self.ratios, rho))
        return float(self.target_below[place] / rho + self.draft_from[place])


class SpecTr:
    """Exact verification of several drawn drafts: k-sequential selection at every node.

    All drafts of a node were drawn independently from one distribution; repeats count, so the draws are
    judged with their multiplicity. Those drafts live on whose next token is the one taken, however it was
    chosen: the choice looked at no later token of theirs. Their number shrinks from level to level and
    ``rho`` is solved anew for each.

    Accepts at least ``1 - (1 - 1/k)^k`` of what the best of all rules would (the paper's theorem 1); with
    one draft it is speculative sampling. Below a node whose children were chosen and not drawn, the
    target's own draw decides.

    Args:
        slack: Factor on the best ``rho``, at least 1; the paper's rule is exact for any valid ``rho``.
    """

    name = "spectr"
    exact = True
    greedy_only = False
    chain_only = False

    class Options(BaseModel):
        """Options of SpecTr verification."""

        slack: float = Field(1.0, ge=1, description="factor on the best rho; more accepts less")

    def __init__(self, slack: float = 1.0) -> None:
        self.slack = slack

    def select(self, walk: Walk) -> None:
        while walk.open:
            drawn = [walk.tree.tokens[child] for child in walk.draws()]
            if drawn:
                walk.take(self._choose(walk, drawn))
            else:
                walk.take(walk.randomness(Purpose.TARGET).categorical(walk.probs()))

    def _choose(self, walk: Walk, drawn: list[int]) -> int:
        target, draft = normalised(walk.probs()), normalised(walk.draft_probs())
        selection = Selection.best(target, draft, len(drawn), self.slack)
        random = walk.randomness(Purpose.VERIFY)
        for token in drawn:
            if random.bernoulli(selection.chance(float(target[token]), float(draft[token]))):
                return token
        return walk.randomness(Purpose.RESIDUAL).categorical(torch.from_numpy(selection.rest))


def normalised(probs: Tensor) -> Probabilities:
    """A distribution ``[vocab]`` in float64, summing to one."""
    values: Probabilities = probs.numpy().astype(np.float64)
    values /= values.sum()
    return values
