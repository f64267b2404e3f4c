"""How many numbers a decoder's weights are."""

from __future__ import annotations

from math import prod

from ventris.models.config import DecoderConfig
from ventris.models.weight_names import weight_shapes


def parameter_count(config: DecoderConfig) -> int:
    """Numbers in the weights of a decoder; shared ones are counted once, borrowed ones not at all."""
    shapes = weight_shapes(config)
    if config.borrowed_embedding:
        del shapes["model.embed_tokens.weight"]
    if config.head_size and not config.tied_head:
        shapes["lm_head.weight"] = (config.head_size, config.hidden_size)
    return sum(map(prod, shapes.values()))
