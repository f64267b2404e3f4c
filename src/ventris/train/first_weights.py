"""What networks start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.decoder_network import DecoderNetwork
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.target_head import TargetHead
from ventris.engine.errors import BadInput
from ventris.engine.target import Target
from ventris.models.config import DecoderConfig
from ventris.models.weight_names import weight_shapes
from ventris.models.weights import Weights, dense

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


def kept_weights(weights: Weights, config: DecoderConfig, layers: Sequence[int]) -> dict[str, Tensor]:
    """The final norm and some layers of a target under the names that they have in the draft model."""
    named = {"model.norm.weight": dense(weights["model.norm.weight"])}
    for name in weight_shapes(config):
        for place, layer in enumerate(layers):
            if name.startswith(f"model.layers.{layer}."):
                renamed = name.replace(f"layers.{layer}.", f"layers.{place}.", 1)
                named[renamed] = dense(weights[name])
    return named


def go_on(
    network: DecoderNetwork | MedusaHeads, method: str, start: str, target: Target, alike: Sequence[str]
) -> None:
    """Start from a checkpoint; tied vocabulary rows follow the new shortlist.

    Args:
        start: Its folder.
        alike: Sizes in which it must be as the network.

    Raises:
        BadInput: if it is none, of another target, or of another shape.
    """
    stored = alike_checkpoint(start, method, target, network.sizes, alike)
    ids = stored.tensors["vocabulary.ids"]
    if network.vocabulary.kind == "own" and not torch.equal(ids, network.vocabulary.ids):
        raise BadInput(f"{start} has another draft vocabulary; use the data that it was trained with")
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(stored.tensors[name])


def alike_checkpoint(
    start: str, method: str, target: Target, sizes: Mapping[str, Any], alike: Sequence[str]
) -> HeadCheckpoint:
    """The checkpoint in a folder, whose sizes named in ``alike`` are these.

    Raises:
        BadInput: if it is none, of another target, or of another shape.
    """
    folder = Path(start).expanduser()
    stored = HeadCheckpoint.load(folder, method)
    stored.target.check(target, f"the {method} checkpoint {folder}")
    for name in alike:
        if stored.sizes[name] != sizes[name]:
            raise BadInput(
                f"{folder} has {name} {stored.sizes[name]} in place of {sizes[name]}; "
                "choose the settings that it was trained with"
            )
    return stored
