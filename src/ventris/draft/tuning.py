"""What tells a tuned target from the one that it was tuned from: both may read the same embedding.

How both answer is kept. A target in another number format answers a little differently from either, so
what counts is which of the two it is nearer to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target

PROBES = 16
"""Tokens that are read."""

COLUMNS = 64
"""Logits kept at each of them, spread over the vocabulary."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Answers of two targets to the same tokens, ``PROBES x COLUMNS`` logits of each.

    Attributes:
        before: Those of the target that was tuned.
        after: Those of the target that it became.
    """

    before: Sequence[float]
    after: Sequence[float]

    @classmethod
    def of(cls, before: Target, after: Target) -> Tuning:
        """Ask both.

        Raises:
            BadInput: if they answer alike.
        """
        if torch.equal(probe_logits(before), probe_logits(after)):
            raise BadInput("tuning changed nothing in the target; train longer, or with a higher rate")
        return cls(_sample(before), _sample(after))

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Tuning:
        """From a checkpoint's ``config.json``."""
        return cls(tuple(stored["before"]), tuple(stored["after"]))

    def share(self, target: Target) -> float:
        """How far a target has come on the way from before to after: about 0 for one, 1 for the other."""
        before, after, here = (torch.tensor(some) for some in (self.before, self.after, _sample(target)))
        way = after - before
        return float((here - before) @ way / (way @ way))


def probe_logits(target: Target) -> Tensor:
    """What a target says after each of a few tokens, ``[PROBES, vocab]``."""
    cache = target.new_cache(2 * PROBES)
    tokens = [i * 7919 % target.vocab_size for i in range(PROBES)]
    logits = target.forward([Rows(cache, tokens, range(-1, len(tokens) - 1))]).logits[0]
    cache.release()
    return logits


def _sample(target: Target) -> tuple[float, ...]:
    logits = probe_logits(target).float().cpu()
    # A number added to all logits of a row changes nothing.
    some = (logits - logits.mean(dim=1, keepdim=True))[:, :: max(target.vocab_size // COLUMNS, 1)]
    return tuple(float(f"{x:.6g}") for x in some[:, :COLUMNS].flatten().tolist())
