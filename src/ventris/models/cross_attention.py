"""A second attention of a block, to rows that another decoder lends (``DecoderConfig.cross_attention``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ventris.engine.cache import CacheLayout, KVCache
from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """Its weights: queries alone, for the keys and values are the lender's.

    Attributes:
        norm: Of the hidden rows.
        query: ``[n, hidden] -> [n, heads * head_dim]``.
        output: ``[n, heads * head_dim] -> [n, hidden]``.
    """

    norm: Callable[[Tensor], Tensor]
    query: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]


def lent_views(lent: KVCache | None, config: DecoderConfig) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of the lender's last layer, span by span, where they lie.

    Raises:
        BadInput: if they have other sizes than the decoder's own.
    """
    if lent is None:
        return []
    check_lent(config, lent.layout)
    return lent.views(lent.layout.layers - 1)


def check_lent(config: DecoderConfig, layout: CacheLayout) -> None:
    """Refuse rows of other sizes than the decoder's own.

    Raises:
        BadInput: naming both sizes.
    """
    lent, own = (layout.kv_heads, layout.head_dim), (config.num_kv_heads, config.head_dim)
    if lent != own:
        raise BadInput(
            f"the lent rows have {lent[0]} heads of {lent[1]} numbers, "
            f"this decoder's have {own[0]} of {own[1]}"
        )
