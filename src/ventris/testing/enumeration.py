"""Run a random procedure through all its outcomes, with their exact probabilities."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from torch import Tensor

Outcome = TypeVar("Outcome", bound=Hashable)


class ScriptedRandomness:
    """Plays one branch of the tree of all draws and notes how likely it is.

    Args:
        script: Choices to replay: indices into each draw's possible outcomes. Past its end the first
            outcome is taken, and the number of alternatives is noted for the next branch.
    """

    def __init__(self, script: list[int]) -> None:
        self.script = script
        self.alternatives: list[int] = []
        self.probability = 1.0

    def _choose(self, chances: list[tuple[int, float]]) -> int:
        place = len(self.alternatives)
        self.alternatives.append(len(chances))
        pick = self.script[place] if place < len(self.script) else 0
        outcome, chance = chances[pick]
        self.probability *= chance
        return outcome

    def bernoulli(self, probability: float) -> bool:
        chances = [(1, probability), (0, 1.0 - probability)]
        return bool(self._choose([(outcome, chance) for outcome, chance in chances if chance > 0]))

    def categorical(self, probs: Tensor) -> int:
        total = float(probs.sum())
        return self._choose([(t, float(p) / total) for t, p in enumerate(probs) if float(p) > 0])


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
