"""A small drafter of every trained kind, near its start, for any tiny target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import random_heads
import torch
from tiny_decoders import LLAMA, random_weights
from torch import nn

from ventris.draft.aligned import Aligned, AlignedNetwork
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.chimera import Chimera
from ventris.draft.chimera_network import ChimeraNetwork, LeftOut
from ventris.draft.eagle import Eagle
from ventris.draft.eagle_network import EagleNetwork, eagle_taps
from ventris.draft.falcon import Falcon
from ventris.draft.falcon_network import FalconNetwork
from ventris.draft.head_drafter import HeadDrafter
from ventris.draft.head_tree import grow_from_accuracies
from ventris.draft.hydra import Hydra
from ventris.draft.hydra_heads import HydraHeads
from ventris.draft.kangaroo import Kangaroo, KangarooNetwork
from ventris.draft.longspec import LongSpec
from ventris.draft.longspec_network import LongSpecNetwork
from ventris.draft.medusa import Medusa
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import TargetSketch
from ventris.models.config import DecoderConfig
from ventris.train.falcon import pass_features_on
from ventris.train.first_weights import passing_weights
from ventris.train.first_weights import random_weights as first_weights

LONG = [1 + i % 60 for i in range(45)]  # read in several chunks of sixteen
PROMPTS = [LONG, [3, 4], LONG[:30], [7]]


@dataclass(frozen=True)
class Place:
    """A target with what a drafter in training knows of it."""

    target: Any
    config: DecoderConfig
    head: TargetHead
    shortlist: Shortlist


def torch_place(family: str = "smollm", listed: int = 40, seed: int = 0) -> Place:
    """A tiny decoder in torch; the first ``listed`` tokens are in the draft vocabulary."""
    target = random_heads.tiny_target(family, seed=seed)
    shortlist = Shortlist(torch.arange(listed), target.vocab_size)
    return Place(target, target.config, random_heads.target_head(target, shortlist), shortlist)


def native_place(dtype: str) -> Place:
    """A tiny native decoder; the test is skipped where there is none."""
    from ventris.models.native import NativeDecoder, NativeUnavailable

    weights = random_weights(LLAMA)
    try:
        target = NativeDecoder.from_weights(LLAMA, weights, dtype, threads=1)
    except NativeUnavailable as reason:
        pytest.skip(str(reason))
    head = TargetHead(weights["model.norm.weight"], LLAMA.norm_eps, weights["lm_head.weight"][3:100])
    return Place(target, LLAMA, head, Shortlist(torch.arange(3, 100), LLAMA.vocab_size))


def medusa(place: Place) -> MedusaHeads:
    network = MedusaHeads(**random_heads.head_sizes(place.config, len(place.shortlist)))
    network.vocabulary.begin(place.shortlist, place.head)
    return network


def hydra(place: Place) -> HydraHeads:
    sizes = random_heads.head_sizes(place.config, len(place.shortlist), layers=2)
    network = HydraHeads(prefix=PrefixSizes.of(place.config).stored(), **sizes)
    network.vocabulary.begin(place.shortlist, place.head)
    return network


def eagle(place: Place) -> EagleNetwork:
    taps = eagle_taps(place.config.num_layers)
    network = EagleNetwork(PrefixSizes.of(place.config).stored(), taps, len(place.shortlist))
    network.begin(place.shortlist, place.head)
    return network


def aligned(place: Place) -> AlignedNetwork:
    layers = [0, place.config.num_layers - 1]
    network = AlignedNetwork(place.config, layers, len(place.shortlist), "stored")
    network.vocabulary.begin(place.shortlist, place.head)
    network.begin(first_weights(network.config))
    return network


def kangaroo(place: Place) -> KangarooNetwork:
    network = KangarooNetwork(place.config, 2, len(place.shortlist), "stored", feed_forward=True)
    network.vocabulary.begin(place.shortlist, place.head)
    network.begin(passing_weights(network.config, place.head))
    return network


def falcon(place: Place, block: int = 2, recurrent: bool = True) -> FalconNetwork:
    sizes = PrefixSizes.of(place.config).stored()
    network = FalconNetwork(sizes, block, len(place.shortlist), "stored", recurrent)
    network.vocabulary.begin(place.shortlist, place.head)
    network.begin(passing_weights(network.config, place.head))
    pass_features_on(network, place.head.norm, 1.0)
    return network


def chimera(place: Place, left_out: LeftOut = "nothing") -> ChimeraNetwork:
    sizes = PrefixSizes.of(place.config).stored()
    network = ChimeraNetwork(3, sizes, len(place.shortlist), "stored", left_out)
    network.vocabulary.begin(place.shortlist, place.head)
    return network


def longspec(place: Place, window: int = 16, offsets: int = 4) -> LongSpecNetwork:
    network = LongSpecNetwork(place.config, window, offsets, len(place.shortlist), "stored")
    network.vocabulary.begin(place.shortlist, place.head)
    network.begin(passing_weights(network.config, place.head))
    return network


@dataclass(frozen=True)
class Kind:
    """How a drafter of some kind is made, and what its checkpoints say of acceptance."""

    network: Callable[[Place], nn.Module]
    drafter: Callable[[Any, Any], Any]
    loaded: type[Any]
    measured: dict[str, Any]


def _with_tree(drafter: type[HeadDrafter]) -> Callable[[Any, Any], Any]:
    return lambda target, network: drafter(target, network, grow_from_accuracies(random_heads.ACCURACIES, 64))


TREE = grow_from_accuracies(random_heads.ACCURACIES, 64)
KINDS = {
    "medusa": Kind(medusa, _with_tree(Medusa), Medusa, {"accuracies": random_heads.ACCURACIES}),
    "hydra": Kind(hydra, _with_tree(Hydra), Hydra, {"tree": TREE.stored()}),
    "eagle": Kind(eagle, Eagle, Eagle, {}),
    "aligned": Kind(aligned, Aligned, Aligned, {}),
    "kangaroo": Kind(kangaroo, Kangaroo, Kangaroo, {}),
    "falcon": Kind(falcon, _with_tree(Falcon), Falcon, {"tree": TREE.stored()}),
    "chimera": Kind(chimera, _with_tree(Chimera), Chimera, {"tree": TREE.stored()}),
    "longspec": Kind(longspec, LongSpec, LongSpec, {}),
}


def network_of(kind: str, place: Place) -> nn.Module:
    """A network of a kind, moved a little from its start."""
    network = KINDS[kind].network(place)
    random_heads.shake(network, seed=3)
    return network


def drafter_of(kind: str, place: Place) -> Any:
    """A drafter of a kind."""
    return KINDS[kind].drafter(place.target, network_of(kind, place))


def write(kind: str, place: Place, folder: Path) -> Any:
    """Write a checkpoint of a kind, and make the drafter that it is of."""
    network: Any = network_of(kind, place)
    measured = KINDS[kind].measured
    sketch = TargetSketch.of(place.target)
    HeadCheckpoint(kind, sketch, network.sizes, measured, network.state_dict()).save(folder)
    return KINDS[kind].drafter(place.target, network)
