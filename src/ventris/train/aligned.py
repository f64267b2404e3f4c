"""Training an aligned draft model (direct alignment); see :mod:`ventris.draft.aligned`.

The paper's steps are runs of one command: first with ``loss=cross_entropy`` (pretraining, on plain texts or
on the target's answers), then from its checkpoint with KL, TVD or TVD++ on answers at several temperatures.
"""

from __future__ import annotations

from torch import Tensor

from ventris.draft.aligned import AlignedNetwork
from ventris.draft.target_sketch import embedding_rows
from ventris.draft.vocabulary_head import trained_rows
from ventris.engine.errors import BadInput
from ventris.train.first_weights import go_on, kept_weights, random_weights
from ventris.train.next_token import NextTokenObjective
from ventris.train.objectives import Lesson
from ventris.train.run import train_heads
from ventris.train.settings import AlignedSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch


def train_aligned(settings: AlignedSettings, progress: Progress | None = None, command: str = "") -> Trained:
    """Train an aligned draft model; see :func:`~ventris.train.run.train_heads`."""
    return train_heads(settings, AlignedObjective, progress, command)


def kept_layers(of: int, count: int) -> list[int]:
    """``count`` layers out of ``of``, evenly spaced from the first to the last.

    Raises:
        BadInput: if there are not so many.
    """
    if count > of:
        raise BadInput(f"layers is {count}, but the target has {of}; choose fewer")
    return [round(place * (of - 1) / max(count - 1, 1)) for place in range(count)]


class AlignedObjective(NextTokenObjective[AlignedNetwork, AlignedSettings]):
    """The draft model reads the target's embeddings."""

    method = "aligned"

    def __init__(self, lesson: Lesson, settings: AlignedSettings) -> None:
        layers = kept_layers(lesson.config.num_layers, settings.layers)
        rows = trained_rows(settings.own_rows, lesson.config.tied_head)
        network = AlignedNetwork(lesson.config, layers, len(lesson.shortlist), rows)
        network.vocabulary.begin(lesson.shortlist, lesson.head)
        if settings.start == "random":
            network.begin(random_weights(network.config))
        elif settings.start == "kept" and lesson.model.source is not None:
            network.begin(kept_weights(lesson.model.source.weights, lesson.config, layers))
        else:
            go_on(network, self.method, settings.start, lesson.model.target, ("layers", "rows"))
        super().__init__(network, lesson, settings)

    def inputs(self, batch: Batch) -> Tensor:
        tokens = batch.tokens
        return embedding_rows(self.target, tokens.flatten().tolist()).view(*tokens.shape, -1)
