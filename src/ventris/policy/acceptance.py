"""How often drafts are kept, from runs that end at their first miss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ventris.engine.tree import TokenTree


@dataclass(slots=True)
class Acceptance:
    """Running estimate of the chance a that a drafted token is kept once all before it are.

    A verifier stops at the first miss, so the tokens behind it were never judged: kept / drafted reads 0.39
    where a is 0.7 and five tokens were drafted. What counts is kept / (kept + misses), the maximum
    likelihood for runs that are cut off, whatever their length.

    Args:
        forgetting: Factor on old counts at each new run, so that the estimate follows the text.
        kept: Tokens kept so far, discounted.
        missed: Runs that ended with a miss, discounted.
    """

    forgetting: float
    kept: float = 0.0
    missed: float = 0.0

    def observe(self, kept: float, missed: float) -> None:
        """Count a run of ``kept`` tokens; ``missed`` is 1 if a further one was judged and refused.

        A token that was drafted and not scored counts in part for each, by its chance.
        """
        self.kept = self.forgetting * self.kept + kept
        self.missed = self.forgetting * self.missed + missed

    def fade(self, factor: float) -> None:
        """Let what was seen count for less, because the text went on unseen."""
        self.kept *= factor
        self.missed *= factor

    def rate(self, prior: float, weight: float) -> float:
        """The estimate, drawn towards ``prior`` as if that had been seen in ``weight`` judgements."""
        return (self.kept + weight * prior) / (self.kept + self.missed + weight)

    def error(self, prior: float, weight: float) -> float:
        """Standard error of :meth:`rate`."""
        rate = self.rate(prior, weight)
        return math.sqrt(rate * (1.0 - rate) / (self.kept + self.missed + weight))


def judged(tree: TokenTree, path: Sequence[int], ended: bool) -> tuple[int, bool]:
    """Levels of a verified tree that were kept, and whether the next one was judged and refused.

    Args:
        path: Accepted nodes, the root first.
        ended: The text ended in this step, so whatever was drafted behind the path was not judged.
    """
    return len(path) - 1, not ended and path[-1] in tree.parents
