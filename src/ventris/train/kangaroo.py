"""Training Kangaroo's adapter; see :mod:`ventris.draft.kangaroo`."""

from __future__ import annotations

import torch
from torch import Tensor

from ventris.draft.kangaroo import KangarooNetwork
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.vocabulary_head import RowsKind
from ventris.model import Model
from ventris.models.config import DecoderConfig
from ventris.models.weight_names import weight_shapes
from ventris.train.next_token import NextTokenObjective
from ventris.train.objectives import Objective
from ventris.train.run import train_heads
from ventris.train.settings import KangarooSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch

SPREAD = 0.02
"""Standard deviation of the first weights that are drawn."""


def train_kangaroo(
    settings: KangarooSettings, progress: Progress | None = None, command: str = ""
) -> Trained:
    """Train Kangaroo's adapter; see :func:`~ventris.train.run.train_heads`."""

    def make(model: Model, config: DecoderConfig, head: TargetHead, shortlist: Shortlist) -> Objective:
        return KangarooObjective(model, config, head, shortlist, settings)

    return train_heads(settings, make, progress, command)


class KangarooObjective(NextTokenObjective):
    """The adapter reads the target's rows at the exit layer.

    It starts as nothing but the target's final norm and head over those rows: what its branches add is zero.
    """

    method = "kangaroo"
    network: KangarooNetwork

    def __init__(
        self,
        model: Model,
        config: DecoderConfig,
        head: TargetHead,
        shortlist: Shortlist,
        settings: KangarooSettings,
    ) -> None:
        rows: RowsKind = "own" if settings.own_rows else "tied" if config.tied_head else "stored"
        network = KangarooNetwork(config, settings.exit_layer, len(shortlist), rows, settings.feed_forward)
        self.sizes = network.sizes
        network.vocabulary.begin(shortlist, head)
        network.begin(passing_weights(network.config, head))
        super().__init__(network, model.target, head, shortlist, settings)

    def inputs(self, batch: Batch) -> Tensor:
        return batch.hidden[self.network.exit_layer]


def passing_weights(config: DecoderConfig, head: TargetHead) -> dict[str, Tensor]:
    """First weights with which the layer passes its input on."""
    named = {}
    for name, shape in weight_shapes(config).items():
        if len(shape) == 1:
            named[name] = torch.ones(shape)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            named[name] = torch.zeros(shape)
        else:
            named[name] = SPREAD * torch.randn(shape)
    return {**named, "model.norm.weight": head.norm}
