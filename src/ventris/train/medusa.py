"""Training Medusa heads; see :mod:`ventris.draft.medusa`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ventris.draft.head_tree import accuracies_of
from ventris.draft.medusa import RANKS
from ventris.draft.medusa_heads import MedusaHeads
from ventris.train.ahead import Ahead
from ventris.train.objectives import AheadObjective, Lesson
from ventris.train.run import train_heads
from ventris.train.settings import MedusaSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch


def train_medusa(settings: MedusaSettings, progress: Progress | None = None, command: str = "") -> Trained:
    """Train Medusa heads; see :func:`~ventris.train.run.train_heads`."""
    return train_heads(settings, MedusaObjective, progress, command)


class MedusaObjective(AheadObjective[MedusaHeads, MedusaSettings]):
    """Medusa-1: sum over heads of 0.8^k times the cross-entropy with the token k + 1 places on."""

    method = "medusa"

    def __init__(self, lesson: Lesson, settings: MedusaSettings) -> None:
        sizes = lesson.head_sizes(settings.heads, settings.layers, settings.own_rows)
        network = MedusaHeads(**sizes)
        network.vocabulary.begin(lesson.shortlist, lesson.head)
        super().__init__(network, lesson, settings, settings.heads, settings.decay)

    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        states: Tensor = self.network(self.normed(batch)[ahead.row, ahead.at])
        return states

    def logits(self, depth: int, states: Tensor) -> Tensor:
        return self.network.vocabulary.one(depth, states)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        return {"accuracies": accuracies_of(ranks, RANKS)}
