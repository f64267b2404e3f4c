"""From a draft head's hidden row to logits over the shortlist."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead, rms_norm
from ventris.draft.target_sketch import embedding_rows
from ventris.engine.target import Target
from ventris.models.stage import Stage

RowsKind = Literal["tied", "stored", "own"]
"""Where the vocabulary rows come from: the target's embedding, which is its head too; a copy of the target's
head in the checkpoint; or rows of every head's own, trained (the papers' form)."""


def trained_rows(own_rows: bool, tied_head: bool) -> RowsKind:
    """The kind for a drafter in training: rows of its own if wished, otherwise those of the target's head."""
    return "own" if own_rows else "tied" if tied_head else "stored"


class VocabularyHead(nn.Module):
    """The target's final norm and the vocabulary rows of K draft heads.

    Args:
        heads: K.
        hidden: Width d of the target.
        size: Listed tokens.
        kind: Where the rows come from.
        eps: Epsilon of the final norm.
    """

    ids: Tensor
    norm: Tensor
    rows: Tensor

    def __init__(self, heads: int, hidden: int, size: int, kind: RowsKind, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.kind = kind
        self.eps = eps
        self.register_buffer("ids", torch.zeros(size, dtype=torch.int32))
        self.register_buffer("norm", torch.ones(hidden))
        if kind == "own":
            self.rows = nn.Parameter(torch.zeros(heads, size, hidden))
        else:
            self.register_buffer("rows", torch.zeros(size, hidden), persistent=kind == "stored")

    def begin(self, shortlist: Shortlist, head: TargetHead) -> None:
        """Start from the target's head, as the papers do."""
        with torch.no_grad():
            self.ids.copy_(shortlist.ids)
            self.norm.copy_(head.norm)
            self.rows.copy_(head.rows.expand_as(self.rows))

    def read_tied_rows(self, target: Target, embedding_scale: float) -> None:
        """Fetch the rows that a tied checkpoint does not hold."""
        if self.kind == "tied":
            self.rows.copy_(embedding_rows(target, self.ids.tolist()) / embedding_scale)

    def normed(self, hidden: Tensor) -> Tensor:
        """Final-normed rows of the target's last-layer outputs, float32 ``[..., d]``."""
        return rms_norm(hidden, self.norm, self.eps)

    def forward(self, rows: Tensor) -> Tensor:
        """``[K, n, d] -> [K, n, shortlist]``"""
        return rows @ self.rows.transpose(-1, -2)

    def one(self, index: int, rows: Tensor) -> Tensor:
        """One head's logits, ``[n, d] -> [n, shortlist]``."""
        return rows @ (self.rows[index] if self.kind == "own" else self.rows).T

    def stages(self) -> list[Stage]:
        """The projection of each head, for drafting; one and the same if the heads share their rows."""
        if self.kind == "own":
            return [Stage(rows) for rows in self.rows.detach()]
        return [Stage(self.rows)] * self.heads
