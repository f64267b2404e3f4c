"""A linear law learnt while it is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FORGETTING = 0.97
"""Factor on old observations: about the last thirty count."""

FIRST, EVERY = 8, 4
"""So many observations count at once; later ones, when there are a few of them, since to solve takes time."""


class RunningFit:
    """Least squares with coefficients that are not negative, forgetting what is long past.

    Args:
        prior: Coefficients before anything was seen.
        trust: For each of them, how much the prior counts: as an observation of that feature at this size.
    """

    def __init__(self, prior: Sequence[float], trust: Sequence[float]) -> None:
        weights = np.square(np.asarray(trust, dtype=np.float64))
        self._ridge = np.diag(weights)
        self._pull = weights * np.asarray(prior, dtype=np.float64)
        self._squares = np.zeros_like(self._ridge)
        self._products = np.zeros_like(self._pull)
        self._seen = 0
        self._solved: npt.NDArray[np.float64] | None = None

    def observe(self, features: Sequence[float], value: float) -> None:
        """Learn that these features came with this value."""
        row = np.asarray(features, dtype=np.float64)
        self._squares = FORGETTING * self._squares + np.outer(row, row)
        self._products = FORGETTING * self._products + value * row
        self._seen += 1
        if self._seen <= FIRST or self._seen % EVERY == 0:
            self._solved = None

    def coefficients(self) -> list[float]:
        """The fitted coefficients; those that would be negative are zero, and the others fitted without."""
        if self._solved is None:
            squares, products = self._squares + self._ridge, self._products + self._pull
            used = list(range(len(products)))
            solved = np.zeros(len(products))
            while used:
                part = np.linalg.solve(squares[np.ix_(used, used)], products[used])
                if part.min() >= 0:
                    solved[used] = part
                    break
                del used[int(part.argmin())]
            self._solved = solved
        return [float(value) for value in self._solved]
