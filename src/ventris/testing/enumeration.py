"""Run a random procedure through all its outcomes, with their exact probabilities."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable
from itertools import pairwise
from typing import TypeVar

import numpy as np
from torch import Tensor

Outcome = TypeVar("Outcome", bound=Hashable)

NARROWEST = 1e-14
"""Parts of a number's range below this width come from rounding."""


class ScriptedRandomness:
    """Plays one branch of the tree of all draws and notes how likely it is.

    Every draw looks at one number of [0, 1), found by its address. What a branch has learnt of a number is
    the range that it lies in. A number that is asked again is split further within that range and not anew,
    so draws that share a number depend on one another here as they do where it is really thrown.

    Args:
        script: Choices to replay: for each draw the part of the number's range that it is in. Past its end
            the first part is taken, and the number of alternatives is noted for the next branch.
    """

    def __init__(self, script: list[int]) -> None:
        self.script = script
        self.alternatives: list[int] = []
        self.probability = 1.0
        self._ranges: dict[tuple[int, ...], tuple[float, float]] = {}

    def at(self, seed: int, purpose: int, position: int, index: int = 0) -> ScriptedDraws:
        """The draws from an address on; see :class:`~ventris.engine.randomness.PositionRandomness`."""
        return ScriptedDraws(self, (seed, purpose, position), index)

    def part(self, address: tuple[int, ...], cuts: list[float]) -> float:
        """A point within that part between ``cuts`` (ascending) which the branch has for a number."""
        low, high = self._ranges.get(address, (0.0, 1.0))
        edges = [low, *(cut for cut in cuts if low < cut < high), high]
        parts = [(a, b) for a, b in pairwise(edges) if b - a > NARROWEST * (high - low)]
        place = len(self.alternatives)
        self.alternatives.append(len(parts))
        first, last = parts[self.script[place] if place < len(self.script) else 0]
        self.probability *= (last - first) / (high - low)
        self._ranges[address] = first, last
        return 0.5 * (first + last)


class ScriptedDraws:
    """The draws at one address; each call looks at the next number.

    Args:
        index: That of the first number.
    """

    def __init__(self, script: ScriptedRandomness, address: tuple[int, ...], index: int) -> None:
        self._script = script
        self._address = address
        self._index = index

    def _part(self, cuts: list[float]) -> float:
        self._index += 1
        return self._script.part((*self._address, self._index - 1), cuts)

    def bernoulli(self, probability: float) -> bool:
        return self._part([probability]) < probability

    def categorical(self, probs: Tensor) -> int:
        shares = np.cumsum(probs.numpy(), dtype=np.float64)
        cuts: list[float] = (shares / shares[-1]).tolist()
        return bisect_right(cuts, self._part(cuts))


def enumerate_outcomes(run: Callable[[ScriptedRandomness], Outcome]) -> dict[Outcome, float]:
    """The law of ``run(random)``: every outcome with its probability, exact up to float64 rounding."""
    law: dict[Outcome, float] = {}
    script: list[int] = []
    while True:
        random = ScriptedRandomness(script)
        outcome = run(random)
        law[outcome] = law.get(outcome, 0.0) + random.probability
        script = script + [0] * (len(random.alternatives) - len(script))
        while script and script[-1] + 1 >= random.alternatives[len(script) - 1]:
            script.pop()
        if not script:
            return law
        script[-1] += 1
