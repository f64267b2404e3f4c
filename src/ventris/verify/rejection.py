"""Speculative sampling: accept a drawn draft with min(1, p/q), else draw from what is left of p.

Chains: Leviathan, Kalman and Matias 2023 (arXiv 2211.17192), Chen et al. 2023 (arXiv 2302.01318). Several
draws below one node: recursive rejection as in SpecInfer (Miao et al. 2024, arXiv 2305.09781), where each
refused draw leaves the residual for the next one.
"""

from __future__ import annotations

from pydantic import BaseModel
from torch import Tensor

from ventris.engine.randomness import Purpose
from ventris.engine.walk import Walk


def residual(p: Tensor, q: Tensor) -> Tensor:
    """``max(p - q, 0)`` normalised, ``[vocab]``; ``p`` itself where nothing is left.

    Nothing is left only if p equals q, and then no draw is ever refused, up to rounding.
    """
    left = (p - q).clamp_min(0)
    total = float(left.sum())
    return left / total if total > 0 else p


class Rejection:
    """Exact speculative sampling for sampled chains and trees.

    Below a node whose children were chosen and not drawn, the target's own draw decides, which is the
    same rule with a point mass for q.
    """

    name = "rejection"
    exact = True
    greedy_only = False
    chain_only = False

    class Options(BaseModel):
        """No options."""

    def select(self, walk: Walk) -> None:
        while walk.open:
            walk.take(self._next(walk))

    def _next(self, walk: Walk) -> int:
        return next_token(walk)


def next_token(walk: Walk) -> int:
    """What the exact rule puts behind the present node, a drafted token or another one."""
    p = walk.probs()
    drawn = walk.draws()
    if not drawn:
        return walk.randomness(Purpose.TARGET).categorical(p)
    q = walk.draft_probs()
    random = walk.randomness(Purpose.VERIFY)
    for child in drawn:
        token = walk.tree.tokens[child]
        if random.bernoulli(min(1.0, float(p[token]) / float(q[token]))):
            return token
        p = residual(p, q)
    return walk.randomness(Purpose.RESIDUAL).categorical(p)
