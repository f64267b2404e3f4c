"""Shares of tokens with their intervals: tokens of one answer hang together, so answers are resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DRAWS = 1000
LEVEL = 0.95

FEWEST = 3
"""Answers below which no interval is given."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of tokens.

    Attributes:
        value: 0 to 1; ``None`` where there are no tokens.
        low, high: Ends of the 95 % bootstrap interval over answers; ``None`` with too few answers for one,
            and for a share of none or all, where every resample is the same and would feign certainty.
        tokens: How many it is a share of.
    """

    value: float | None
    low: float | None
    high: float | None
    tokens: int


def resamples(answers: int, seed: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """How often each answer is drawn in each resample, ``[draws, answers]``."""
    picks = np.random.default_rng(seed).integers(0, answers, (draws, answers))
    return np.stack([np.bincount(row, minlength=answers) for row in picks])


def share(hits: Tensor, among: Tensor, question: Tensor, seed: int = 0) -> Share:
    """The share of ``hits`` among the tokens of ``among``.

    Args:
        hits, among: bool ``[n]``.
        question: The answer of each token, int64 ``[n]``.
    """
    # Answers of which there is no token at all, as those of another half, are not drawn.
    question = torch.unique(question, return_inverse=True)[1]
    answers = int(question.max()) + 1 if len(question) else 0
    total = np.bincount(question[among].numpy(), minlength=answers).astype(np.float64)
    hit = np.bincount(question[among & hits].numpy(), minlength=answers).astype(np.float64)
    tokens = int(total.sum())
    if not tokens:
        return Share(None, None, None, 0)
    value = float(hit.sum() / total.sum())
    if np.count_nonzero(total) < FEWEST or value in (0.0, 1.0):
        return Share(value, None, None, tokens)
    weights = resamples(answers, seed)
    totals = weights @ total
    low, high = quantiles((weights @ hit)[totals > 0] / totals[totals > 0])
    return Share(value, low, high, tokens)


def quantiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the middle 95 %."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
