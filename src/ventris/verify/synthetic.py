"""Accepts drafts by a coin, to time the engine apart from any drafter."""

from __future__ import annotations

from pydantic import BaseModel, Field

from ventris.engine.randomness import Purpose
from ventris.engine.walk import Walk


class Synthetic:
    """Keeps each drafted token with a fixed probability, whatever the target thinks of it.

    The output is meaningless; steps, tree sizes and acceptance are as set, which is what a timing of the
    engine needs. Not exact.
    """

    name = "synthetic"
    exact = False
    greedy_only = False
    chain_only = False

    class Options(BaseModel):
        """Options of the synthetic verifier."""

        rate: float = Field(0.7, ge=0, le=1, description="probability that a drafted token is kept")

    def __init__(self, rate: float = 0.7) -> None:
        self.rate = rate

    def select(self, walk: Walk) -> None:
        while walk.open:
            children = walk.children()
            keep = bool(children) and walk.randomness(Purpose.VERIFY).bernoulli(self.rate)
            walk.take(walk.tree.tokens[children[0]] if keep else walk.argmax())
