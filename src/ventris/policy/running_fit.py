"""A linear law learnt while it is used."""

from __future__ import annotations

from collections.abc import Sequence

FORGETTING = 0.97
"""Factor on old observations: about the last thirty count."""

FIRST, EVERY = 8, 4
"""So many observations count at once; later ones, when there are a few of them, since to solve takes time."""


class RunningFit:
    """Least squares with coefficients that are not negative, forgetting what is long past.

    Without arrays: for the few features there are, those take several times as long.

    Args:
        prior: Coefficients before anything was seen.
        trust: For each of them, how much the prior counts: as an observation of that feature at this size.
        forgetting: Factor on old observations.
    """

    def __init__(
        self, prior: Sequence[float], trust: Sequence[float], forgetting: float = FORGETTING
    ) -> None:
        self._forgetting = forgetting
        self._ridge = [size * size for size in trust]
        self._pull = [weight * value for weight, value in zip(self._ridge, prior, strict=True)]
        self._squares = [[0.0] * len(prior) for _ in prior]
        self._products = [0.0] * len(prior)
        self._seen = 0
        self._solved: list[float] | None = None

    def observe(self, features: Sequence[float], value: float) -> None:
        """Learn that these features came with this value."""
        for place, (feature, row) in enumerate(zip(features, self._squares, strict=True)):
            row[:] = [
                self._forgetting * old + feature * other for old, other in zip(row, features, strict=True)
            ]
            self._products[place] = self._forgetting * self._products[place] + feature * value
        self._seen += 1
        if self._seen <= FIRST or self._seen % EVERY == 0:
            self._solved = None

    def coefficients(self) -> list[float]:
        """The fitted coefficients; those that would be negative are zero, and the others fitted without."""
        if self._solved is None:
            used = list(range(len(self._products)))
            solved = [0.0] * len(used)
            while used:
                part = _solution(
                    [[self._squares[i][j] + self._ridge[i] * (i == j) for j in used] for i in used],
                    [self._products[i] + self._pull[i] for i in used],
                )
                if min(part) >= 0:
                    for place, coefficient in zip(used, part, strict=True):
                        solved[place] = coefficient
                    break
                del used[part.index(min(part))]
            self._solved = solved
        return self._solved


def _solution(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a symmetric positive definite system by elimination; both arguments are used up."""
    size = len(right)
    for pivot in range(size):
        for row in range(pivot + 1, size):
            factor = matrix[row][pivot] / matrix[pivot][pivot]
            for column in range(pivot, size):
                matrix[row][column] -= factor * matrix[pivot][column]
            right[row] -= factor * right[pivot]
    for pivot in reversed(range(size)):
        known = sum(matrix[pivot][column] * right[column] for column in range(pivot + 1, size))
        right[pivot] = (right[pivot] - known) / matrix[pivot][pivot]
    return right
