"""What heads that guess several tokens ahead are trained on and measured by.

Head k of K (from 0) stands at position t and guesses x_{t+2+k}; the target itself, at position t+1+k, is
the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ventris.draft.head_tree import LARGEST_TREE, grow_from_ranks
from ventris.draft.medusa import RANKS
from ventris.draft.shortlist import NOT_LISTED
from ventris.train.losses import DistributionLoss, cross_entropy
from ventris.train.windows import Batch


@dataclass(frozen=True, slots=True)
class Ahead:
    """Positions of a batch, with what is to be guessed from them.

    Attributes:
        row: Window of each position, int64 ``[n]``.
        at: Place in it, int64 ``[n]``.
        labels: The right tokens as places in the shortlist, :data:`NOT_LISTED` outside it, int64 ``[n, K]``.
        valid: Which of them the target said, bool ``[n, K]``.
    """

    row: Tensor
    at: Tensor
    labels: Tensor
    valid: Tensor

    def following(self, rows: Tensor, offset: int) -> Tensor:
        """Rows ``offset`` places further on, ``[B, L, ...] -> [n, ...]``; past the end, the last ones."""
        return rows[self.row, (self.at + offset).clamp_max(rows.shape[1] - 1)]


def look_ahead(
    batch: Batch, heads: int, place: Tensor, most: int | None = None, generator: torch.Generator | None = None
) -> Ahead:
    """The positions from which at least the first head has something to guess.

    Args:
        place: Index in the shortlist by token, int64 ``[vocab]``.
        most: Draw at most so many of them.
    """
    length = batch.tokens.shape[1]
    row, at = batch.answer[:, 2:].nonzero(as_tuple=True)
    if most is not None and len(row) > most:
        chosen = torch.randperm(len(row), generator=generator)[:most].sort().values.to(row.device)
        row, at = row[chosen], at[chosen]
    places = at[:, None] + torch.arange(2, heads + 2, device=at.device)
    inside = places < length
    places = places.clamp_max(length - 1)
    tokens, said = batch.tokens[row[:, None], places], batch.answer[row[:, None], places]
    return Ahead(row, at, place[tokens], said & inside)


def ahead_loss(
    states: Tensor,
    ahead: Ahead,
    logits_of: Callable[[int, Tensor], Tensor],
    teacher_rows: Tensor,
    normed: Tensor,
    loss: DistributionLoss | None,
    decay: float,
) -> Tensor:
    """Sum over heads of decay^(k+1) times the loss where the right token is listed.

    Args:
        states: Head states, ``[K, n, d]``.
        logits_of: Logits over the shortlist of rows of head k, ``[n, d] -> [n, shortlist]``.
        teacher_rows: The target's own vocabulary rows of the shortlist, ``[shortlist, d]``.
        normed: The target's final-normed rows, ``[B, L, d]``.
        loss: ``None`` for cross-entropy with the text.
    """
    total = states.new_zeros(())
    for k, state in enumerate(states):
        learnt = ahead.valid[:, k] & (ahead.labels[:, k] != NOT_LISTED)
        if not bool(learnt.any()):
            continue
        logits = logits_of(k, state[learnt])
        if loss is None:
            value = cross_entropy(logits, ahead.labels[learnt, k])
        else:
            value = loss(logits, ahead.following(normed, k + 1)[learnt] @ teacher_rows.T)
        total = total + decay ** (k + 1) * value
    return total


def label_ranks(states: Tensor, ahead: Ahead, logits_of: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Rank of the right token among each head's guesses, int64 ``[m, K]``, where all heads have one.

    A token outside the shortlist has the rank after the last.
    """
    whole = ahead.valid.all(dim=1)
    ranks = []
    for k, state in enumerate(states):
        logits = logits_of(k, state[whole])
        labels = ahead.labels[whole, k]
        right = logits.gather(1, labels.clamp_min(0)[:, None])
        rank = (logits > right).sum(dim=1)
        ranks.append(rank.masked_fill(labels == NOT_LISTED, logits.shape[1]))
    return torch.stack(ranks, dim=1).cpu()


def measured_tree(ranks: Tensor) -> dict[str, Any]:
    """The best tree of guesses that follow one another, for a checkpoint's configuration.

    Args:
        ranks: As of :func:`label_ranks`.
    """
    return {"tree": grow_from_ranks(ranks, LARGEST_TREE, RANKS).stored()}


def acceptance_by_depth(ranks: Tensor) -> list[float]:
    """For each depth, how often a chain of best guesses is accepted there once it was above."""
    kept = torch.cumprod((ranks == 0).long(), dim=1).sum(dim=0).tolist()
    return [now / max(before, 1) for before, now in zip([len(ranks), *kept], kept, strict=False)]
