"""Pairs of toy models of which it is known where they differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ventris.study.seen_tokens import BEST, Beliefs, SeenTokens
from ventris.testing import ToyTarget

PROMPTS = [[1, 2, 3], [3, 1], [2, 2, 1, 4], [4], [5, 1, 5], [1, 1]]


class DiffersAt(ToyTarget):
    """A toy whose best token is another one where the text has certain lengths.

    Args:
        lengths: Tokens of the text, the prompt's among them, after which it differs.
        sure: Added to its best logit everywhere else, so that it can be told from its confidence.
    """

    def __init__(self, vocab_size: int, lengths: Sequence[int], sure: float = 0.0) -> None:
        super().__init__(vocab_size, sharpness=3.0)
        self.lengths = set(lengths)
        self.sure = sure

    def logits(self, prefix: Sequence[int]) -> Tensor:
        row = super().logits(prefix).clone()
        best = int(row.argmax())
        if len(prefix) in self.lengths:
            row[best] = row.min() - 1
        else:
            row[best] += self.sure
        return row


def large(vocab_size: int = 8) -> ToyTarget:
    """What :class:`DiffersAt` differs from."""
    return ToyTarget(vocab_size, sharpness=3.0)


def seen_with(top: Tensor, mismatch: Tensor, answers: int, second: Tensor | None = None) -> SeenTokens:
    """Tokens with a given best probability, divided evenly among answers.

    Args:
        top: Best probabilities, ``[n]``.
        second: Probabilities of the second best; half of what is left when not given.
    """
    count = len(top)
    each = count // answers
    best = torch.zeros((count, BEST))
    best[:, 0] = top
    best[:, 1] = (1 - top) / 2 if second is None else second
    question = torch.arange(answers).repeat_interleave(each)
    entropy = torch.special.entr(best.clamp_min(1e-9)).sum(1)
    beliefs = Beliefs(torch.zeros(count, dtype=torch.int64), best, entropy)
    place = torch.arange(each).repeat(answers)
    return SeenTokens(question, place, torch.full((count,), each), mismatch, beliefs)
