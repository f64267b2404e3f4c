"""An aligned draft model: a few layers on the target's own embedding, trained on the target's own answers.

Goel et al. 2024, arXiv 2403.00858 (direct alignment). A small decoder with the target's vocabulary is trained
on text that the target wrote, with a loss that looks at the target's whole distribution; TVD++ aims at the
acceptance rate itself. What is particular here: the embedding is borrowed from the target and the head
projects on a shortlist, for the vocabulary is most of so small a model. It drafts as any draft model does.

Exact with every exact verifier: the target decides on each draft, and drawn ones carry their distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import Field

from ventris.draft.checkpoint import CheckpointOptions
from ventris.draft.decoder_beside import decoder_beside
from ventris.draft.decoder_network import DecoderNetwork
from ventris.draft.model import DraftModel
from ventris.draft.trained_drafter import TrainedDrafter
from ventris.draft.vocabulary_head import RowsKind
from ventris.engine.target import Target
from ventris.models.config import DecoderConfig


class AlignedNetwork(DecoderNetwork):
    """The draft model in training.

    Args:
        config: That of the target.
        layers: Which of the target's layers it is shaped after, ascending.
        shortlist: Number of listed tokens.
        rows: Where the vocabulary rows come from.
    """

    def __init__(self, config: DecoderConfig, layers: Sequence[int], shortlist: int, rows: RowsKind) -> None:
        windows = tuple(config.window_layers[layer] for layer in layers) if config.window_layers else ()
        super().__init__(
            replace(config, family="aligned draft model", num_layers=len(layers), window_layers=windows),
            shortlist,
            rows,
        )
        self.layers = list(layers)
        self.sizes: dict[str, Any] = {"layers": self.layers, "shortlist": shortlist, "rows": rows}


class Aligned(TrainedDrafter, DraftModel):
    """Drafts with a small decoder that was trained for the target.

    Args:
        target: What it drafts for.
        network: The draft model.
        settings: As for :class:`~ventris.draft.model.DraftModel`.
    """

    name = "aligned"
    network_class = AlignedNetwork

    class Options(CheckpointOptions):
        """Options of the aligned draft model."""

        depth: int = Field(4, ge=1, le=64, description="tokens drafted ahead")
        width: int = Field(1, ge=1, le=16, description="branches tried at each node; 1 for a chain")
        nodes: int = Field(8, ge=1, le=256, description="chosen nodes in all")
        samples: int = Field(1, ge=0, le=16, description="drawn continuations at temperature > 0")

    def __init__(self, target: Target, network: DecoderNetwork, **settings: Any) -> None:
        if target is None:
            DraftModel.__init__(self, cast(Target, None), **settings)
            return
        decoder = decoder_beside(target, network.decoder(), network.weights())
        DraftModel.__init__(self, decoder, **settings, vocabulary=network.vocabulary.ids.tolist())
