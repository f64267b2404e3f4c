"""The network of LongSpec, as it is trained and stored; see :mod:`ventris.draft.longspec`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ventris.draft.decoder_network import DecoderNetwork
from ventris.draft.vocabulary_head import RowsKind
from ventris.models.config import DecoderConfig, RopeScaling
from ventris.models.torch_decoder import TorchDecoder


@dataclass(frozen=True, slots=True)
class Lent:
    """What the target's last layer keeps of whole texts.

    Attributes:
        keys: Rotated to their positions, ``[B, L, kv_heads, head_dim]``.
        values: ``[B, L, kv_heads, head_dim]``.
    """

    keys: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class Queries:
    """Places from which guesses are made.

    Attributes:
        row: Text of each, ascending, int64 ``[n]``.
        at: Place in it, int64 ``[n]``.
        offset: The target's keys end so many places before each: 1 for the root of a draft, one more for each
            token drafted below it.
    """

    row: Tensor
    at: Tensor
    offset: int


class LongSpecNetwork(DecoderNetwork):
    """One block: sliding-window attention, attention to the target's last layer, feed-forward part.

    Args:
        config: That of the target.
        window: Positions that the first attention sees.
        offsets: Largest offset that was trained.
        shortlist: Number of listed tokens.
        rows: Where the vocabulary rows come from.
    """

    def __init__(
        self, config: DecoderConfig, window: int, offsets: int, shortlist: int, rows: RowsKind
    ) -> None:
        super().__init__(longspec_layer(config, window), shortlist, rows)
        self.window = window
        self.offsets = offsets
        self.sizes: dict[str, Any] = {
            "window": window,
            "offsets": offsets,
            "shortlist": shortlist,
            "rows": rows,
        }

    def guess(self, embedded: Tensor, positions: Tensor, lent: Lent, queries: Queries) -> Tensor:
        """Final-normed rows of some places of whole texts, ``[n, d]``.

        Args:
            embedded: E(x) of every token, ``[B, L, d]``.
            positions: Of every token, int64 ``[B, L]``.
            lent: What the target keeps of the texts, at the same positions.
        """
        decoder = self.live_decoder()
        [layer] = decoder.layers
        cos, sin = (table.to(embedded)[:, None] for table in decoder.rope[layer.theta])
        flat = positions.flatten()
        query, key, value = decoder.project(layer, embedded.flatten(0, 1), cos[flat], sin[flat])
        shape = (*positions.shape, *key.shape[1:])
        row, at = queries.row, queries.at
        place = row * positions.shape[1] + at
        where = flat[place]
        counts = torch.bincount(row, minlength=len(embedded)).tolist()

        distance = where[:, None] - positions[row]
        behind = at[:, None] - torch.arange(positions.shape[1], device=at.device)
        near = (behind >= 0) & (distance < self.window)
        own = _attend_texts(decoder, query[place], key.view(shape), value.view(shape), near, counts)
        hidden = decoder.add_attention(layer, embedded[row, at], own)

        across = decoder.cross_query(layer, hidden, cos[where], sin[where])
        seen = _attend_texts(decoder, across, lent.keys, lent.values, behind >= queries.offset, counts)
        assert layer.cross is not None
        hidden = hidden + layer.cross.output(seen)
        return decoder.final_norm(decoder.feed_forward(layer, hidden))


def longspec_layer(config: DecoderConfig, window: int) -> DecoderConfig:
    """The block's sizes and switches; its angles are those of the layer whose keys it reads."""
    theta = config.theta(config.num_layers - 1)
    scaled = theta == config.rope_theta
    return replace(
        config,
        family="LongSpec",
        num_layers=1,
        rope_theta=theta,
        rope_local_theta=0.0,
        rope_scaling=config.rope_scaling if scaled else RopeScaling(),
        sliding_window=window,
        window_layers=(True,),
        cross_attention=True,
        qkv_bias=True,
        output_bias=False,
        mlp_bias=False,
        qk_norm=False,
        norm_plus_one=False,
        post_norms=False,
        attention_softcap=0.0,
        logit_softcap=0.0,
    )


def _attend_texts(
    decoder: TorchDecoder, query: Tensor, keys: Tensor, values: Tensor, visible: Tensor, counts: Sequence[int]
) -> Tensor:
    """Attention of ``counts`` queries of each text over its rows, ``[n, heads * head_dim]``.

    Args:
        visible: Bool ``[n, L]``. A query that sees nothing gets zeros.
    """
    sees = visible.any(dim=1, keepdim=True)
    mask = query.new_zeros(visible.shape).masked_fill_(~(visible | ~sees), -torch.inf)
    parts = zip(torch.split(query, list(counts)), torch.split(mask, list(counts)), keys, values, strict=True)
    mixed = [
        decoder.attend(some, key.transpose(0, 1), value.transpose(0, 1), own)
        for some, own, key, value in parts
    ]
    return torch.cat(mixed) * sees
