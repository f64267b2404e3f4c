"""The network of Falcon, as it is trained and stored; see :mod:`ventris.draft.falcon`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ventris.draft.decoder_network import DecoderNetwork
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.vocabulary_head import RowsKind

LSTM_LAYERS = 2
LSTM_DROPOUT = 0.1
"""Between the two layers, in training."""

MixerState = tuple[Tensor, Tensor] | None
"""Hidden and cell rows of the LSTM, ``[layers, n, d]`` each; ``None`` at the start, and without an LSTM."""


class FalconNetwork(DecoderNetwork):
    """An LSTM over pairs of token and feature, and one decoder layer with relaxed causal attention.

    Args:
        layer: Sizes of the decoder layer, those of the target's layers.
        block: k, tokens guessed in a pass.
        shortlist: Number of listed tokens.
        rows: Where the vocabulary rows come from.
        recurrent: Whether there is the LSTM; otherwise one linear map takes its place, as in EAGLE.
        embedding_scale: What the target multiplies its embeddings with; matters to tied rows only.
    """

    def __init__(
        self,
        layer: Mapping[str, Any],
        block: int,
        shortlist: int,
        rows: RowsKind,
        recurrent: bool = True,
        embedding_scale: float = 1.0,
    ) -> None:
        sizes = PrefixSizes(**layer)
        super().__init__(replace(sizes.decoder(), family="Falcon's layer"), shortlist, rows)
        self.block = block
        self.sizes: dict[str, Any] = {
            "layer": sizes.stored(),
            "block": block,
            "shortlist": shortlist,
            "rows": rows,
            "recurrent": recurrent,
            "embedding_scale": embedding_scale,
        }
        d = sizes.hidden
        self.lstm = (
            nn.LSTM(2 * d, d, LSTM_LAYERS, batch_first=True, dropout=LSTM_DROPOUT) if recurrent else None
        )
        self.fuse = None if recurrent else nn.Linear(2 * d, d)

    def mix(self, inputs: Tensor, state: MixerState = None) -> tuple[Tensor, MixerState]:
        """What the layer reads of pairs, ``[n, T, 2 d] -> [n, T, d]``, and the state behind them."""
        if self.lstm is None:
            assert self.fuse is not None
            return self.fuse(inputs), None
        # On a CPU its backward pass is slower in bfloat16 than in float32.
        kind = inputs.device.type
        rounded = torch.is_autocast_enabled(kind) and (kind != "cpu" or not torch.is_grad_enabled())
        with torch.autocast(kind, enabled=rounded):
            mixed, state = self.lstm(inputs, state)
        return mixed.float(), state

    def forward(self, inputs: Tensor, seen: Tensor | None = None) -> Tensor:
        """Features of whole sequences, ``[B, L, 2 d] -> [B, L, d]``; position 0 comes first.

        Args:
            seen: As for :class:`~ventris.draft.decoder_network.DecoderNetwork`.
        """
        return super().forward(self.mix(inputs)[0], seen)


def block_ends(length: int, block: int, phase: int = 0) -> Tensor:
    """Last place of the block that each place is in, int64 ``[length]``: that is what the place sees up to.

    Blocks begin at the places ``phase``, ``phase + block``, …; those before the first are a shorter one.
    """
    place = torch.arange(length) - phase
    return (place.div(block, rounding_mode="floor") + 1) * block - 1 + phase
