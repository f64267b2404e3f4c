"""Verifiers that draw the target's own token at each node and follow the draft while it agrees.

The draw never looks at the draft, so all of them are exact with any drafter, chain or tree, whether its
tokens were drawn or chosen (Medusa's "sampled match" done right: one draw a node, and the draw that no
child matches is the next token).
"""

from __future__ import annotations

from pydantic import BaseModel

from ventris.engine.randomness import Purpose
from ventris.engine.walk import Walk


class Greedy:
    """Keeps the drafts that equal the target's most probable token."""

    name = "greedy"
    exact = True
    greedy_only = True
    chain_only = False

    class Options(BaseModel):
        """No options."""

    def select(self, walk: Walk) -> None:
        while walk.open:
            walk.take(walk.argmax())


class Coupled:
    """Draws each token with a random number that belongs to its position.

    The number depends on seed and position only, so the same seed gives the same tokens with and without
    drafting, alone and in a batch. Drafts are kept as often as a draw from the target hits one of them; a
    sampling drafter may use the same numbers (``draft_purpose``), which makes hits likelier and changes
    no output.
    """

    name = "coupled"
    exact = True
    greedy_only = False
    chain_only = False
    draft_purpose = Purpose.TARGET

    class Options(BaseModel):
        """No options."""

    def select(self, walk: Walk) -> None:
        draw_tokens(walk, Purpose.TARGET)


class PointMass:
    """The same rule with draws from the verifier's own random stream.

    The text differs from undrafted decoding with the same seed; its distribution does not.
    """

    name = "point-mass"
    exact = True
    greedy_only = False
    chain_only = False

    class Options(BaseModel):
        """No options."""

    def select(self, walk: Walk) -> None:
        draw_tokens(walk, Purpose.VERIFY)


def draw_tokens(walk: Walk, purpose: Purpose) -> None:
    """Draw from the target at each node and go on while a draft agrees with the draw."""
    while walk.open:
        walk.take(walk.randomness(purpose).categorical(walk.probs()))
