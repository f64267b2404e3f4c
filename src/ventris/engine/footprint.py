"""What generation takes in memory, by the sizes of a model.

A memory model in the sense of SpecMemo (Yildirim and Chen 2025, arXiv 2506.01986), whose equations are not
public; these are ours. A request whose prompt and answer come to L tokens, with N rows in a step, takes

    (L + N) * row + N * scored + passed + 4 * 8 * vocabulary

bytes: rows of the cache, of which those of the tree are used again in every step; what a row with logits
takes while a pass lasts, and a row of a prompt, which has none; and the verifier's distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ventris.engine.cache import SMALLEST_BLOCK
from ventris.engine.ledger import PASSES
from ventris.engine.target import Rows, Scores, Target

LONGEST_FIRST_BLOCK = 512
"""Output rows reserved at admission when no memory limit is set; longer outputs grow the cache."""

SCRATCH_ROWS = 64
"""Rows reserved for the nodes of a tree, where there is room for so many."""

LOGIT_BYTES = 4
PROBABILITY_BYTES = 8

HIDDEN_ROWS = 16
"""Rows of the hidden size, in float32, that a node takes in a layer: residual, norm, queries, keys, values,
output, and the two halves of a feed-forward layer up to five times as wide."""

VERIFIER_ROWS = 4
"""Distributions over the vocabulary that a verifier works on at a time."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Sizes of one model.

    Attributes:
        row: Bytes of a position in the cache.
        scored: Bytes of a node whose logits are wanted, besides its row, while a pass lasts.
        passed: Bytes of a node without logits, likewise.
        distribution: Bytes of probabilities over the vocabulary.
        hidden: Bytes of a hidden row.
    """

    row: int
    scored: int
    passed: int
    distribution: int
    hidden: int

    @classmethod
    def of(cls, model: Target) -> Footprint:
        """The sizes of a model."""
        hidden = model.hidden_size * 4
        passed = HIDDEN_ROWS * hidden
        scored = passed + model.vocab_size * LOGIT_BYTES
        row = model.new_cache(1).layout.row_bytes
        return cls(row, scored, passed, model.vocab_size * PROBABILITY_BYTES, hidden)

    @property
    def step(self) -> int:
        """Bytes of the least step besides the cache: a root with its logits, and a token of a prompt."""
        return self.scored + self.passed + VERIFIER_ROWS * self.distribution

    def cache(self, rows: int) -> int:
        """Bytes of a cache."""
        return max(rows, SMALLEST_BLOCK) * self.row

    def request(self, tokens: int, nodes: int = 1) -> int:
        """Bytes of a request whose prompt and answer come to ``tokens``, with ``nodes`` rows in a step."""
        return self.cache(tokens + nodes) + self.step + (nodes - 1) * self.scored

    def rows(self, batch: Sequence[Rows]) -> int:
        """Bytes of one pass besides the caches."""
        scored = sum(len(rows.tokens if rows.wanted is None else rows.wanted) for rows in batch)
        nodes = sum(len(rows.tokens) for rows in batch)
        return scored * self.scored + (nodes - scored) * self.passed


def weight_bytes(models: Sequence[Any]) -> int:
    """Bytes of the weights of models that know them."""
    return sum(getattr(model, "weight_bytes", 0) for model in models)


def run(model: Target, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
    """A pass of a drafter's own model, booked for as long as it lasts where memory is limited.

    Raises:
        MemoryError: if it does not fit.
    """
    ledger = batch[0].cache.ledger
    if ledger.limit is None:
        return model.forward(batch, taps)
    with ledger.holding(PASSES, Footprint.of(model).rows(batch)):
        return model.forward(batch, taps)
