"""What decoder layers start from, where they do not start from the target's own."""

from __future__ import annotations

import torch
from torch import Tensor

from ventris.draft.target_head import TargetHead
from ventris.models.config import DecoderConfig
from ventris.models.weight_names import weight_shapes

SPREAD = 0.02
"""Standard deviation of weights that are drawn."""

BRANCH_ENDS = ("o_proj.weight", "down_proj.weight")
"""Matrices that end a branch: what they give is added to the row."""


def random_weights(config: DecoderConfig) -> dict[str, Tensor]:
    """Matrices of small numbers, those that end a branch smaller still; norms that change nothing.

    Returns:
        By the names of a transformers checkpoint; biases are zero.
    """
    named = {}
    for name, shape in weight_shapes(config).items():
        if len(shape) == 1:
            scale = name.endswith("norm.weight") and not config.norm_plus_one
            named[name] = torch.full(shape, float(scale))
        else:
            ends = name.endswith(BRANCH_ENDS)
            spread = SPREAD / (2 * config.num_layers) ** 0.5 if ends else SPREAD
            named[name] = spread * torch.randn(shape)
    return named


def passing_weights(config: DecoderConfig, head: TargetHead) -> dict[str, Tensor]:
    """As :func:`random_weights`, but all branches add nothing, and the final norm is the target's."""
    named = random_weights(config)
    silent = {name: torch.zeros_like(w) for name, w in named.items() if name.endswith(BRANCH_ENDS)}
    return {**named, **silent, "model.norm.weight": head.norm - float(config.norm_plus_one)}
