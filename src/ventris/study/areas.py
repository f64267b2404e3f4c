"""Areas under ROC curves with their intervals, for which whole answers are resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ventris.study.shares import FEWEST, quantiles, resamples


@dataclass(frozen=True, slots=True)
class Area:
    """How often a token where the large model is needed scores above one where it is not, ties half.

    Attributes:
        value: 0 to 1; 0.5 for a coin.
        low, high: Ends of the 95 % bootstrap interval over answers; ``None`` with too few answers for one,
            and where no pair of tokens, or every one, is in the wrong order.
    """

    value: float
    low: float | None
    high: float | None


def area(scores: Tensor, needed: Tensor, question: Tensor, seed: int = 0) -> Area | None:
    """The area under the ROC curve; ``None`` where one kind of token is missing.

    Args:
        scores: ``[n]``; the higher, the rather is the large model asked.
        needed: bool ``[n]``.
        question: The answer of each token, int64 ``[n]``.
    """
    answer = np.unique(question.numpy(), return_inverse=True)[1]
    known, wanted = scores.double().numpy(), needed.numpy()
    answers = int(answer.max(initial=-1)) + 1
    needs = np.bincount(answer[wanted], minlength=answers).astype(np.float64)
    others = np.bincount(answer[~wanted], minlength=answers).astype(np.float64)
    if not needs.sum() or not others.sum():
        return None
    wins = _wins(known, wanted, answer, answers)
    value = float(wins.sum() / (needs.sum() * others.sum()))
    if answers < FEWEST or value in (0.0, 1.0):
        return Area(value, None, None)
    weights = resamples(answers, seed)
    pairs = (weights @ needs) * (weights @ others)
    won = ((weights @ wins) * weights).sum(1)
    return Area(value, *quantiles(won[pairs > 0] / pairs[pairs > 0]))


def _wins(
    scores: NDArray[np.float64], needed: NDArray[np.bool_], answer: NDArray[np.int64], answers: int
) -> NDArray[np.float64]:
    """Pairs in the right order, of a needed token of one answer and another token of another.

    ``[answers, answers]``: from these the area of any resample is a sum.
    """
    wins = np.zeros((answers, answers))
    for other in range(answers):
        below = np.sort(scores[~needed & (answer == other)])
        left, right = (np.searchsorted(below, scores[needed], side) for side in ("left", "right"))
        wins[:, other] = np.bincount(answer[needed], weights=(left + right) / 2, minlength=answers)
    return wins
