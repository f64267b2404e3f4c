"""Training Chimera; see :mod:`ventris.draft.chimera`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ventris.draft.chimera_network import ChimeraNetwork
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.target_sketch import embedding_rows
from ventris.draft.vocabulary_head import trained_rows
from ventris.train.ahead import Ahead, look_ahead, measured_tree
from ventris.train.losses import mse
from ventris.train.objectives import AheadObjective, Lesson
from ventris.train.run import train_heads
from ventris.train.settings import ChimeraSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch


def train_chimera(settings: ChimeraSettings, progress: Progress | None = None, command: str = "") -> Trained:
    """Train Chimera; see :func:`~ventris.train.run.train_heads`."""
    return train_heads(settings, ChimeraObjective, progress, command)


class ChimeraObjective(AheadObjective[ChimeraNetwork, ChimeraSettings]):
    """The target's distribution at each head, and its hidden rows for the draft states.

    The tokens between are the text's: what a head says below a wrong guess matters to nobody.
    """

    method = "chimera"

    def __init__(self, lesson: Lesson, settings: ChimeraSettings) -> None:
        network = ChimeraNetwork(
            settings.heads,
            PrefixSizes.of(lesson.config).stored(),
            len(lesson.shortlist),
            trained_rows(settings.own_rows, lesson.config.tied_head),
            settings.left_out,
            lesson.config.embedding_scale,
        )
        network.vocabulary.begin(lesson.shortlist, lesson.head)
        super().__init__(network, lesson, settings, settings.heads, settings.decay)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        ahead = look_ahead(batch, self.learnt_depths, self.place, self.settings.positions, generator)
        normed = self.normed(batch)
        states, fused = self._unrolled(batch, ahead, self.learnt_depths)
        loss = self.ahead_loss(fused, ahead, normed)
        learnt = ahead.valid.T
        if self.settings.state_weight and bool(learnt.any()):
            wanted = torch.stack([ahead.following(normed, depth + 1) for depth in range(len(states))])
            loss = loss + self.settings.state_weight * mse(states[learnt], wanted[learnt])
        return loss

    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        return self._unrolled(batch, ahead, depths)[1]

    def _unrolled(self, batch: Batch, ahead: Ahead, depths: int) -> tuple[Tensor, Tensor]:
        embedded = []
        for offset in range(-1, depths + 1):
            place = (ahead.at + offset).clamp(0, batch.tokens.shape[1] - 1)
            embedded.append(embedding_rows(self.target, batch.tokens[ahead.row, place].tolist()))
        return self.network.unroll(self.normed(batch), embedded, ahead.row, ahead.at)

    def logits(self, depth: int, states: Tensor) -> Tensor:
        return self.network.vocabulary.one(depth, states)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        return measured_tree(ranks)
