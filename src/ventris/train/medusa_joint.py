"""Medusa-2's joint step: heads learn to guess while low-rank changes of the target learn to be guessed.

Cai et al. 2024, arXiv 2401.10774, section 2.2:

    L = L_base + weight * sin(pi / 2 * step / steps) * sum over heads of 0.8^k CE_k

L_base is KL(p_before || p_after), where before is the same weights without their changes
(self-distillation), or the cross-entropy of the text. The heads learn at a higher rate than the changes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ventris.draft.decoder_network import whole_sequences
from ventris.draft.medusa_heads import MedusaHeads
from ventris.models.low_rank import HEAD, LowRankChanges
from ventris.models.torch_decoder import TorchDecoder
from ventris.train.ahead import Ahead, look_ahead
from ventris.train.losses import cross_entropy, kl
from ventris.train.medusa2_settings import Medusa2Settings
from ventris.train.objectives import AheadObjective, Lesson
from ventris.train.windows import Batch


class JointNetwork(nn.Module):
    """All that learns: the heads, and the changes of the target."""

    def __init__(self, heads: MedusaHeads, changes: LowRankChanges) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {**heads.sizes}
        self.heads = heads
        self.changes = changes


class JointObjective(AheadObjective[JointNetwork, Medusa2Settings]):
    """The loss of both; what is measured is the heads on the target with its changes.

    Args:
        heads: As they come from their own training.
        decoder: The target in float32, which runs with ``changes``.
    """

    method = "medusa2"

    def __init__(
        self,
        lesson: Lesson,
        settings: Medusa2Settings,
        heads: MedusaHeads,
        decoder: TorchDecoder,
        changes: LowRankChanges,
    ) -> None:
        self.decoder = decoder
        super().__init__(JointNetwork(heads, changes), lesson, settings, settings.heads, settings.decay)
        self.listed = lesson.shortlist.ids.to(decoder.device)

    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        return self._states(self._rows(batch), ahead)

    def logits(self, depth: int, states: Tensor) -> Tensor:
        vocabulary = self.network.heads.vocabulary
        logits = vocabulary.one(depth, states)
        if vocabulary.kind == "own":
            return logits
        # Rows that all heads share are the target's, so they change with it.
        return logits + self.network.changes.added([HEAD], states, self.listed)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        ahead = look_ahead(batch, self.learnt_depths, self.place, self.settings.positions, generator)
        if not len(ahead.row):
            return torch.zeros((), device=batch.tokens.device)
        with torch.no_grad(), self.network.changes.off():
            before = self._rows(batch)
            teacher = self.decoder.logits(ahead.following(before, 1))
        rows = self._rows(batch)
        # What the first head guesses two places on is what the target predicts one place on.
        logits = self.decoder.logits(ahead.following(rows, 1))
        if self.settings.base_loss == "kl":
            base = kl(logits, teacher)
        else:
            base = cross_entropy(logits, ahead.following(batch.tokens, 2))
        heads = self.ahead_loss(self._states(rows, ahead), ahead, before)
        return base + self.head_weight(batch.number) * heads

    def head_weight(self, step: int) -> float:
        """Factor on the heads' loss at a step: it rises from nothing as a quarter of a sine."""
        share = min(step / self.settings.steps, 1.0)
        return self.settings.weight_of_heads() * math.sin(math.pi / 2 * share)

    def _rows(self, batch: Batch) -> Tensor:
        """Final-normed rows of the target as it is now, ``[B, L, d]``."""
        return whole_sequences(self.decoder, self.decoder.embed_tokens(batch.tokens))

    def _states(self, rows: Tensor, ahead: Ahead) -> Tensor:
        states: Tensor = self.network.heads(rows[ahead.row, ahead.at])
        return states
