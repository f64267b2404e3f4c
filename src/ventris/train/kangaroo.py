"""Training Kangaroo's adapter; see :mod:`ventris.draft.kangaroo`."""

from __future__ import annotations

from torch import Tensor

from ventris.draft.kangaroo import KangarooNetwork
from ventris.draft.vocabulary_head import trained_rows
from ventris.train.first_weights import passing_weights
from ventris.train.next_token import NextTokenObjective
from ventris.train.objectives import Lesson
from ventris.train.run import train_heads
from ventris.train.settings import KangarooSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch


def train_kangaroo(
    settings: KangarooSettings, progress: Progress | None = None, command: str = ""
) -> Trained:
    """Train Kangaroo's adapter; see :func:`~ventris.train.run.train_heads`."""
    return train_heads(settings, KangarooObjective, progress, command)


class KangarooObjective(NextTokenObjective[KangarooNetwork, KangarooSettings]):
    """The adapter reads the target's rows at the exit layer.

    It starts as nothing but the target's final norm and head over those rows: what its branches add is zero.
    """

    method = "kangaroo"

    def __init__(self, lesson: Lesson, settings: KangarooSettings) -> None:
        rows = trained_rows(settings.own_rows, lesson.config.tied_head)
        network = KangarooNetwork(
            lesson.config, settings.exit_layer, len(lesson.shortlist), rows, settings.feed_forward
        )
        network.vocabulary.begin(lesson.shortlist, lesson.head)
        network.begin(passing_weights(network.config, lesson.head))
        super().__init__(network, lesson, settings)

    def inputs(self, batch: Batch) -> Tensor:
        return batch.hidden[self.network.exit_layer]
