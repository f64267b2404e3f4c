"""Ratios with intervals: what may be said of a difference in speed, and what may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95

FEWEST = 3
"""Pairs of runs below which no interval is given."""

Verdict = Literal["faster", "slower", "no difference", "too few runs"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A median ratio of two speeds.

    Attributes:
        median: Over the questions; within a question over the repeats.
        low, high: Ends of the bootstrap interval; ``None`` with too few runs for one.
        pairs: Pairs of runs behind it.
    """

    median: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def verdict(self) -> Verdict:
        """What the interval allows to say: it claims a difference only if it leaves 1 out."""
        if self.low is None or self.high is None:
            return "too few runs"
        if self.low <= 1.0 <= self.high:
            return "no difference"
        return "faster" if self.low > 1.0 else "slower"


def median_ratio(groups: Sequence[Sequence[float]], seed: int = 0, draws: int = DRAWS) -> Ratio | None:
    """The median of ratios with its 95 % bootstrap interval.

    Args:
        groups: For every question the ratios of its repeats. Both are resampled, the questions and the
            repeats within them: runs of one question resemble each other, so they are not independent.
        seed: Of the resampling.
        draws: Resamples.

    Returns:
        ``None`` if there is no ratio at all.
    """
    kept = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    if not kept:
        return None
    middle = float(np.median([np.median(group) for group in kept]))
    pairs = sum(len(group) for group in kept)
    if pairs < FEWEST:
        return Ratio(middle, None, None, pairs)
    resampled = _resample(kept, seed, draws)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(middle, float(low), float(high), pairs)


def interval(
    values: Sequence[float], of: Literal["mean", "median"], seed: int = 0, draws: int = DRAWS
) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of a mean (of a share, with values 0 and 1) or a median.

    Returns:
        ``None`` for fewer than :data:`FEWEST` values.
    """
    if len(values) < FEWEST:
        return None
    data = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(data), (draws, len(data)))
    found = np.mean(data[picks], axis=1) if of == "mean" else np.median(data[picks], axis=1)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resample(groups: Sequence[NDArray[np.float64]], seed: int, draws: int) -> NDArray[np.float64]:
    """Medians of resampled data, ``[draws]``."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(groups), (draws, len(groups)))
    medians = np.empty(chosen.shape)
    for index, group in enumerate(groups):
        places = np.nonzero(chosen == index)
        picks = rng.integers(0, len(group), (len(places[0]), len(group)))
        medians[places] = np.median(group[picks], axis=1)
    result: NDArray[np.float64] = np.median(medians, axis=1)
    return result
