"""The scaling law: how often the large model is needed, by how many times larger it is.

Zhang et al. 2024 (FS-GEN, arXiv 2406.12295) fit frequency = -a R^-alpha + b over pairs of models, with R the
ratio of their parameters and all three at least 0.05. Three parameters on a handful of points fit almost
anything, so R² on the fitted points says little. Here it stands beside R² on points left out, beside a
simpler law, and with intervals; and with fewer than :data:`FEWEST` ratios, or with too few answers to
resample, nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ventris.study.shares import FEWEST as FEWEST_ANSWERS
from ventris.study.shares import quantiles

Array = NDArray[np.float64]

FEWEST = 4
"""Different ratios below which there is no fit."""

FEWEST_LEFT_OUT = 5
"""Different ratios below which none is left out, for the others must still be enough for a fit."""

LEAST = 0.05
"""Bound of all three parameters in the paper's code."""

EXPONENTS = np.geomspace(LEAST, 5.0, 240)
"""Exponents tried; for each the other two parameters have a closed form."""


@dataclass(frozen=True, slots=True)
class Law:
    """frequency = -a R^-alpha + b.

    Attributes:
        at_bound: Parameters that the fit would take below :data:`LEAST`, or the exponent beyond those tried.
    """

    a: float
    alpha: float
    b: float
    at_bound: list[str]

    def __call__(self, ratio: Array) -> Array:
        """Frequencies at ratios of parameters."""
        return self.b - self.a * ratio**-self.alpha


@dataclass(frozen=True, slots=True)
class LawFound:
    """A law with everything that tells how far it may be believed.

    Attributes:
        points: Pairs of models that it was fitted to.
        lowest, highest: Ratios between which they lie.
        r_squared: On the fitted points.
        left_out: R² where each ratio is predicted from the others; ``None`` with too few of them.
        line: R² and left-out R² of b0 + b1 ln R, a law with a parameter less.
        intervals: 95 % of a, alpha, b and r_squared when the answers are resampled.
        curve: Ratio, frequency, and the 95 % band of the same resamples.
    """

    law: Law
    points: int
    lowest: float
    highest: float
    r_squared: float
    left_out: float | None
    line: tuple[float, float | None]
    intervals: dict[str, tuple[float, float]]
    curve: list[tuple[float, float, float, float]]


def find_law(ratios: Sequence[float], hits: Array, totals: Array, weights: Array) -> LawFound | str:
    """Fit the law to pairs of models that were tried on the same prompts.

    Args:
        ratios: Parameters of the large model by those of the small one.
        hits, totals: Mismatches and tokens of each answer, ``[pairs, answers]``.
        weights: How often each answer counts in each resample, ``[draws, answers]``.

    Returns:
        Why there is none, if there are too few ratios or answers, or the pairs all have the same frequency.
    """
    x = np.asarray(ratios, dtype=np.float64)
    different = len(set(x.tolist()))
    if different < FEWEST:
        return f"a law of three parameters needs at least {FEWEST} ratios of size, and here are {different}"
    if hits.shape[1] < FEWEST_ANSWERS:
        return f"the intervals of a law need at least {FEWEST_ANSWERS} answers, and here are {hits.shape[1]}"
    y = hits.sum(1) / totals.sum(1)
    if np.ptp(y) < 1e-12:
        return "all pairs differ equally often, so there is nothing for a law to explain"
    law = fit_law(x, y)
    shown = np.geomspace(x.min(), x.max(), 60)
    resampled, curves = [], []
    for row in weights:
        counted = totals @ row
        if (counted > 0).all() and np.ptp(again := hits @ row / counted) > 1e-12:
            found = fit_law(x, again)
            resampled.append((found.a, found.alpha, found.b, r_squared(again, found(x))))
            curves.append(found(shown))
    ends = [quantiles(column) for column in np.asarray(resampled).T]
    band = [quantiles(column) for column in np.asarray(curves).T]
    return LawFound(
        law,
        len(x),
        float(x.min()),
        float(x.max()),
        r_squared(y, law(x)),
        left_out(x, y, fit_law),
        (r_squared(y, fit_line(x, y)(x)), left_out(x, y, fit_line)),
        dict(zip(("a", "alpha", "b", "r_squared"), ends, strict=True)),
        [
            (float(at), float(value), low, high)
            for at, value, (low, high) in zip(shown, law(shown), band, strict=True)
        ],
    )


def fit_law(x: Array, y: Array) -> Law:
    """Least squares with all parameters at least :data:`LEAST`.

    Args:
        x, y: Ratios and frequencies, ``[points]``.
    """
    falling = x[None] ** -EXPONENTS[:, None]
    tried = [_with_bounds(falling, y, a, b) for a, b in ((None, None), (LEAST, None), (None, LEAST))]
    tried.append((np.full(len(EXPONENTS), LEAST), np.full(len(EXPONENTS), LEAST)))
    best: tuple[float, int, float, float] | None = None
    for a, b in tried:
        errors = np.square(b[:, None] - a[:, None] * falling - y[None]).sum(1)
        errors[(a < LEAST - 1e-12) | (b < LEAST - 1e-12)] = np.inf
        index = int(errors.argmin())
        # The first of equals stands: an inner solution before one at a bound.
        if best is None or errors[index] < best[0] - 1e-15:
            best = float(errors[index]), index, float(a[index]), float(b[index])
    assert best is not None  # the last one tried is always allowed
    _, index, a_best, b_best = best
    bound = [name for name, value in (("a", a_best), ("b", b_best)) if value <= LEAST * (1 + 1e-9)]
    bound += ["alpha"] if index in (0, len(EXPONENTS) - 1) else []
    return Law(a_best, float(EXPONENTS[index]), b_best, bound)


def _with_bounds(falling: Array, y: Array, a: float | None, b: float | None) -> tuple[Array, Array]:
    """The best a and b for each exponent, of which one may be given; ``[exponents]`` each."""
    count = len(falling)
    if a is not None:
        return np.full(count, a), (y[None] + a * falling).mean(1)
    if b is not None:
        return -(falling * (y[None] - b)).sum(1) / np.square(falling).sum(1), np.full(count, b)
    middle = falling.mean(1, keepdims=True)
    spread = np.square(falling - middle).sum(1)
    slope = ((falling - middle) * (y - y.mean())[None]).sum(1) / np.maximum(spread, 1e-300)
    return -slope, y.mean() - slope * middle[:, 0]


def fit_line(x: Array, y: Array) -> Callable[[Array], Array]:
    """frequency = b0 + b1 ln R, by least squares."""
    slope, start = np.polyfit(np.log(x), y, 1)
    return lambda ratio: start + slope * np.log(ratio)


def r_squared(y: Array, predicted: Array) -> float:
    """1 - squared errors by those of the mean; below 0 where the mean would do better."""
    return float(1 - np.square(y - predicted).sum() / np.square(y - y.mean()).sum())


def left_out(x: Array, y: Array, fit: Callable[[Array, Array], Callable[[Array], Array]]) -> float | None:
    """R² where the points of each ratio are predicted from all others, against the others' mean."""
    different = sorted(set(x.tolist()))
    if len(different) < FEWEST_LEFT_OUT:
        return None
    errors, of_mean = 0.0, 0.0
    for ratio in different:
        out = x == ratio
        errors += float(np.square(y[out] - fit(x[~out], y[~out])(x[out])).sum())
        of_mean += float(np.square(y[out] - y[~out].mean()).sum())
    return 1 - errors / of_mean
