"""Training an aligned draft model (direct alignment); see :mod:`ventris.draft.aligned`.

The paper's steps are runs of one command: first with ``loss=cross_entropy`` (pretraining, on plain texts or
on the target's answers), then from its checkpoint with KL, TVD or TVD++ on answers at several temperatures.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ventris.draft.aligned import AlignedNetwork
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.target_sketch import embedding_rows
from ventris.draft.vocabulary_head import trained_rows
from ventris.engine.errors import BadInput
from ventris.model import Model
from ventris.models.config import DecoderConfig
from ventris.models.weight_names import weight_shapes
from ventris.models.weights import Weights, dense
from ventris.train.first_weights import random_weights
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
        self.sizes = network.sizes
        network.vocabulary.begin(lesson.shortlist, lesson.head)
        if settings.start == "random":
            network.begin(random_weights(network.config))
        elif settings.start == "kept" and lesson.model.source is not None:
            network.begin(_kept(lesson.model.source.weights, lesson.config, layers))
        else:
            _go_on(network, Path(settings.start).expanduser(), lesson.model)
        super().__init__(network, lesson, settings)

    def inputs(self, batch: Batch) -> Tensor:
        tokens = batch.tokens
        return embedding_rows(self.target, tokens.flatten().tolist()).view(*tokens.shape, -1)


def _kept(weights: Weights, config: DecoderConfig, layers: list[int]) -> dict[str, Tensor]:
    """The final norm and some layers of a target under the names that they have in the draft model."""
    named = {"model.norm.weight": dense(weights["model.norm.weight"])}
    for name in weight_shapes(config):
        for place, layer in enumerate(layers):
            if name.startswith(f"model.layers.{layer}."):
                renamed = name.replace(f"layers.{layer}.", f"layers.{place}.", 1)
                named[renamed] = dense(weights[name])
    return named


def _go_on(network: AlignedNetwork, folder: Path, model: Model) -> None:
    """Start from a checkpoint; tied vocabulary rows follow the new shortlist.

    Raises:
        BadInput: if it is none, of another target, or of another shape.
    """
    stored = HeadCheckpoint.load(folder, "aligned")
    stored.target.check(model.target, f"the aligned checkpoint {folder}")
    for name in ("layers", "rows"):
        if stored.sizes[name] != network.sizes[name]:
            raise BadInput(
                f"{folder} has {name} {stored.sizes[name]} in place of {network.sizes[name]}; "
                "choose the settings that it was trained with"
            )
    ids = stored.tensors["vocabulary.ids"]
    if network.vocabulary.kind == "own" and not torch.equal(ids, network.vocabulary.ids):
        raise BadInput(f"{folder} has another draft vocabulary; use the data that it was trained with")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(stored.tensors[name])
