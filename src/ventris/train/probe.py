"""A logistic unit on given rows: class-weighted, its penalty chosen by what it does on rows held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 200
"""Steps of the optimiser at most; the problem is convex, and a few dozen are enough."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Probabilities are ``sigmoid(rows @ weight + bias)``.

    Attributes:
        weight: float32 ``[d]``.
        penalty: Of the squared weights, the one that did best.
        area: Area under the ROC curve on the rows held out.
    """

    weight: Tensor
    bias: float
    penalty: float
    area: float

    def scores(self, rows: Tensor) -> Tensor:
        """Probabilities, float32 ``[n]``."""
        return (rows @ self.weight + self.bias).sigmoid()


def fit_probe(
    rows: Tensor,
    right: Tensor,
    held_out: tuple[Tensor, Tensor],
    penalties: Sequence[float],
    weighted: bool = True,
) -> Probe:
    """Fit one unit a penalty and keep the best.

    Args:
        rows: float32 ``[n, d]``.
        right: bool ``[n]``; both kinds must occur.
        held_out: Rows and labels of the same kind to choose by.
        weighted: Wrong rows count as much as right ones, however few they are.
    """
    mean, spread = rows.mean(0), rows.std(0).clamp_min(1e-6)
    standard = (rows - mean) / spread
    best: Probe | None = None
    for penalty in sorted(penalties, reverse=True):
        weight, bias = _descend(standard, right, penalty, weighted)
        folded = weight / spread
        probe = Probe(folded, bias - float(folded @ mean), penalty, 0.0)
        area = area_under_curve(probe.scores(held_out[0]), held_out[1])
        if best is None or area > best.area:
            best = Probe(probe.weight, probe.bias, penalty, area)
    if best is None:
        raise ValueError("there is no penalty to try")
    return best


def probe_loss(scores: Tensor, right: Tensor, weighted: bool = True) -> Tensor:
    """Binary cross entropy of logits ``[n]``; with ``weighted`` the mean of its means over the two kinds."""
    losses = F.binary_cross_entropy_with_logits(scores, right.to(scores.dtype), reduction="none")
    if not weighted:
        return losses.mean()
    return (losses[right].mean() + losses[~right].mean()) / 2


def _descend(rows: Tensor, right: Tensor, penalty: float, weighted: bool) -> tuple[Tensor, float]:
    weight = torch.zeros(rows.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = probe_loss(rows @ weight + bias, right, weighted) + penalty / 2 * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), float(bias.detach())


def area_under_curve(scores: Tensor, right: Tensor) -> float:
    """How often a right row scores above a wrong one, ties half; 0.5 where one kind is missing."""
    ranks = scores.double().argsort().argsort().double()
    # Equal scores share their mean rank.
    values, inverse = torch.unique(scores, return_inverse=True)
    totals = torch.zeros(len(values), dtype=torch.float64).index_add_(0, inverse, ranks)
    ranks = (totals / inverse.bincount(minlength=len(values)))[inverse]
    many, few = int(right.sum()), int((~right).sum())
    if not many or not few:
        return 0.5
    return float((ranks[right].sum() - many * (many - 1) / 2) / (many * few))


def threshold_that_catches(scores: Tensor, right: Tensor, share: float) -> float:
    """The lowest threshold above which at most ``1 - share`` of the wrong rows lie; ``share`` is above 0."""
    wrong = scores[~right].sort().values
    if not len(wrong):
        return 0.5
    # Rounded, as 0.07 times 100 is a little more than 7.
    return float(wrong[ceil(round(share * len(wrong), 9)) - 1])
