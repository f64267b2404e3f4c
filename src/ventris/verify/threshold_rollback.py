"""Threshold rollback: keep what the small model wrote unless the target finds it very unlikely.

Kim et al. 2023 (Big Little Decoder, arXiv 2302.07863), section 3.3. **Approximate**: within the threshold the
draft's own wording stands. Together with the policy ``confidence-stop`` this is the paper's method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from ventris.engine.errors import Incompatible
from ventris.engine.randomness import Purpose
from ventris.engine.sampling import Row, Sampling
from ventris.engine.walk import Walk
from ventris.models.native.rows import most_probable

Distance = Literal["cross-entropy", "margin", "divergence"]

UNKNOWN = 1e-3
"""Share of a uniform distribution in the drafter's, so that tokens it cannot draft do not make it endless."""


class ThresholdRollback:
    """Keeps a drafted token x after a node if its distance from the target's view is at most ``nats``.

    Every drafted position is judged, in order, up to the first that is too far: there the target's own
    token stands instead, or behind the last one kept. The target's favourite is always kept, so ``nats=0``
    is greedy decoding. At a temperature above 0, which the paper leaves out, the target's tokens are drawn
    and the distance is still that of the model's own probabilities. Where several tokens were drafted for
    one place, the one that the target likes best is judged.

    Args:
        nats: Largest distance; the paper uses 1 to 6.
        distance: ``"cross-entropy"``: -ln p(x), the paper's. ``"margin"``: ln p(best) - ln p(x), which does
            not grow where the target is unsure too. ``"divergence"``: KL(p || q) from the drafter's own
            distribution q, whatever token it chose (arXiv 2601.04766).
    """

    name = "threshold-rollback"
    exact = False
    greedy_only = False
    chain_only = False

    class Options(BaseModel):
        """Options of threshold rollback."""

        nats: float = Field(3.0, ge=0, description="distance up to which a drafted token is kept")
        distance: Distance = Field(
            "cross-entropy",
            description="cross-entropy: -ln p(x); margin: ln p(best) - ln p(x); divergence: KL(p || q) of "
            "target and drafter",
        )

    def __init__(self, nats: float = 3.0, distance: Distance = "cross-entropy") -> None:
        self.nats = nats
        self.distance = distance
        self.reads_beliefs = distance == "divergence"

    def check_with(self, parts: Sequence[object], sampling: Sampling) -> None:
        """Refuse a drafter that has no distribution to compare with."""
        for part in parts:
            if self.reads_beliefs and hasattr(part, "propose") and not getattr(part, "tells_beliefs", False):
                raise Incompatible(
                    "verifier 'threshold-rollback:distance=divergence'",
                    f"drafter {getattr(part, 'name', part)!r}",
                    "it compares the target's distribution with the drafter's, and this drafter tells none; "
                    "use a draft model, or another distance",
                )

    def select(self, walk: Walk) -> None:
        while walk.open:
            kept = self._kept(walk)
            if kept is None:
                kept = walk.randomness(Purpose.VERIFY).categorical(walk.probs())
            walk.take(kept)

    def _kept(self, walk: Walk) -> int | None:
        """The token to keep without a draw: a drafted one that passes, or the greedy one."""
        greedy = walk.request.sampling.greedy
        if not walk.children():
            return walk.argmax() if greedy else None
        row = walk.logits()
        ((best, log_probability),) = most_probable(row, 1)
        drafted = [walk.tree.tokens[child] for child in walk.children()]
        if best in drafted:
            return best
        token = max(drafted, key=lambda one: float(row[one]))
        if 0 < self.nats >= self._distance(walk, row, token, float(row[best]) - log_probability):
            return token
        return best if greedy else None

    def _distance(self, walk: Walk, row: Row, token: int, log_total: float) -> float:
        """Distance of a drafted token in nats; infinite for a forbidden one."""
        if self.distance == "cross-entropy":
            return log_total - float(row[token])
        if self.distance == "margin":
            return float(row.max()) - float(row[token])
        belief = walk.tree.beliefs.get(walk.node)
        forbidden = math.isinf(float(row[token]))
        return math.inf if forbidden or belief is None else divergence(torch.from_numpy(row), belief)


def divergence(logits: Tensor, belief: Tensor) -> float:
    """KL(p || q) in nats of ``softmax(logits)`` from a drafter's distribution, both ``[vocab]``."""
    p = logits.double().softmax(-1)
    q = (1 - UNKNOWN) * belief.double() + UNKNOWN / len(belief)
    return float(torch.special.xlogy(p, p / q).sum())
