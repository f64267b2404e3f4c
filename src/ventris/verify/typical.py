"""Typical acceptance: keep every drafted token that the target finds plausible enough.

Cai et al. 2024 (Medusa, arXiv 2401.10774), section 2.3.1, after Hewitt et al. 2022. **Approximate**: the
output does not follow the target's distribution, by design; it never holds a drafted token less probable
than the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, Field
from torch import Tensor

from ventris.engine.errors import Incompatible
from ventris.engine.sampling import Sampling
from ventris.engine.walk import Walk

TINY = 1e-5
"""Added to probabilities before the logarithm, as in the reference."""


class Typical:
    """Accepts a drafted token x after a node if p(x) > min(epsilon, delta * exp(-H(p))), H in nats.

    p is the guided and warped distribution there, so at temperature 0 the rule is the greedy one. Of all
    accepted paths the longest is kept, among equals the likeliest; the token after it is the most probable
    one. That token is always plausible (the largest probability is at least exp(-H)), so every step ends on
    an undrafted token.

    Args:
        epsilon: Probability that is always enough.
        delta: Share of exp(-H) that is enough where the target is unsure; about the root of ``epsilon``.
    """

    name = "typical"
    exact = False
    greedy_only = False
    chain_only = False

    class Options(BaseModel):
        """Options of typical acceptance."""

        epsilon: float = Field(0.09, gt=0, le=1, description="probability that is always enough")
        delta: float = Field(0.3, gt=0, lt=1, description="share of exp(-entropy) that is enough")

    def __init__(self, epsilon: float = 0.09, delta: float = 0.3) -> None:
        self.epsilon = epsilon
        self.delta = delta

    def check_with(self, parts: Sequence[object], sampling: Sampling) -> None:
        """Refuse guides that cannot say what they think of a token before it is kept."""
        for part in parts:
            if hasattr(part, "masks") and not getattr(part, "forkable", False):
                raise Incompatible(
                    "verifier 'typical'",
                    f"guide {getattr(part, 'name', part)!r}",
                    "it compares whole paths ahead and this guide cannot fork; use 'coupled'",
                )

    def select(self, walk: Walk) -> None:
        for node in self._longest(walk):
            if walk.open:
                walk.take(walk.tree.tokens[node])
        if walk.open:
            walk.take(int(walk.probs().argmax()))

    def threshold(self, probs: Tensor) -> float:
        """The probability that a drafted token must exceed under ``probs: [vocab]``."""
        entropy = float(-(probs * (probs + TINY).log()).sum())
        return min(self.epsilon, self.delta * math.exp(-entropy))

    def _longest(self, walk: Walk) -> list[int]:
        """The longest accepted path below the root; of equally long ones the likeliest."""
        below = walk.tree.children()
        best: tuple[int, float, list[int]] = (0, -math.inf, [])
        waiting: list[tuple[list[int], float]] = [([], 0.0)]
        while waiting:
            path, score = waiting.pop()
            if (len(path), score) > best[:2]:
                best = (len(path), score, path)
            node = path[-1] if path else 0
            if not below[node] or (path and walk.tree.tokens[node] in walk.request.end_ids):
                continue
            ahead = walk.look_ahead(path)
            if len(ahead) <= len(path):  # A guide fails there.
                continue
            probs = ahead[-1]
            enough = self.threshold(probs)
            for child in below[node]:
                p = float(probs[walk.tree.tokens[child]])
                if p > enough:
                    waiting.append(([*path, child], score + math.log(p)))
        return best[2]
