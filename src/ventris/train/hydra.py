"""Training Hydra and Hydra++ heads; see :mod:`ventris.draft.hydra`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ventris.draft.hydra_heads import HydraHeads
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.target_sketch import embedding_rows
from ventris.train.ahead import Ahead, measured_tree
from ventris.train.objectives import AheadObjective, Lesson
from ventris.train.run import train_heads
from ventris.train.settings import HydraSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch


def train_hydra(settings: HydraSettings, progress: Progress | None = None, command: str = "") -> Trained:
    """Train Hydra or Hydra++ heads; see :func:`~ventris.train.run.train_heads`."""
    return train_heads(settings.resolved(), HydraObjective, progress, command)


class HydraObjective(AheadObjective[HydraHeads, HydraSettings]):
    """Hydra: each head reads the right tokens before its own; Hydra++ learns the target's distribution."""

    method = "hydra"

    def __init__(self, lesson: Lesson, settings: HydraSettings) -> None:
        network = HydraHeads(
            prefix=PrefixSizes.of(lesson.config).stored() if settings.prefix else None,
            dropout=settings.dropout,
            **lesson.head_sizes(settings.heads, settings.layers or 1, settings.own_rows),
        )
        network.vocabulary.begin(lesson.shortlist, lesson.head)
        super().__init__(network, lesson, settings, settings.heads, settings.decay)

    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        normed = self.normed(batch)
        summaries = self.network.prefix(normed) if self.network.prefix is not None else normed
        embedded = [
            embedding_rows(self.target, ahead.following(batch.tokens, offset).tolist())
            for offset in range(1, depths + 1)
        ]
        states: Tensor = self.network(summaries[ahead.row, ahead.at], embedded)
        return states

    def logits(self, depth: int, states: Tensor) -> Tensor:
        return self.network.vocabulary.one(depth, states)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        return measured_tree(ranks)
