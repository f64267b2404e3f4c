"""OmniDraft's own rule: rejection against what a drafter of another vocabulary takes for its law.

Ramakrishnan et al. 2025, arXiv 2507.02659. A draft token of the target's vocabulary stands for one or several
tokens of the drafter's. Its true law would need a pass of the draft model for every way in which a longer
token may begin, so an estimate takes its place.
"""

from __future__ import annotations

from pydantic import BaseModel
from torch import Tensor

from ventris.engine.randomness import Purpose
from ventris.engine.walk import Walk
from ventris.verify.rejection import next_token, residual


class TranslatedRejection:
    """Accepts a translated draft with min(1, p/q'), q' the drafter's estimate; else draws what is left of p.

    Approximate in two ways. Tokens that the drafter would write as several are missing from the estimate
    wherever they do not begin like the draft, so the residual is not quite right. And what is drafted after
    the first piece of such a token is known not to complete it, which the estimate leaves out of account.

    A drafter that drew something without a translation proposes nothing; that counts as a refused draft.
    Where a tree holds no estimates this is :class:`~ventris.verify.rejection.Rejection`.
    """

    name = "translated-rejection"
    exact = False
    greedy_only = False
    chain_only = False

    class Options(BaseModel):
        """No options."""

    def select(self, walk: Walk) -> None:
        while walk.open:
            estimate = walk.tree.estimates.get(walk.node)
            walk.take(next_token(walk) if estimate is None else _judged(walk, estimate))


def _judged(walk: Walk, estimate: Tensor) -> int:
    """The drafted token below the present node, or what the rule puts in its place."""
    p = walk.probs()
    estimate = estimate.to(p)
    for child in walk.children():
        token = walk.tree.tokens[child]
        # An estimate can be smaller than the chance that the token had, down to nothing.
        ratio = float(p[token]) / float(estimate[token]) if estimate[token] > 0 else 1.0
        if walk.randomness(Purpose.VERIFY).bernoulli(min(1.0, ratio)):
            return token
    return walk.randomness(Purpose.RESIDUAL).categorical(residual(p, estimate))
