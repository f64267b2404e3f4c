"""Block verification: judge a drafted chain as a whole (Sun et al. 2024, arXiv 2403.10444)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel
from torch import Tensor

from ventris.engine.errors import Incompatible
from ventris.engine.randomness import Purpose
from ventris.engine.sampling import Sampling
from ventris.engine.walk import Walk
from ventris.verify.match import draw_tokens


class Block:
    """Exact, and never accepts fewer tokens in expectation than token-by-token rejection.

    With w_0 = 1 and w_i = min(1, w_{i-1} p(x_i)/q(x_i)), the chain is kept up to the largest i whose coin
    shows h_i, where h_i = s_i / (s_i + 1 - w_i), s_i = sum_x max(w_i p(x) - q(x), 0) at the node after
    i tokens, and h_k = w_k at the end of the draft. The next token is drawn from max(w_i p - q, 0).

    The rule needs p along the whole draft before the first decision. A stateful guide cannot say p for
    tokens that may be refused, unless it can be forked; such a combination is refused.
    """

    name = "block"
    exact = True
    greedy_only = False
    chain_only = True

    class Options(BaseModel):
        """No options."""

    def check_with(self, parts: Sequence[object], sampling: Sampling) -> None:
        """Refuse guides that cannot say what they think of a token before it is kept."""
        for part in parts:
            if hasattr(part, "masks") and not getattr(part, "forkable", False):
                raise Incompatible(
                    "verifier 'block'",
                    f"guide {getattr(part, 'name', part)!r}",
                    "it judges the whole draft ahead and this guide cannot fork; use 'rejection'",
                )

    def select(self, walk: Walk) -> None:
        chain = self._chain(walk)
        if not chain:
            draw_tokens(walk, Purpose.TARGET)
            return
        kept, following = self._judge(walk, chain)
        for child in chain[:kept]:
            if walk.open:
                walk.take(walk.tree.tokens[child])
        if walk.open:
            # What is left of p has no mass on the refused child, so this closes the walk.
            weights = walk.probs() if following is None else following
            walk.take(walk.randomness(Purpose.RESIDUAL).categorical(weights))

    def _chain(self, walk: Walk) -> list[int]:
        """Drawn nodes below the root, as far as they go."""
        chain: list[int] = []
        node = 0
        while node in walk.tree.draws:
            node = walk.tree.draws[node][0]
            chain.append(node)
        return chain

    def _judge(self, walk: Walk, chain: list[int]) -> tuple[int, Tensor | None]:
        """How many nodes of the chain are kept, and the weights of the token after them.

        There are none behind a node where a guide fails; the draft counts as ended there.
        """
        ahead = walk.look_ahead(chain)
        chain = chain[: len(ahead)]
        weight, kept = 1.0, 0
        following: Tensor | None = ahead[0]
        random = walk.randomness(Purpose.VERIFY)
        parents = [0, *chain]
        for length in range(len(chain) + 1):
            if length:
                token = walk.tree.tokens[chain[length - 1]]
                q = walk.tree.draft_probs[parents[length - 1]]
                weight = min(1.0, weight * float(ahead[length - 1][token]) / float(q[token]))
            left: Tensor | None
            if length == len(chain):
                left = ahead[length] if length < len(ahead) else None
                chance = weight
            else:
                left = (weight * ahead[length] - walk.tree.draft_probs[parents[length]]).clamp_min(0)
                mass = float(left.sum())
                chance = mass / (mass + 1.0 - weight) if mass > 0 else 0.0
            if length == 0 or random.bernoulli(chance):
                kept = length
                following = left if left is None or float(left.sum()) > 0 else ahead[length]
        return kept, following
