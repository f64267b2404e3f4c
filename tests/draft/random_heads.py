"""Heads with random weights for tiny targets: bad guesses, so that every branch of a verifier is walked."""

from __future__ import annotations

from typing import Any

import families
import torch
from torch import nn

from ventris.draft.eagle_network import EagleNetwork, eagle_taps
from ventris.draft.head_network import HeadSizes
from ventris.draft.head_tree import grow_from_accuracies
from ventris.draft.hydra import Hydra
from ventris.draft.hydra_heads import HydraHeads
from ventris.draft.medusa import Medusa
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.models.config import DecoderConfig
from ventris.models.torch_decoder import TorchDecoder

ACCURACIES = [[0.5, 0.2, 0.1], [0.4, 0.2, 0.1], [0.3, 0.2, 0.1]]


def tiny_target(name: str = "smollm", dtype: torch.dtype = torch.float32, seed: int = 0) -> TorchDecoder:
    """A tiny random decoder of a family."""
    family = families.build(name, seed)
    return TorchDecoder(family.config, family.weights, dtype)


def target_head(target: TorchDecoder, shortlist: Shortlist) -> TargetHead:
    """Its final norm and listed rows."""
    weights, config = families.build(target.config.family).weights, target.config
    matrix = weights["model.embed_tokens.weight" if config.tied_head else "lm_head.weight"]
    norm = weights["model.norm.weight"] + float(config.norm_plus_one)
    return TargetHead(norm, config.norm_eps, matrix[shortlist.ids].clone())


def shake(network: nn.Module, seed: int, size: float = 0.1) -> None:
    """Move every trained number a little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def head_sizes(config: DecoderConfig, listed: int, rows: Any = "stored", layers: int = 1) -> HeadSizes:
    """Sizes of three heads."""
    return {
        "heads": 3,
        "hidden": config.hidden_size,
        "shortlist": listed,
        "rows": rows,
        "layers": layers,
        "norm_eps": config.norm_eps,
        "embedding_scale": config.embedding_scale,
    }


def medusa_heads(
    target: TorchDecoder, rows: Any = "stored", layers: int = 1, listed: int = 40
) -> MedusaHeads:
    """Medusa heads near their start."""
    shortlist = Shortlist(torch.arange(listed), target.vocab_size)
    network = MedusaHeads(**head_sizes(target.config, listed, rows, layers))
    network.vocabulary.begin(shortlist, target_head(target, shortlist))
    shake(network, seed=1)
    return network


def hydra_heads(
    target: TorchDecoder, rows: Any = "stored", layers: int = 1, prefix: bool = False, listed: int = 40
) -> HydraHeads:
    """Hydra heads near their start."""
    shortlist = Shortlist(torch.arange(listed), target.vocab_size)
    sizes = PrefixSizes.of(target.config).stored() if prefix else None
    network = HydraHeads(prefix=sizes, **head_sizes(target.config, listed, rows, layers))
    network.vocabulary.begin(shortlist, target_head(target, shortlist))
    shake(network, seed=2)
    return network


def medusa(target: TorchDecoder, network: MedusaHeads, **settings: Any) -> Medusa:
    return Medusa(target, network, grow_from_accuracies(ACCURACIES, 64), **settings)


def hydra(target: TorchDecoder, network: HydraHeads, **settings: Any) -> Hydra:
    return Hydra(target, network, grow_from_accuracies(ACCURACIES, 64), **settings)


def eagle_network(target: TorchDecoder, listed: int = 40) -> EagleNetwork:
    """An EAGLE-3 layer near its start."""
    shortlist = Shortlist(torch.arange(listed), target.vocab_size)
    sizes = PrefixSizes.of(target.config).stored()
    network = EagleNetwork(sizes, eagle_taps(target.num_layers), listed)
    network.begin(shortlist, target_head(target, shortlist))
    shake(network, seed=5)
    return network
