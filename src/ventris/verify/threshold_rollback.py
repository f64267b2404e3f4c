"""Threshold rollback: keep what the small model wrote unless the target finds it very unlikely.

Kim et al. 2023 (Big Little Decoder, arXiv 2302.07863), section 3.3. **Approximate**: within the threshold the
draft's own wording stands. Together with the policy ``confidence-stop`` this is the paper's method.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from ventris.engine.randomness import Purpose
from ventris.engine.walk import Walk
from ventris.models.native.rows import most_probable

Distance = Literal["cross-entropy", "margin"]


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
            not grow where the target is unsure too.
    """

    name = "threshold-rollback"
    exact = False
    greedy_only = False
    chain_only = False

    class Options(BaseModel):
        """Options of threshold rollback."""

        nats: float = Field(3.0, ge=0, description="distance up to which a drafted token is kept")
        distance: Distance = Field(
            "cross-entropy", description="cross-entropy: -ln p(x); margin: ln p(best) - ln p(x)"
        )

    def __init__(self, nats: float = 3.0, distance: Distance = "cross-entropy") -> None:
        self.nats = nats
        self.distance = distance

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
        distance = float(row[best]) - float(row[token])
        if self.distance == "cross-entropy":
            distance -= log_probability
        if distance <= self.nats and self.nats > 0:
            return token
        return best if greedy else None
